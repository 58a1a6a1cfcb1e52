//! What the tests of this workspace share: scratch space, real servers, faults, other processes,
//! and judges of what happened.

pub mod certificates;
pub mod child;
pub mod crew;
pub mod example;
pub mod fairness;
pub mod fault_table;
pub mod frozen;
pub mod history;
pub mod pgbouncer;
pub mod policy;
pub mod postgres;
pub mod probe;
pub mod proxy;
pub mod redis;
pub mod register;
pub mod run;
pub mod scratch;
pub mod seeded;
pub mod served;
pub mod storm;
pub mod unanswered;
mod unprivileged;
pub mod zookeeper;

pub use history::{History, boot_nanos};
pub use postgres::PostgresServer;
pub use probe::Probe;
pub use proxy::FaultProxy;
pub use redis::RedisServer;
pub use register::FencedRegister;
pub use run::{eventually, poll_once, run};
pub use scratch::{Deaf, Scratch, free_port, unique};
pub use seeded::Seeded;
pub use served::{RemoteRegister, ServedRegister};
pub use unanswered::{nobody_is_accused, nobody_is_accused_under_load};
pub use zookeeper::ZooKeeperServer;
