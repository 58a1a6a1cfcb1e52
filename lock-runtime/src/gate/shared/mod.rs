//! What reader–writer locks and semaphores have in common: slots that may have several holders.
//!
//! A *hold* is one grant of the provider, and a *share* is what one guard has of it: a reader shares
//! its hold with other readers of the process. Locks of this process alone have no holds, but
//! numbers of what is held *inside*.

pub(super) mod asking;
pub(super) mod giving;
pub(super) mod lines;
pub(super) mod looks;
pub(super) mod place;
pub(super) mod state;
