//! How callers arrive at a shared slot, wait and leave.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::super::release::Release;
use super::super::release_answer::ReleaseMode;
use super::super::slot::{Arrival, Look, SlotRef, Wanted};
use super::state::Share;
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::lease::Lease;
use crate::provider::{Interest, LockMode};
use crate::token::FencingToken;

/// What an arrival gets that need not wait.
type Free = (Option<FencingToken>, Option<Arc<Lease>>);

impl SlotRef {
    pub(crate) fn arrive_shared(
        &self,
        _mode: LockMode,
        _wanted: &Wanted,
        _until: impl FnOnce() -> Timestamp,
        _in_process: bool,
        _waker: &mut Option<Waker>,
    ) -> Result<Arrival<Free>, LockError> {
        Err(self.error(LockErrorKind::Unsupported))
    }

    pub(crate) fn join_nested(&self) -> Option<Free> {
        None
    }

    pub(crate) fn draw_shared_token(&self, _mode: LockMode) -> Option<FencingToken> {
        None
    }

    pub(crate) fn poll_shared(
        &self,
        _ticket: u64,
        _new: bool,
        _context: &Context<'_>,
    ) -> Poll<Result<Look, LockError>> {
        Poll::Ready(Ok(Look::Gone))
    }

    pub(crate) fn give_back_share(&self, _mode: LockMode, _lease: Option<Arc<Lease>>, _: u64) {}

    pub(crate) fn leave_shared(&self, _mode: LockMode, _ticket: u64) -> Option<Interest> {
        None
    }

    pub(crate) fn shared_timed_out(&self, _ticket: u64, _timeout: Duration) -> LockError {
        self.error(LockErrorKind::TimedOut)
    }

    pub(crate) fn release_share(&self, _share: &Share, _mode: ReleaseMode) -> Release {
        Release::Done
    }
}
