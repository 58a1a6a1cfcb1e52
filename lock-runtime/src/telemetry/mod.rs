//! What a program's operators see: metrics, spans and events. It takes names and numbers, so that
//! everything else may use it.

pub(crate) mod metrics;
pub(crate) mod spans;
