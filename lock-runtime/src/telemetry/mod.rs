//! What a program's operators see: metrics, spans and events. Its functions take names and numbers
//! only, so that every other part of the library may call them.

pub(crate) mod metrics;
pub(crate) mod spans;
