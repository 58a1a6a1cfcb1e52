//! The library that the tests of this workspace share: scratch space, real servers, faults, other
//! processes, and judges of what happened.

pub mod any_lock;
pub mod certificates;
pub mod child;
pub mod example;
pub mod fairness;
pub mod frozen;
pub mod harness;
pub mod history;
pub mod nemesis;
pub mod pgbouncer;
pub mod postgres;
pub mod probe;
pub mod proxy;
pub mod redis;
pub mod register;
pub mod remote_register;
pub mod rng;
pub mod scratch;
pub mod skip;
pub mod test_table;
pub mod unanswered;
mod unprivileged;
pub mod windows;
pub mod workers;
pub mod zookeeper;

pub use any_lock::{AnyGuard, AnyLock};
pub use harness::{eventually, poll_once, run};
pub use history::{History, boot_nanos};
pub use postgres::PostgresServer;
pub use probe::Probe;
pub use proxy::FaultProxy;
pub use redis::RedisServer;
pub use register::FencedRegister;
pub use remote_register::{RegisterServer, RemoteRegister};
pub use rng::Rng;
pub use scratch::{ClosedPort, Scratch, free_port, unique};
pub use unanswered::{nobody_is_accused, nobody_is_accused_under_load};
pub use windows::{Window, Windows};
pub use zookeeper::ZooKeeperServer;
