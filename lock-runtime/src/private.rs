//! What expansions of the attribute name. Not part of the public API: it changes without notice.

pub use crate::LockName;
pub use crate::outcome::{or_error, or_skip};
pub use crate::run::{GuardSlot, Request, Site, run, run_with_guard};
pub use crate::template::{Encoded, render};
