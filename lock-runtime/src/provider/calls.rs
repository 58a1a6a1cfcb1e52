//! `Call`: one of several calls that a provider is given together.

use std::fmt;
use std::sync::Arc;

use super::grant::Grant;
use super::request::AcquireRequest;
use crate::error::LockError;

/// One call of a group that [`LockProvider::call_all`](crate::LockProvider::call_all) is given.
#[derive(Debug)]
#[non_exhaustive]
pub enum Call {
    /// Acquire a lock.
    Acquire(AcquireCall),
    /// Release a lock.
    Release(ReleaseCall),
}

/// An acquisition, and where its answer goes.
///
/// One that is dropped without an answer counts as a call that panicked.
pub struct AcquireCall {
    request: AcquireRequest,
    gives_up: Option<Arc<Grant>>,
    caller: Option<Box<dyn AcquireCaller>>,
}

/// A release, and where its answer goes.
///
/// One that is dropped without an answer counts as a call that panicked.
pub struct ReleaseCall {
    grant: Arc<Grant>,
    caller: Option<Arc<dyn ReleaseCaller>>,
}

/// Where the answer to an acquisition goes. `None` stands for a call that was dropped.
pub(crate) trait AcquireCaller: Send {
    fn answered(
        self: Box<Self>,
        request: &AcquireRequest,
        answer: Option<Result<Grant, LockError>>,
    );
}

/// Where the answer to a release goes. `None` stands for a call that was dropped.
pub(crate) trait ReleaseCaller: Send + Sync {
    fn answered(&self, answer: Option<Result<(), LockError>>);
}

impl AcquireCall {
    pub(crate) fn new(
        request: AcquireRequest,
        gives_up: Option<Arc<Grant>>,
        caller: Box<dyn AcquireCaller>,
    ) -> Self {
        Self {
            request,
            gives_up,
            caller: Some(caller),
        }
    }

    /// Returns what is asked for.
    pub fn request(&self) -> &AcquireRequest {
        &self.request
    }

    /// Returns the grant that is to be given up in the same step, as
    /// [`pass_on`](crate::LockProvider::pass_on) does it; `None` for a plain
    /// [`acquire`](crate::LockProvider::acquire).
    pub fn gives_up(&self) -> Option<&Grant> {
        self.gives_up.as_deref()
    }

    /// Answers the call, as `acquire` and `pass_on` return.
    pub fn answer(mut self, answer: Result<Grant, LockError>) {
        if let Some(caller) = self.caller.take() {
            caller.answered(&self.request, Some(answer));
        }
    }
}

impl ReleaseCall {
    pub(crate) fn new(grant: Arc<Grant>, caller: Arc<dyn ReleaseCaller>) -> Self {
        Self {
            grant,
            caller: Some(caller),
        }
    }

    /// Returns the grant to release.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Answers the call, as [`release`](crate::LockProvider::release) returns.
    pub fn answer(mut self, answer: Result<(), LockError>) {
        if let Some(caller) = self.caller.take() {
            caller.answered(Some(answer));
        }
    }
}

impl Drop for AcquireCall {
    fn drop(&mut self) {
        if let Some(caller) = self.caller.take() {
            caller.answered(&self.request, None);
        }
    }
}

impl Drop for ReleaseCall {
    fn drop(&mut self) {
        if let Some(caller) = self.caller.take() {
            caller.answered(None);
        }
    }
}

impl fmt::Debug for AcquireCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireCall")
            .field("request", &self.request)
            .field("gives_up", &self.gives_up)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ReleaseCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReleaseCall")
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}
