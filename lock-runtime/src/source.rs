//! `Source`: a provider that makes calls, with what it said about itself.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;

use crate::call::caught_now;
use crate::call_queue::CallQueue;
use crate::error::LockError;
use crate::provider::{Capabilities, LockProvider, LockSpace};

/// A provider that makes calls, with what it said about itself. It is asked once, and never under a
/// lock, since it may run any code.
pub(crate) struct Source {
    pub(crate) provider: Arc<dyn LockProvider>,
    facts: OnceCell<Facts>,
    /// Whether it stands in for a default provider while none is registered.
    is_fallback: bool,
}

/// Whether a default provider is registered, or is being registered. Then no caller may get a lock
/// of the fallback, since that would not exclude other processes.
static FALLBACK_CLOSED: AtomicBool = AtomicBool::new(false);

/// Sets whether the fallback's locks are refused, even if the fallback is only made later.
pub(crate) fn close_fallback(closed: bool) {
    FALLBACK_CLOSED.store(closed, Ordering::SeqCst);
}

/// What a provider said about itself.
pub(crate) struct Facts {
    pub(crate) capabilities: Capabilities,
    pub(crate) space: LockSpace,
    /// Whether its locks are nothing but the process's own queue.
    pub(crate) in_process: bool,
    clone_of: Option<LockSpace>,
    /// Where calls become due, if they are made in groups.
    pub(crate) calls: Option<Arc<CallQueue>>,
}

impl Source {
    pub(crate) fn new(provider: Arc<dyn LockProvider>) -> Arc<Self> {
        Self::make(provider, false)
    }

    /// Makes the source of the provider that stands in for a default one.
    pub(crate) fn fallback(provider: Arc<dyn LockProvider>) -> Arc<Self> {
        Self::make(provider, true)
    }

    fn make(provider: Arc<dyn LockProvider>, is_fallback: bool) -> Arc<Self> {
        let facts = OnceCell::new();
        Arc::new(Self {
            provider,
            facts,
            is_fallback,
        })
    }

    /// Tells whether it is the fallback, and a provider has taken its place.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.is_fallback && FALLBACK_CLOSED.load(Ordering::SeqCst)
    }

    /// Returns what the provider says about itself. Asks it at the first call.
    ///
    /// # Errors
    ///
    /// [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable) if the provider panicked.
    #[inline]
    pub(crate) fn ask(&self) -> Result<&Facts, LockError> {
        match self.facts.get() {
            Some(facts) => Ok(facts),
            None => self.ask_first(),
        }
    }

    #[cold]
    fn ask_first(&self) -> Result<&Facts, LockError> {
        let facts = self.facts.get_or_try_init(|| {
            caught_now(|| {
                let capabilities = self.provider.capabilities();
                let clone_of = self.provider.clone_of();
                let group_size = NonZeroUsize::new(self.provider.group_size());
                let group_size = group_size.filter(|most| {
                    // Without reports, an acquisition that waits needs two calls, one by one.
                    most.get() > 1 && capabilities.reports_contention
                });
                Facts {
                    capabilities,
                    space: self.provider.lock_space(),
                    in_process: self.provider.grant_in_process().is_some(),
                    clone_of,
                    calls: group_size.map(|most| CallQueue::of(self.kind_of(clone_of), most)),
                }
            })
        });
        Ok(facts?)
    }

    /// Returns what the provider can do: nothing, if it panicked when it was asked.
    pub(crate) fn capabilities(&self) -> Capabilities {
        match self.ask() {
            Ok(facts) => facts.capabilities,
            Err(_) => Capabilities::new("unknown"),
        }
    }

    /// Returns where its calls become due, if they are made in groups.
    pub(crate) fn calls(&self) -> Option<&Arc<CallQueue>> {
        self.facts.get()?.calls.as_ref()
    }

    /// Tells whether the calls of this provider may serve the other one's callers. Both must belong
    /// to the same lock space.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.provider, &other.provider) || {
            let clone_of = |source: &Self| source.facts.get()?.clone_of;
            clone_of(self).is_some_and(|same| clone_of(other) == Some(same))
        }
    }

    /// Returns a key that is the same for all sources that are [like](Self::is_like) this one.
    pub(crate) fn kind(&self) -> (bool, usize) {
        self.kind_of(self.facts.get().and_then(|facts| facts.clone_of))
    }

    fn kind_of(&self, clone_of: Option<LockSpace>) -> (bool, usize) {
        match clone_of {
            Some(space) => (true, space.number()),
            None => (false, Arc::as_ptr(&self.provider).cast::<()>().addr()),
        }
    }

    /// Returns the provider's name, for logs and metrics.
    pub(crate) fn name(&self) -> &'static str {
        self.capabilities().provider
    }
}
