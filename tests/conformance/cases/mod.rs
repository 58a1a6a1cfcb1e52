//! The cases. Each is a function of a fixture, and shares its locks with no other test.

pub(crate) mod abandonment;
pub(crate) mod background_release;
pub(crate) mod basic;
pub(crate) mod cancellation;
pub(crate) mod ends;
pub(crate) mod holders;
#[cfg(any(feature = "postgres", feature = "redis", feature = "zookeeper"))]
pub(crate) mod leased_processes;
pub(crate) mod leases;
pub(crate) mod loss;
mod modes;
pub(crate) mod modes_apart;
pub(crate) mod modes_processes;
pub(crate) mod mutexes_only;
pub(crate) mod names;
pub(crate) mod nested;
pub(crate) mod order;
pub(crate) mod permits;
pub(crate) mod processes;
pub(crate) mod read_write;
pub(crate) mod several;
pub(crate) mod several_processes;
pub(crate) mod shared_losses;
pub(crate) mod timeouts;
pub(crate) mod tokens;
pub(crate) mod upgradeable;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod upgradeable_processes;

use std::sync::Arc;

use crate::fixture::Fixture;

type Shared = Arc<Fixture>;
