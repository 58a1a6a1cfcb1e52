//! Semaphores: the head of the queue asks for its permits, and permits that are given back go to
//! the head if it wants just those.

use super::effects::Effects;
use super::release::Release;
use super::release_answer::ReleaseMode;
use super::shared_state::{Hold, State};
use super::slot::SlotRef;

impl SlotRef {
    /// Goes on with the head of the queue. True if it was served without the server.
    pub(super) fn advance_permits(&self, state: &mut State, effects: &mut Effects) -> bool {
        let Some(head) = state.queue.front() else {
            return false;
        };
        let is_barred = state.call.is_some()
            || state.paused
            // One that only tries must not miss permits that are on their way back.
            || (!head.waits && state.releasing > 0)
            || (self.is_the_lock() && !state.fits(head.wish.mode));
        if !is_barred {
            effects.extend(self.ask_for_head(state, None));
        }
        false
    }

    /// Goes on after the holder of permits.
    pub(super) fn permits_are_free(
        &self,
        state: &mut State,
        mut hold: Hold,
        mode: ReleaseMode,
    ) -> (Release, Effects) {
        if hold.run.may_go_on() && self.head_may_have(state, &hold) {
            let mut effects = Effects::default();
            hold.run.take();
            state.serve_share(hold, &mut effects);
            // The call under way was for this head, and goes on for the next one.
            self.adjust_call(state, &mut effects);
            return (Release::Done, effects);
        }
        hold.lease.end();
        let (answer, effects) = self.start_releasing_share(state, hold.lease, mode);
        (Release::Asked(answer), effects)
    }
}
