//! One of several replicas leads. When it steps down, the next one in the queue does, and what the
//! first one writes too late is refused.
//!
//! Each replica is a provider with a session of its own, as it would be in a process of its own.
//! The replicas queue at the ensemble in the order in which they came. Each is woken by the one
//! before it. The fencing token says whose term it is.
//!
//! It needs a ZooKeeper ensemble, 3.5 or newer: that of `ZOOKEEPER_URL`, by default the server on
//! this machine. It ends by itself, non-zero without a server or if anything is not as it says.
//!
//! ```text
//! cargo run --example zookeeper --features zookeeper
//! ZOOKEEPER_URL=zookeeper://zk1,zk2,zk3 cargo run --example zookeeper --features zookeeper
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{FencingToken, LockError, LockProvider, ZooKeeperProvider, distributed_lock};
use tokio::task::JoinSet;
use tokio::time::sleep;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const LOCAL: &str = "zookeeper://127.0.0.1:2181";
/// Keeps the locks of one application apart from everything else on the ensemble.
const DIRECTORY: &str = "/lock-runtime-example";
const REPLICAS: usize = 3;
const TERMS: usize = 2;

/// One replica of a service.
struct Replica {
    number: usize,
    /// A real service calls `lock_runtime::register` in `main` instead.
    locks: Arc<dyn LockProvider>,
    /// Keeps two runs of this example from waiting for each other.
    run: u32,
    record: Arc<Record>,
}

/// Stands for the resource that only the leader may write to: it refuses a token below the last.
struct Record {
    last: AtomicU64,
    began: Instant,
}

impl Record {
    fn write(&self, token: u64) -> bool {
        self.last.fetch_max(token, Ordering::SeqCst) <= token
    }

    fn say(&self, what: &str) {
        println!("{:6.2} s  {what}", self.began.elapsed().as_secs_f64());
    }
}

impl Replica {
    async fn start(url: &str, number: usize, record: &Arc<Record>) -> Result<Self, LockError> {
        let connecting = ZooKeeperProvider::builder(url)
            .directory(DIRECTORY)
            .connect_timeout(Duration::from_secs(3));
        Ok(Self {
            number,
            locks: Arc::new(connecting.connect().await?),
            run: std::process::id(),
            record: Arc::clone(record),
        })
    }

    /// Waits for its turn, leads for a moment, and answers the token of its term.
    #[distributed_lock(
        name = "leader:{self.run}",
        timeout = "30s",
        provider = self.locks,
        guard = guard
    )]
    async fn lead(&self) -> Result<u64> {
        let number = self.number;
        let token = guard.fencing_token().map_or(0, FencingToken::get);
        self.record
            .say(&format!("replica {number} leads, term {token:#x}"));
        if !self.record.write(token) {
            return Err("a later term should have a larger token".into());
        }
        // The leader's work. It is dropped at once should the session be lost.
        sleep(Duration::from_millis(150)).await;
        self.record.say(&format!("replica {number} steps down"));
        Ok(token)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let url = std::env::var("ZOOKEEPER_URL").unwrap_or_else(|_| LOCAL.to_owned());
    let record = Arc::new(Record {
        last: AtomicU64::new(0),
        began: Instant::now(),
    });
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        match Replica::start(&url, number, &record).await {
            Ok(replica) => replicas.push(replica),
            // The error says which servers and why, and never the password.
            Err(error) => {
                eprintln!("error: {error}");
                eprintln!(
                    "This example needs a ZooKeeper server: start one, \
                     or name yours in ZOOKEEPER_URL."
                );
                return ExitCode::FAILURE;
            }
        }
    }
    let result = show(replicas, &record).await;
    // Releases what is still held, so that the next start need not wait.
    lock_runtime::shutdown().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn show(replicas: Vec<Replica>, record: &Record) -> Result<()> {
    println!("{REPLICAS} replicas, {TERMS} terms each:");
    let mut running = JoinSet::new();
    for replica in replicas {
        running.spawn(async move {
            let mut tokens = Vec::new();
            for _ in 0..TERMS {
                tokens.push(replica.lead().await?);
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(tokens)
        });
    }
    let mut tokens = Vec::new();
    while let Some(replica) = running.join_next().await {
        tokens.extend(replica??);
    }
    tokens.sort_unstable();
    tokens.dedup();
    if tokens.len() != REPLICAS * TERMS {
        return Err("every term should have a token of its own".into());
    }
    println!(
        "\n{} terms, one after another; each had a larger token.",
        tokens.len()
    );
    let stale = tokens[0];
    if record.write(stale) {
        return Err("a write of a term that is over should be refused".into());
    }
    println!("A late write of term {stale:#x} was refused.");
    Ok(())
}
