//! Upgrades: a reader that has the right to becomes the writer, once the other readers have left.
//!
//! A slot has one reader at most that may upgrade, so it has one upgrade at most. While that waits,
//! nobody else enters: it stands before the queue. The provider is asked at once, while readers of
//! this process still read, so that it holds readers of other processes back.
//!
//! The call belongs to the slot. A caller that goes away, or gives up, abandons it, and the reader
//! is given back only when the call has ended: until then nobody knows which of the two it is.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::effects::Effects;
use super::release::Release;
use super::release_answer::{ReleaseMode, answer};
use super::shared_state::{Share, State, key};
use super::slot::SlotRef;
use super::upgrade_state::{Caller, Upgrade, Upgraded};
use crate::error::{LockError, LockErrorKind};
use crate::lease::Lease;
use crate::provider::{Holder, Interest, LockMode};

impl SlotRef {
    /// Begins to make the writer of the reader who has this share.
    ///
    /// # Errors
    ///
    /// [`Contended`](LockErrorKind::Contended) if it does not wait and others of this process read.
    /// [`Lost`](LockErrorKind::Lost) if the reader is lost.
    pub(crate) fn begin_upgrade(&self, share: &Share, waits: bool) -> Result<(), LockError> {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        let lease = share.lease.as_ref();
        if lease.is_some_and(|lease| lease.is_lost() || !state.holds.contains_key(&key(lease))) {
            drop(guard);
            return Err(self.error(LockErrorKind::Lost));
        }
        if state.upgrade.is_some() {
            drop(guard);
            return Err(self.earlier_upgrade_goes_on());
        }
        if !waits && state.others_read(lease) {
            drop(guard);
            return Err(self
                .error(LockErrorKind::Contended)
                .with_holder(Holder::here()));
        }
        if let Some(lease) = lease {
            lease.upgrade_begins();
        }
        state.upgrade = Some(Box::new(Upgrade::new(lease.cloned(), waits)));
        let effects = self.advance(state);
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        Ok(())
    }

    /// Returns the call of an earlier upgrade of this share, while the provider takes it back.
    pub(crate) fn earlier_upgrade(&self, share: &Share) -> Option<Interest> {
        let state = self.shared().lock();
        let upgrade = state.upgrade.as_ref();
        let upgrade = upgrade.filter(|upgrade| upgrade.is_of(share.lease.as_ref()))?;
        upgrade.call.clone()
    }

    /// Returns the error of an upgrade that cannot begin before an earlier one is taken back.
    pub(crate) fn earlier_upgrade_goes_on(&self) -> LockError {
        self.error(LockErrorKind::ProviderUnavailable)
            .with_detail("the provider has not taken back the upgrade before; ask again")
    }

    /// Returns the answer to an upgrade, or keeps the waker until there is one.
    pub(crate) fn poll_upgrade(
        &self,
        share: &Share,
        context: &Context<'_>,
    ) -> Poll<Result<Upgraded, LockError>> {
        // Cloned before the lock and dropped after it, since both may run the user's code.
        let waker = context.waker().clone();
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        let Some(upgrade) = &mut state.upgrade else {
            drop(guard);
            return Poll::Ready(Err(self.error(LockErrorKind::Lost)));
        };
        let polled = match std::mem::replace(&mut upgrade.caller, Caller::Left) {
            Caller::Has(answer) => {
                if upgrade.call.is_none() {
                    state.upgrade = None;
                }
                (Poll::Ready(answer), None)
            }
            Caller::Waits(known) => {
                upgrade.caller = Caller::Waits(Some(waker));
                (Poll::Pending, known)
            }
            caller => {
                upgrade.caller = caller;
                (Poll::Pending, None)
            }
        };
        debug_assert!(
            state
                .upgrade
                .as_ref()
                .is_none_or(|it| it.is_of(share.lease.as_ref())),
            "a slot has one upgrade"
        );
        drop(guard);
        polled.0
    }

