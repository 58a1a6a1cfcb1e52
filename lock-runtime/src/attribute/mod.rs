//! What the attribute's expansions call.

pub(crate) mod expansion;
pub(crate) mod run;
pub(crate) mod template;
