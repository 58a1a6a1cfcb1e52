//! Faults of servers, networks and processes, against real Redis servers: through signals, the
//! server's own commands and a proxy that breaks connections. Each test shows that its fault
//! happened. `README.md` says which fault is shown where, and by which command.

// What these tests need of a server and a client is what the tests of the Redis provider need.
#[path = "../redis/common.rs"]
#[allow(dead_code, reason = "the other tests need more of it")]
mod common;
#[path = "../redis/together.rs"]
#[allow(dead_code, reason = "the other tests need more of it")]
mod together;

mod network;
mod server_stats;
mod servers;

mod abandonment;
mod answers;
mod cancellation;
mod clocks;
mod eviction;
mod failover;
mod failover_hand_over;
mod foreign_client;
mod groups;
mod hand_over;
mod loss;
mod nemesis;
mod outage;
mod passwords;
mod reconnecting;
mod renewals;
mod restart;
mod scripts;
mod table;
mod unanswered;
