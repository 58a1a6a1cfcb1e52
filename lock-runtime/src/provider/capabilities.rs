//! What a provider says of itself.

use std::sync::Arc;
use std::time::Duration;

/// The identity of a set of locks within this process; see [`LockProvider::lock_space`](crate::LockProvider::lock_space).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockSpace(usize);

impl LockSpace {
    /// Returns the space that belongs to this very provider, for as long as it is not moved.
    /// Registering it, or putting it in an `Arc`, pins it down.
    pub fn of<P: ?Sized>(provider: &P) -> Self {
        Self(std::ptr::from_ref(provider).cast::<()>().addr())
    }

    /// Returns the space that belongs to this shared value, and so to every clone of a provider that
    /// keeps its locks there.
    pub fn at<T>(shared: &Arc<T>) -> Self {
        Self(Arc::as_ptr(shared).addr())
    }

    pub(crate) fn number(self) -> usize {
        self.0
    }
}

/// What a provider can do. The library asks it, the documentation's table is made from it, and the
/// conformance suite chooses its cases by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// A short lower-case name, as logs, metrics and errors show it.
    pub provider: &'static str,
    /// The lease where the caller names none, or `None` if a grant needs no renewal: it lasts
    /// until it is released or the process ends.
    pub lease: Option<Duration>,
    /// Whether every grant carries a fencing token.
    pub fencing_tokens: bool,
    /// Whether a grant can carry several tokens at once
    /// ([`tokens_wanted`](crate::AcquireRequest::tokens_wanted)), so that the process can serve several
    /// of its waiters with one grant. Also true of a provider that gives no tokens at all but
    /// whose grant may serve several waiters.
    pub local_hand_over: bool,
    /// Whether processes are served in the order in which they asked.
    pub fair: bool,
    /// Whether [`acquire`](crate::LockProvider::acquire) and [`pass_on`](crate::LockProvider::pass_on), while
    /// they wait, [say so](crate::AcquireRequest::report_contention) when the server has answered that
    /// somebody holds the lock.
    pub reports_contention: bool,
    /// The longest time that an answer takes which the server gives at once; then the provider
    /// itself answers [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable). It bounds a call
    /// with a timeout of zero; `None` stands for two seconds.
    pub response_timeout: Option<Duration>,
}

impl Capabilities {
    /// Describes a provider of this name that promises nothing more: no lease, no tokens, no order.
    pub const fn new(provider: &'static str) -> Self {
        Self {
            provider,
            lease: None,
            fencing_tokens: false,
            local_hand_over: false,
            fair: false,
            reports_contention: false,
            response_timeout: None,
        }
    }

    /// Adds leases, of this length where the caller names none.
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Adds a fencing token to every grant.
    pub const fn with_fencing_tokens(mut self) -> Self {
        self.fencing_tokens = true;
        self
    }

    /// Lets one grant serve several waiters of the process.
    pub const fn with_local_hand_over(mut self) -> Self {
        self.local_hand_over = true;
        self
    }

    /// Says that processes are served in arrival order.
    pub const fn with_fairness(mut self) -> Self {
        self.fair = true;
        self
    }

    /// Says that each answer, or an error, comes within this time.
    pub const fn with_response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = Some(timeout);
        self
    }

    /// Says that acquisitions report what they see while they wait. Without this, the library first
    /// asks without waiting, so that a timeout can tell a lock that is held from a server that hangs.
    pub const fn with_contention_reports(mut self) -> Self {
        self.reports_contention = true;
        self
    }
}
