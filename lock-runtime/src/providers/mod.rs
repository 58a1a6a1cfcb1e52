//! The providers. A provider is switched on by one `cfg` here, and by its line in `connect.rs`.

mod connect;
#[cfg(feature = "file")]
pub mod file;
pub mod in_process;
// What not every server needs is dead without those that do.
#[cfg_attr(
    not(all(feature = "postgres", feature = "redis", feature = "zookeeper-tls")),
    allow(dead_code, unused_imports, unused_macros)
)]
pub(crate) mod kit;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

pub use connect::connect;
pub(crate) use connect::{connect_with, known_scheme};

#[cfg(feature = "postgres")]
mod sql_session;
