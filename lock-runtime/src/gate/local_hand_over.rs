//! Local hand-over: one grant of the server serves several waiters of this process.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::lease::Lease;
use crate::token::FencingToken;

/// How many times in a row the process may hand the lock to its own waiters before it asks the
/// server whether another process waits.
pub(super) const MOST_LOCAL_GRANTS: u32 = 32;
/// For how long the process may do so.
const LONGEST_LOCAL_TIME: Duration = Duration::from_millis(10);

/// A run of grants inside this process, which one acquisition serves.
#[derive(Default)]
pub(super) struct LocalHandOver {
    next_token: Option<FencingToken>,
    /// How many grants the run may still have.
    remaining: u32,
    ends_at: Option<Timestamp>,
    /// The highest token that this slot ever handed out.
    highest: Option<FencingToken>,
}

impl LocalHandOver {
    /// For how long the process may go on without a word of the server.
    pub(super) const LONGEST: Duration = LONGEST_LOCAL_TIME;

    /// Begins a run with this grant of the provider.
    ///
    /// False if its tokens are not above those that were handed out before. Then the grants of this
    /// run have no tokens.
    pub(super) fn start(&mut self, lease: &Lease, local_hand_over: bool) -> bool {
        let grant = lease.grant();
        let first = grant.token();
        let grows = first.is_none_or(|first| self.highest.is_none_or(|highest| first > highest));
        self.next_token = first.filter(|_| grows);
        self.remaining = match (local_hand_over, first) {
            (false, _) => 1,
            (true, Some(_)) => grant.tokens().get().min(MOST_LOCAL_GRANTS),
            (true, None) => MOST_LOCAL_GRANTS,
        };
        self.ends_at = Some(Timestamp::now() + LONGEST_LOCAL_TIME);
        grows
    }

    /// Begins a run with a grant whose callers need no tokens, so that each provider can have it.
    pub(super) fn start_without_tokens(&mut self) {
        self.next_token = None;
        self.remaining = MOST_LOCAL_GRANTS;
        self.ends_at = Some(Timestamp::now() + LONGEST_LOCAL_TIME);
    }

    /// Notes a token that was handed out beside the runs.
    pub(super) fn note_token(&mut self, token: FencingToken) {
        self.highest = self.highest.max(Some(token));
    }

    /// Counts one grant of the run, and returns its token.
    pub(super) fn take(&mut self) -> Option<FencingToken> {
        self.remaining = self.remaining.saturating_sub(1);
        let token = self.next_token?;
        self.next_token = Some(token.next());
        self.highest = Some(token);
        Some(token)
    }

    /// Tells whether the next waiter of this process may be served without the server.
    pub(super) fn may_go_on(&self) -> bool {
        self.remaining > 0 && self.ends_at.is_some_and(|end| !end.has_passed())
    }
}
