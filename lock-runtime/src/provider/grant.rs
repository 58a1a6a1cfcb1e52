//! `Grant`: what a provider answers to an acquisition.

use std::any::Any;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::loss::LossReporter;
use super::mode::LockMode;
use super::request::{AcquireRequest, OwnerId};
use crate::clock::Timestamp;
use crate::name::LockName;
use crate::token::FencingToken;

/// One successful acquisition, as a provider made it.
///
/// # Examples
///
/// ```
/// use lock_runtime::{AcquireRequest, FencingToken, Grant, Timestamp};
///
/// fn granted(request: &AcquireRequest, sent_at: Timestamp, token: u64) -> Grant {
///     Grant::new(request, sent_at).with_token(FencingToken::new(token))
/// }
/// ```
pub struct Grant {
    name: LockName,
    owner: OwnerId,
    mode: LockMode,
    lease: Duration,
    server_lease: Duration,
    valid_from: Timestamp,
    token: Option<FencingToken>,
    tokens: NonZeroU32,
    state: Option<Box<dyn Any + Send + Sync>>,
    loss: LossReporter,
}

impl Grant {
    /// Makes the grant that answers `request`.
    ///
    /// The provider read `sent_at` **before** it sent the first byte to the server: the validity
    /// counts from there. A moment in the future counts as now.
    pub fn new(request: &AcquireRequest, sent_at: Timestamp) -> Self {
        Self {
            name: request.name().clone(),
            owner: request.owner(),
            mode: request.mode(),
            lease: request.lease(),
            server_lease: request.lease(),
            valid_from: sent_at.min(Timestamp::now()),
            token: None,
            tokens: NonZeroU32::MIN,
            state: None,
            loss: request.loss_reporter(),
        }
    }

    /// Adds one fencing token.
    #[must_use]
    pub fn with_token(self, token: FencingToken) -> Self {
        self.with_tokens(token, NonZeroU32::MIN)
    }

    /// Adds a block of fencing tokens: `first`, `first + 1` and so on, as many as `count`.
    #[must_use]
    pub fn with_tokens(mut self, first: FencingToken, count: NonZeroU32) -> Self {
        self.token = Some(first);
        self.tokens = count;
        self
    }

    /// Sets a lease other than the one that was asked for.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self.server_lease = lease;
        self
    }

    /// Sets how long after a renewal the server keeps the lock, if that is longer than the grant's
    /// lease. For example, a session may live on after its holder has ceased to count on it.
    ///
    /// By default, and if `lease` is shorter than the grant's lease, it is the grant's lease.
    #[must_use]
    pub fn with_server_lease(mut self, lease: Duration) -> Self {
        self.server_lease = lease.max(self.lease);
        self
    }

    /// Adds a value of the provider's own, such as an open file. [`state`](Self::state) returns it,
    /// and it is dropped with the grant.
    #[must_use]
    pub fn with_state(mut self, state: impl Any + Send + Sync) -> Self {
        self.state = Some(Box::new(state));
        self
    }

    /// Returns the lock's name, without the provider's key prefix.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// Returns the identity of the lock's holder.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// Returns which mode of the lock was granted: that of the request.
    pub fn mode(&self) -> LockMode {
        self.mode
    }

    /// Returns how long a renewal extends the grant.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Returns how long after a renewal the server keeps the lock.
    pub fn server_lease(&self) -> Duration {
        self.server_lease
    }

    /// Returns the moment from which the validity counts before the first renewal.
    pub fn valid_from(&self) -> Timestamp {
        self.valid_from
    }

    /// Returns the first fencing token; `None` if there is none.
    pub fn token(&self) -> Option<FencingToken> {
        self.token
    }

    /// Returns how many fencing tokens there are; 1 if there is none.
    pub fn tokens(&self) -> NonZeroU32 {
        self.tokens
    }

    /// Returns the value that [`with_state`](Self::with_state) added, if it is a `T`.
    pub fn state<T: Any>(&self) -> Option<&T> {
        self.state.as_ref()?.downcast_ref()
    }

    /// Returns where to report that this grant has ended by itself.
    pub fn loss_reporter(&self) -> &LossReporter {
        &self.loss
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("name", &self.name)
            .field("owner", &self.owner)
            .field("mode", &self.mode)
            .field("lease", &self.lease)
            .field("valid_from", &self.valid_from)
            .field("token", &self.token)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}
