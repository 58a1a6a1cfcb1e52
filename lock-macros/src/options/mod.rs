//! The options of the attribute, a file each: what it is set to, its check, its expansion.
//!
//! A new option is a row in [`table`] and such a file.

pub(crate) mod crate_path;
pub(crate) mod durations;
pub(crate) mod guard;
pub(crate) mod name;
pub(crate) mod on_unavailable;
pub(crate) mod provider;
pub(crate) mod setting;
pub(crate) mod table;
