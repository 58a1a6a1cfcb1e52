//! The items that the attribute's expansions name. They are not part of the public API, and change
//! without notice.
//!
//! All that expansions name is here, the standard library's items too: the names of its crates may
//! mean something else where an expansion stands. A type whose methods have bounds is an alias and
//! no re-export, so that the compiler's errors show its own path and not this one.

pub use core::convert::Into;
pub use core::option::Option;
pub use core::pin::pin;
pub use core::time::Duration;
pub use core::{format_args, stringify, unreachable};

pub use crate::attribute::expansion::Output;
pub use crate::attribute::run::CallSite as Site;
pub use crate::attribute::template::{Encoded, render};
pub use crate::body::GuardCell;
pub use crate::name::LockName;
pub use crate::several::MultiLockGuard;
pub use crate::shared_guard::{RwLockReadGuard, RwLockWriteGuard, SemaphorePermit};

pub type Expansion = crate::attribute::expansion::Expansion;
pub type GuardSlot = GuardCell<crate::guard::LockGuard>;
pub type Several = crate::attribute::run::Request<crate::several::Several>;
pub type Request = crate::attribute::run::Request<crate::kind::Exclusive>;
