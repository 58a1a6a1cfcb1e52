//! `Upgrade`: a reader that is about to become the writer.

use std::sync::Arc;
use std::task::Waker;

use super::release_answer::Answers;
use crate::error::LockError;
use crate::lease::Lease;
use crate::provider::{AcquireRequest, Grant, Interest};
use crate::token::FencingToken;

/// What a reader gets that has become the writer: the token and the lease of its grant. Inside, the
/// token is drawn later.
pub(crate) type Upgraded = (Option<FencingToken>, Option<Arc<Lease>>);

/// An upgrade, from its beginning until its answer is taken and no call is under way any more.
pub(super) struct Upgrade {
    /// The reader's lease; `None` for a lock of this process alone.
    pub(super) lease: Option<Arc<Lease>>,
    /// Whether it waits for readers who are in its way.
    pub(super) waits: bool,
    /// Whether other readers were seen.
    pub(super) saw_readers: bool,
    /// The call of the provider, while it is under way.
    pub(super) call: Option<Interest>,
    pub(super) caller: Caller,
    /// Who waits for the release of the reader, which comes after the call.
    pub(super) release: Option<Answers>,
    /// A grant that came while bodies under a lost one may still run.
    pub(super) stalled: Option<(AcquireRequest, Grant)>,
}

/// Where the caller of an upgrade stands.
pub(super) enum Caller {
    Waits(Option<Waker>),
    /// It has not looked yet at what has become of the upgrade.
    Has(Result<Upgraded, LockError>),
    /// It has its reader back, and the call has not ended yet.
    GaveUp,
    /// The reader is gone, too.
    Left,
}

impl Upgrade {
    pub(super) fn new(lease: Option<Arc<Lease>>, waits: bool) -> Self {
        Self {
            lease,
            waits,
            saw_readers: false,
            call: None,
            caller: Caller::Waits(None),
            release: None,
            stalled: None,
        }
    }

    /// Tells whether it is that of the reader with this lease.
    pub(super) fn is_of(&self, lease: Option<&Arc<Lease>>) -> bool {
        match (&self.lease, lease) {
            (Some(own), Some(lease)) => Arc::ptr_eq(own, lease),
            (None, None) => true,
            _ => false,
        }
    }

    /// Gives the caller an answer, if it waits for one. Returns the waker.
    pub(super) fn answer(&mut self, answer: Result<Upgraded, LockError>) -> Option<Waker> {
        match &mut self.caller {
            Caller::Waits(waker) => {
                let waker = waker.take();
                self.caller = Caller::Has(answer);
                waker
            }
            _ => None,
        }
    }
}
