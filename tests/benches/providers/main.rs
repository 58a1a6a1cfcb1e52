//! What a lock costs on each provider, beside the raw round trips that it needs, and beside other
//! crates on the same server.
//!
//! ```text
//! cargo bench --bench providers --all-features
//! LOCK_BENCH_ROUNDS=21 cargo bench --bench providers --all-features -- postgres
//! ```
//!
//! It starts servers of its own. Machines differ, so ratios count: every round measures every
//! contender once, one right after another, and takes its ratio to the first one of the same work;
//! the table shows medians. Arguments are parts of the titles to measure, instead of all.

#[path = "../child.rs"]
mod child;
mod kinds;
mod locks;
mod peers;
mod postgres;
#[path = "../redis/raw.rs"]
#[allow(dead_code, reason = "another bench uses the rest")]
mod redis;
mod servers;
#[path = "../table.rs"]
mod table;
mod works;
mod zookeeper;

use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use child::SERVERS;
use kinds::{Clients, Kind};
use servers::{Servers, Urls};
use works::{Bench, Scale};

fn main() -> ExitCode {
    let runtime = runtime();
    if let Ok(urls) = std::env::var(SERVERS) {
        serve(&runtime, Urls::parse(&urls));
        return ExitCode::SUCCESS;
    }
    // `cargo bench` says so; `cargo test --benches` only wants to see that it runs.
    let measures = std::env::args().any(|argument| argument == "--bench");
    let Some(servers) = Servers::start() else {
        return if measures {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    };
    let scale = if measures {
        Scale::full()
    } else {
        Scale::quick()
    };
    let filters: Vec<_> = std::env::args().skip(1).collect();
    let filters: Vec<_> = filters.iter().filter(|it| !it.starts_with("--")).collect();
    let wanted = |title: &str| {
        filters.is_empty() || filters.iter().any(|filter| title.contains(filter.as_str()))
    };
    Bench::start(runtime, servers.urls(), scale).run(wanted);
    ExitCode::SUCCESS
}

fn runtime() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime starts")
}

/// The life of another process: each line names a kind of lock and its number. It waits for that
/// lock, and answers when it had it.
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