    /// Ends the wait of an upgrade, and returns why it had to wait. If the provider is being asked,
    /// its answer is still to come.
    pub(crate) fn stop_upgrade(&self, timeout: Duration) -> (LockError, Option<Interest>) {
        let mut guard = self.shared().lock();
        let state = &mut *guard;
        let mut effects = Effects::default();
        let (mut trouble, mut saw_readers, mut call) = (None, true, None);
        let mut holder = None;
        if let Some(upgrade) = &mut state.upgrade {
            saw_readers = upgrade.saw_readers;
            holder = saw_readers.then(Holder::here);
            call.clone_from(&upgrade.call);
            if let Some(interest) = &call {
                trouble = interest.trouble();
                saw_readers |= interest.is_contended();
                holder = interest.holder().or(holder);
                effects.abandon(interest.clone());
            } else if let Caller::Waits(_) = upgrade.caller {
                let error = self.error(LockErrorKind::TimedOut);
                effects.wake(upgrade.answer(Err(error)));
                if let Some(lease) = &upgrade.lease {
                    lease.upgrade_ended();
                }
                effects.extend(self.advance(state));
            }
        }
        let looked_at = state.be_looked_at();
        drop(guard);
        effects.happen();
        self.look_later(looked_at);
        let error = match trouble {
            Some(trouble) => trouble.with_name(self.name.clone()),
            None if saw_readers => LockError::new(LockErrorKind::TimedOut)
                .held_by(holder)
                .with_name(self.name.clone()),
            None => self
                .error(LockErrorKind::ProviderUnavailable)
                .with_detail(format!("no answer within {timeout:?}")),
        };
        (error, call)
    }

    /// Leaves an upgrade to its call, whose answer does not come. False if it has come just now.
    pub(crate) fn leave_upgrade(&self) -> bool {
        let mut state = self.shared().lock();
        match &mut state.upgrade {
            Some(upgrade) if matches!(upgrade.caller, Caller::Waits(_)) => {
                upgrade.caller = Caller::GaveUp;
                true
            }
            _ => false,
        }
    }

    /// Notes that a reader of this process alone is given back. Returns what it has by now.
    pub(super) fn left_inside(state: &mut State, mode: LockMode) -> LockMode {
        if mode != LockMode::Upgradeable || state.upgrade.is_none() {
            return mode;
        }
        // A caller that has not looked yet may be the writer already.
        state.upgrade = None;
        match state.inside.writes {
            true => LockMode::Write,
            false => LockMode::Upgradeable,
        }
    }

    /// Notes that the reader with this lease is given back. Returns the lease that it has by now. `Err`
    /// if nothing else is to be done: what it has is not known before the call has ended.
    pub(super) fn left_upgrade(
        state: &mut State,
        lease: &Arc<Lease>,
        mode: ReleaseMode,
    ) -> Result<Arc<Lease>, (Release, Effects)> {
        let mut effects = Effects::default();
        let Some(upgrade) = state.upgrade.as_mut().filter(|it| it.is_of(Some(lease))) else {
            return Ok(Arc::clone(lease));
        };
        if let Some(interest) = &upgrade.call {
            effects.abandon(interest.clone());
            upgrade.caller = Caller::Left;
            let Some(hold) = state.holds.get_mut(&key(lease)) else {
                // It is lost, and no body runs under it any more.
                state.leave_lost(key(lease));
                lease.leave();
                return Err((Release::NotHeld, effects));
            };
            hold.shares = 0;
            let (answers, answer) = answer(mode);
            upgrade.release = Some(answers);
            return Err((Release::Asked(answer), effects));
        }
        lease.upgrade_ended();
        let upgrade = state.upgrade.take();
        Ok(match upgrade.map(|upgrade| upgrade.caller) {
            // A caller that has not looked yet is the writer already.
            Some(Caller::Has(Ok((_, Some(writes))))) => writes,
            _ => Arc::clone(lease),
        })
    }
}
