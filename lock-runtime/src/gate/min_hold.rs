//! `min_hold`: keeps a lock for a while after its body has ended.

use std::sync::Arc;

use tokio::sync::Notify;

use super::effects::Effects;
use super::release::Release;
use super::release_answer::{Answers, ReleaseMode, answer};
use super::slot::SlotRef;
use super::state::{Phase, State};
use crate::background;
use crate::call::{measured, of_grant};
use crate::clock::Timestamp;
use crate::error::LockErrorKind;
use crate::future::select;
use crate::lease::Lease;
use crate::sending::watched;
use crate::telemetry::spans;

impl SlotRef {
    /// Keeps the held lock until this moment. The provider is asked to do so by itself. If it
    /// cannot, this process renews the lock until then and gives it back.
    pub(super) fn rest(
        &self,
        state: &mut State,
        mode: ReleaseMode,
        until: Timestamp,
    ) -> (Release, Effects) {
        let lease = match state.enter(Phase::Idle) {
            Phase::Held { lease, .. } => lease,
            _ => None,
        };
        let end = Arc::new(Notify::new());
        let (slot, ends) = (self.clone(), Arc::clone(&end));
        let (started, release) = match lease.clone() {
            None => {
                let rest = async move {
                    tokio::time::sleep(until.remaining()).await;
                    slot.rested_in_process(&ends);
                };
                (background::run(rest), Release::Done)
            }
            Some(lease) => {
                // A renewal could undo what the server is now asked for.
                lease.pause_renewals();
                lease.vacate();
                let (answers, answer) = answer(mode);
                let slot = self.of(&lease);
                let rest = async move { slot.rest_on_server(lease, until, &ends, answers).await };
                (background::run(rest), Release::Asked(answer))
            }
        };
        match started {
            Ok(()) => {
                state.phase = Phase::Resting(lease, end);
                (release, Effects::default())
            }
            Err((_, job)) => {
                let mut effects = match lease {
                    Some(lease) => self.give_back(state, mode, lease).1,
                    None => self.pass_in_process(state),
                };
                effects.drop_job(job);
                (Release::NotHeld, effects)
            }
        }
    }

    /// Ends the rest of a lock of this process alone.
    fn rested_in_process(&self, ends: &Arc<Notify>) {
        let mut state = self.lock();
        if !matches!(&state.phase, Phase::Resting(None, end) if Arc::ptr_eq(end, ends)) {
            return;
        }
        state.enter(Phase::Idle);
        let effects = self.pass_in_process(&mut state);
        let looked_at = state.be_looked_at();
        drop(state);
        effects.happen();
        self.look_later(looked_at);
    }

    /// Has the server keep the lock until this moment. If it cannot, keeps the lock here.
    pub(super) async fn rest_on_server(
        &self,
        lease: Arc<Lease>,
        until: Timestamp,
        ends: &Notify,
        mut answers: Answers,
    ) {
        let source = self.source();
        let asked = measured(source.name(), "release_later", async {
            let provider = &source.provider;
            provider
                .release_later(lease.grant(), until.remaining())
                .await
        });
        let asked = watched(asked, answers.sent().map(|sent| |_| sent.tell())).await;
        let asked = asked.unwrap_or_else(|panicked| Err(panicked.into()));
        let asked = asked.map_err(|error| of_grant(error).with_name(self.name.clone()));
        match &asked {
            // The server ends the lock then. The next acquisition of this process waits there like
            // those of other processes.
            Ok(()) => {
                self.gave_back(&lease, until);
                answers.give(Ok(()));
                return;
            }
            Err(error) if error.kind() == LockErrorKind::Lost => {
                lease.lose_with(error.clone());
                answers.give(asked);
                return;
            }
            Err(error) if error.kind() != LockErrorKind::Unsupported => {
                spans::not_kept(error);
            }
            Err(_) => {}
        }
        answers.give(Ok(()));
        lease.resume_renewals();
        select(tokio::time::sleep(until.remaining()), ends.notified()).await;
        if self.shared.is_some() {
            return self.hold_has_rested(&lease);
        }
        let mut state = self.lock();
        if !state.phase.is_of(&lease) {
            return;
        }
        state.enter(Phase::Idle);
        let (_, effects) = self.give_back(&mut state, ReleaseMode::Confirmed, lease);
        let looked_at = state.be_looked_at();
        drop(state);
        effects.happen();
        self.look_later(looked_at);
    }

    /// Goes on without the lease, which the provider now ends by itself at `until`.
    fn gave_back(&self, lease: &Arc<Lease>, until: Timestamp) {
        lease.end();
        if self.shared.is_some() {
            return self.hold_is_left(lease, until);
        }
        let mut state = self.lock();
        if !state.phase.is_of(lease) {
            return;
        }
        let rested = state.enter(Phase::Idle);
        state.rests_until = Some(until);
        let effects = self.start_acquiring(&mut state, None);
        drop(state);
        drop(rested);
        effects.happen();
    }
}
