//! Hand-over inside the process: one grant of the server serves several of its waiters.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::lease::Lease;
use crate::token::FencingToken;

/// How many grants in a row the process may hand to its own waiters before it asks the server
/// whether another process waits.
pub(super) const MOST_LOCAL_GRANTS: u32 = 32;
/// And for how long.
const LONGEST_LOCAL_TIME: Duration = Duration::from_millis(10);
/// What is left of the grants that one acquisition may serve inside this process.
#[derive(Default)]
pub(super) struct LocalHandOver {
    next_token: Option<FencingToken>,
    remaining: u32,
    ends_at: Option<Timestamp>,
    /// The highest token that was ever handed out here.
    highest: Option<FencingToken>,
}

impl LocalHandOver {
    /// Begins a run with what the provider granted. False if its tokens are not above those that
    /// were handed out: then none is.
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

    pub(super) fn take(&mut self) -> Option<FencingToken> {
        self.remaining = self.remaining.saturating_sub(1);
        let token = self.next_token?;
        self.next_token = Some(token.next());
        self.highest = Some(token);
        Some(token)
    }

    /// Whether the next waiter of this process may be served without the server.
    pub(super) fn may_go_on(&self) -> bool {
        self.remaining > 0 && self.ends_at.is_some_and(|end| !end.has_passed())
    }
}
