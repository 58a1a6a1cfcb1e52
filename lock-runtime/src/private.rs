//! What expansions of the attribute name. Not part of the public API: it changes without notice.
//!
//! Here is all that they name, also of the standard library, whose crates' names may mean something
//! else where an expansion stands. What has bounds is an alias and no re-export: errors of the
//! compiler then show its own path, and not this one.

pub use core::convert::Into;
pub use core::option::Option;
pub use core::pin::pin;
pub use core::time::Duration;
pub use core::{format_args, stringify, unreachable};

pub use crate::attribute::expansion::Output;
pub use crate::attribute::run::CallSite as Site;
pub use crate::attribute::template::{Encoded, render};
pub use crate::body::GuardCell as GuardSlot;
pub use crate::name::LockName;

pub type Expansion = crate::attribute::expansion::Expansion;
pub type Request = crate::attribute::run::Request;
