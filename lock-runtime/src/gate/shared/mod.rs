//! What reader–writer locks and semaphores have in common.

pub(super) mod place;
pub(super) mod state;
