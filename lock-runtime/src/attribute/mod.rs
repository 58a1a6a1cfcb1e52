//! What expansions of the attribute call.

pub(crate) mod expansion;
pub(crate) mod run;
pub(crate) mod template;
