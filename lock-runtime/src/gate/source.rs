//! Who makes the calls: a provider, and what it said of itself once.

use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::LockError;
use crate::call::{self, caught_now};
use crate::provider::{Capabilities, LockProvider, LockSpace};
use crate::token::FencingToken;

/// A provider, with what it says of itself: asked once, and under no lock, since a provider may be
/// anybody's code.
pub(crate) struct Source {
    pub(crate) provider: Arc<dyn LockProvider>,
    facts: OnceCell<Facts>,
}

#[derive(Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) capabilities: Capabilities,
    /// Its locks are nothing but the process's own queue.
    pub(crate) in_process: bool,
    clone_of: Option<LockSpace>,
}

impl Source {
    pub(crate) fn new(provider: Arc<dyn LockProvider>) -> Self {
        let facts = OnceCell::new();
        Self { provider, facts }
    }

    /// What it said of itself; asked now, if this is the first time. Asking draws a token, which
    /// nobody else has then.
    pub(super) fn ask(&self) -> Result<(&Facts, Option<FencingToken>), LockError> {
        let mut drawn = None;
        let facts = self.facts.get_or_try_init(|| {
            caught_now(|| {
                let capabilities = self.provider.capabilities();
                drawn = self.provider.grant_in_process();
                Facts {
                    capabilities,
                    in_process: drawn.is_some(),
                    clone_of: self.provider.clone_of(),
                }
            })
        });
        Ok((facts?, drawn))
    }

    /// What it said of itself; nothing, if it panicked instead.
    pub(crate) fn capabilities(&self) -> Capabilities {
        match self.ask() {
            Ok((facts, _)) => facts.capabilities,
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

    /// The token of a grant that needs nobody's answer.
    pub(super) fn draw_token(&self) -> Result<Option<FencingToken>, LockError> {
        caught_now(|| self.provider.grant_in_process()).map_err(call::Panicked::into)
    }
}
