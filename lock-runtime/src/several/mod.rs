//! Several locks at once, all or none.
//!
//! They are taken one after another in the order of their names' bytes, which all processes share.
//! So calls that take their locks in one step never wait for each other in a circle. Where the
//! provider can, those that are free in this process are asked for in one request.

mod acquire;
mod guard;
mod normal;
mod part;

pub(crate) use acquire::Several;
pub(crate) use acquire::{MODE, acquire};
pub use guard::MultiLockGuard;
pub(crate) use normal::in_order;
pub(crate) use part::{Part, Wish};
