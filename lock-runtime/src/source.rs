//! Who makes the calls: a provider, and what it said of itself once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;

use crate::call::caught_now;
use crate::error::LockError;
use crate::provider::{Capabilities, LockProvider, LockSpace};

/// A provider, with what it says of itself: asked once, and under no lock, since a provider may be
/// anybody's code.
pub(crate) struct Source {
    pub(crate) provider: Arc<dyn LockProvider>,
    facts: OnceCell<Facts>,
    /// It stands in for a default provider that nobody has registered.
    is_fallback: bool,
}

/// A default provider is registered or being so: the fallback's locks would exclude nobody else.
static FALLBACK_CLOSED: AtomicBool = AtomicBool::new(false);

/// Sets whether nobody arrives at the fallback's locks any more, also if it is only made later.
pub(crate) fn close_fallback(closed: bool) {
    FALLBACK_CLOSED.store(closed, Ordering::SeqCst);
}

#[derive(Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) capabilities: Capabilities,
    pub(crate) space: LockSpace,
    /// Its locks are nothing but the process's own queue.
    pub(crate) in_process: bool,
    clone_of: Option<LockSpace>,
}

impl Source {
    pub(crate) fn new(provider: Arc<dyn LockProvider>) -> Arc<Self> {
        Self::make(provider, false)
    }

    /// The same for the provider that stands in for a default one.
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

    /// Whether it is the fallback, and a provider has taken its place.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.is_fallback && FALLBACK_CLOSED.load(Ordering::SeqCst)
    }

    /// What it said of itself; asked now, if this is the first time.
    ///
    /// # Errors
    ///
    /// If it panicked instead.
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
            caught_now(|| Facts {
                capabilities: self.provider.capabilities(),
                space: self.provider.lock_space(),
                in_process: self.provider.grant_in_process().is_some(),
                clone_of: self.provider.clone_of(),
            })
        });
        Ok(facts?)
    }

    /// What it said of itself; nothing, if it panicked instead.
    pub(crate) fn capabilities(&self) -> Capabilities {
        match self.ask() {
            Ok(facts) => facts.capabilities,
            Err(_) => Capabilities::new("unknown"),
        }
    }

    /// Whether its calls and the other one's, of the same lock space, are interchangeable.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.provider, &other.provider) || {
            let clone_of = |source: &Self| source.facts.get()?.clone_of;
            clone_of(self).is_some_and(|same| clone_of(other) == Some(same))
        }
    }

    /// The same number for all that are [like](Self::is_like) this one.
    pub(crate) fn kind(&self) -> (bool, usize) {
        match self.facts.get().and_then(|facts| facts.clone_of) {
            Some(space) => (true, space.number()),
            None => (false, Arc::as_ptr(&self.provider).cast::<()>().addr()),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.capabilities().provider
    }
}
