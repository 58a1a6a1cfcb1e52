//! The options of the attribute, a file each: what it is set to, its check, its expansion.
//!
//! A new option is such a file, its `mod` line here, and a row in [`table`]. The option also needs
//! its place in the layers of `ARCHITECTURE.md` and its description on the attribute's page
//! (`lib.rs`), and a setter in `attribute::run::Request` of `lock-runtime`. `CONTRIBUTING.md` lists
//! all files.

pub(crate) mod crate_path;
pub(crate) mod durations;
pub(crate) mod guard;
pub(crate) mod mode;
pub(crate) mod name;
pub(crate) mod on_unavailable;
pub(crate) mod permits;
pub(crate) mod provider;
pub(crate) mod release;
pub(crate) mod setting;
pub(crate) mod table;
