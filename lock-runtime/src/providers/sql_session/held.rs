//! What a grant carries whose lock is held by a session.

use std::sync::{Arc, Mutex, PoisonError};

use super::leases::LeaseInUse;
use super::reservation::Reservation;
use super::session::Session;
use super::traits::LockSession;
use crate::{LockError, LockErrorKind};

pub(super) const NOT_HELD: &str = "the server had given a lock up before its holder did";

/// A lock that is held.
pub(super) struct HeldLock<S: LockSession> {
    pub(super) session: Arc<Session<S>>,
    reservation: Mutex<Option<Reservation<S::Key>>>,
    _lease: Option<LeaseInUse>,
}

impl<S: LockSession> HeldLock<S> {
    pub(super) fn new(
        session: &Arc<Session<S>>,
        reservation: Reservation<S::Key>,
        lease: Option<LeaseInUse>,
    ) -> Self {
        Self {
            session: Arc::clone(session),
            reservation: Mutex::new(Some(reservation)),
            _lease: lease,
        }
    }

    /// Takes the key out, which happens once: when the lock is released or passed on.
    pub(super) fn take_reservation(&self) -> Option<Reservation<S::Key>> {
        self.reservation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Makes the error of a holder that does not hold its lock any more.
pub(super) fn lost(why: &str) -> LockError {
    LockError::new(LockErrorKind::Lost).with_detail(why)
}
