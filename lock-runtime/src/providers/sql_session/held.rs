//! What a grant carries whose lock is held by a session.

use std::sync::{Arc, Mutex, PoisonError};

use super::leases::LeaseInUse;
use super::reservation::Reservation;
use super::session::Session;
use super::traits::{LockSession, PermitKeys};
use crate::{LockError, LockErrorKind};

pub(super) const NOT_HELD: &str = "the server had given a lock up before its holder did";

/// What a grant has of the locks of its session.
pub(super) enum Has<S: LockSession> {
    Lock(Reservation<S::Key>),
    Permits(PermitKeys<S::Key>, Vec<Reservation<S::Key>>),
    /// A lock that it shares, on a session of its own, with the right to hold it alone. It may do
    /// that already.
    Upgradeable {
        shared: Reservation<S::Key>,
        right: Reservation<S::Key>,
        is_alone: bool,
    },
}

/// A lock that is held.
pub(super) struct HeldLock<S: LockSession> {
    pub(super) session: Arc<Session<S>>,
    has: Mutex<Option<Has<S>>>,
    _lease: Option<LeaseInUse>,
}

impl<S: LockSession> HeldLock<S> {
    pub(super) fn new(session: &Arc<Session<S>>, has: Has<S>, lease: Option<LeaseInUse>) -> Self {
        Self {
            session: Arc::clone(session),
            has: Mutex::new(Some(has)),
            _lease: lease,
        }
    }

    /// Takes out what the grant has, which happens once: when it is released or passed on. The end
    /// of the session is no loss of it any more.
    pub(super) fn take(&self) -> Option<Has<S>> {
        let mut has = self.has.lock().unwrap_or_else(PoisonError::into_inner);
        has.take()
    }
}

/// Makes the error of a holder that does not hold its lock any more.
pub(super) fn lost(why: &str) -> LockError {
    LockError::new(LockErrorKind::Lost).with_detail(why)
}
