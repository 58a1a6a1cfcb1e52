//! `Capabilities` and `LockSpace`: what a provider says about itself.

use std::sync::Arc;
use std::time::Duration;

/// The identity of a set of locks within this process; see
/// [`LockProvider::lock_space`](crate::LockProvider::lock_space).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockSpace {
    address: usize,
    /// Whether its locks are nothing but the queues of this process.
    in_process: bool,
}

impl LockSpace {
    pub(super) const fn at_address(address: usize) -> Self {
        Self {
            address,
            in_process: false,
        }
    }

    /// Returns the space that belongs to this shared value, and so to all clones of a provider that
    /// keep their locks there.
    pub fn at<T>(shared: &Arc<T>) -> Self {
        Self::at_address(Arc::as_ptr(shared).addr())
    }

    /// Returns the space that belongs to this shared value, whose locks are nothing but the queues
    /// of this process.
    pub(crate) fn in_process<T>(shared: &Arc<T>) -> Self {
        Self {
            address: Arc::as_ptr(shared).addr(),
            in_process: true,
        }
    }

    /// Tells whether its locks are nothing but the queues of this process.
    pub(crate) fn is_in_process(self) -> bool {
        self.in_process
    }

    pub(crate) fn number(self) -> usize {
        self.address
    }
}

/// What a provider can do. The library acts on it, and the conformance suite chooses its cases by
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// A short lower-case name, as logs, metrics and errors show it.
    pub provider: &'static str,
    /// The lease of a lock for which the caller asks for none. `None` if grants have no lease: they
    /// last until they are released or the process ends.
    pub lease: Option<Duration>,
    /// Whether every grant carries a fencing token.
    pub fencing_tokens: bool,
    /// Whether one grant may serve several waiters of the process. If the provider gives fencing
    /// tokens, its grants carry as many as are [wanted](crate::AcquireRequest::tokens_wanted): each
    /// waiter gets its own, and the grant serves no more waiters than it has tokens.
    pub local_hand_over: bool,
    /// Whether processes are served in the order in which they asked.
    pub fair: bool,
    /// Whether [`acquire`](crate::LockProvider::acquire) and
    /// [`pass_on`](crate::LockProvider::pass_on) call
    /// [`report_contention`](crate::AcquireRequest::report_contention) while they wait, when the
    /// server has named another holder.
    pub reports_contention: bool,
    /// Whether the provider has reader–writer locks: the modes [`Read`](crate::LockMode::Read) and
    /// [`Write`](crate::LockMode::Write).
    pub read_write: bool,
    /// Whether a reader may hold the right to [become a writer](crate::LockProvider::upgrade): the
    /// mode [`Upgradeable`](crate::LockMode::Upgradeable).
    pub upgradeable: bool,
    /// Whether the provider has semaphores: [`Permits`](crate::LockMode::Permits), of which each
    /// request takes one.
    pub semaphore: bool,
    /// Whether a request may take several permits of a semaphore.
    pub many_permits: bool,
    /// Whether the provider can [tell who holds a lock](crate::LockProvider::inspect).
    pub holders: bool,
    /// How long the provider waits for an answer that its server gives at once. After that it
    /// answers [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable) itself. This
    /// bounds a call with a timeout of zero; `None` stands for two seconds.
    pub response_timeout: Option<Duration>,
}

impl Capabilities {
    /// Describes a provider of this name that promises nothing more: no lease, no tokens, no order
    /// of waiters.
    pub const fn new(provider: &'static str) -> Self {
        Self {
            provider,
            lease: None,
            fencing_tokens: false,
            local_hand_over: false,
            fair: false,
            reports_contention: false,
            read_write: false,
            upgradeable: false,
            semaphore: false,
            many_permits: false,
            holders: false,
            response_timeout: None,
        }
    }

    /// Adds leases, of this length where the caller asks for none.
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

    /// Says that processes are served in the order in which they asked.
    pub const fn with_fairness(mut self) -> Self {
        self.fair = true;
        self
    }

    /// Adds reader–writer locks.
    pub const fn with_read_write(mut self) -> Self {
        self.read_write = true;
        self
    }

    /// Adds reader–writer locks, in which one reader at a time may become the writer.
    pub const fn with_upgradeable(mut self) -> Self {
        self.read_write = true;
        self.upgradeable = true;
        self
    }

    /// Adds semaphores, of which each request takes one permit.
    pub const fn with_semaphore(mut self) -> Self {
        self.semaphore = true;
        self
    }

    /// Adds semaphores of which a request may take several permits.
    pub const fn with_many_permits(mut self) -> Self {
        self.semaphore = true;
        self.many_permits = true;
        self
    }

    /// Says that the provider can tell who holds a lock.
    pub const fn with_holders(mut self) -> Self {
        self.holders = true;
        self
    }

    /// Sets how long the provider waits for an answer that its server gives at once.
    pub const fn with_response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = Some(timeout);
        self
    }

    /// Says that acquisitions that wait report when the server has named another holder. Without
    /// this, the library first asks without waiting. So a timeout can tell a lock that is held from
    /// a server that hangs.
    pub const fn with_contention_reports(mut self) -> Self {
        self.reports_contention = true;
        self
    }
}
