//! Measures a lock on each provider, beside the raw round trips that it needs, and beside other
//! crates on the same server.
//!
//! ```text
//! cargo bench --bench providers --all-features
//! LOCK_BENCH_ROUNDS=21 cargo bench --bench providers --all-features -- postgres
//! ```
//!
//! The bench starts servers of its own. Machines differ, so ratios count. Every round measures
//! every contender once, one right after another, and takes its ratio to the first one of the same
//! work; the table shows medians. Arguments are parts of the titles to measure, instead of all.

#[path = "../child.rs"]
mod child;
mod kinds;
#[path = "../lock.rs"]
mod lock;
mod locks;
mod peers;
mod postgres;
#[path = "../redis/raw.rs"]
#[allow(dead_code, reason = "another bench uses the rest")]
mod redis;
mod servers;
#[path = "../started.rs"]
mod started;
#[path = "../table.rs"]
mod table;
mod works;
mod zookeeper;

use std::process::ExitCode;

use tokio::runtime::Runtime;

use child::SERVERS;
use kinds::{Clients, Kind};
use servers::{Servers, Urls};
use works::{Bench, Scale};

fn main() -> ExitCode {
    let runtime = started::runtime();
    if let Ok(urls) = std::env::var(SERVERS) {
        serve(&runtime, Urls::parse(&urls));
        return ExitCode::SUCCESS;
    }
    let Some(servers) = Servers::start() else {
        return started::without_server();
    };
    let scale = if started::measures() {
        Scale::full()
    } else {
        Scale::quick()
    };
    Bench::start(runtime, servers.urls(), scale).run(started::wants);
    ExitCode::SUCCESS
}

/// Serves as another process, until its input ends. Each line names a kind of lock and its number.
/// The process waits for that lock, and answers with the moment at which it had the lock.
fn serve(runtime: &Runtime, urls: Urls) {
    let clients = Clients::new(urls);
    for line in std::io::stdin().lines() {
        let line = line.expect("commands are text");
        let (kind, number) = line.split_once(' ').expect("a kind and a number");
        let kind = Kind::parse(kind).expect("a kind");
        let number = number.parse().expect("a number");
        println!("{}", runtime.block_on(clients.held_at(kind, number)));
    }
}
