//! Two instances of a service share a Redis server and with it their locks: nothing is lost though
//! both change one balance, the lock goes from one to the other by push, and a job that one is at
//! is skipped by the other.
//!
//! It needs a Redis or Valkey server, 6.2 or newer: that of `REDIS_URL`, by default the one on this
//! machine. The two instances are two connections of one process here. It ends by itself, non-zero
//! without a server or if anything is not as it says.
//!
//! ```text
//! cargo run --example redis
//! REDIS_URL=redis://:secret@redis.example:6379/1 cargo run --example redis
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{FencingToken, LockError, LockProvider, RedisProvider, distributed_lock};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const LOCAL: &str = "redis://127.0.0.1:6379";
/// Keeps the locks of one application apart from everything else on the server.
const PREFIX: &str = "lock-runtime-example:";
const TASKS: u64 = 8;
const DEPOSITS: u64 = 250;

/// An instance of the service, as it would run in a process of its own.
#[derive(Clone)]
struct Service {
    /// A real service calls `lock_runtime::register` in `main` instead.
    locks: Arc<dyn LockProvider>,
    /// Keeps two runs of this example from waiting for each other.
    run: u32,
    balance: Arc<Balance>,
}

/// Stands for a row in a database: the value, and the last fencing token that wrote it.
#[derive(Default)]
struct Balance {
    value: AtomicU64,
    token: AtomicU64,
}

impl Service {
    async fn start(url: &str, balance: &Arc<Balance>) -> Result<Self, LockError> {
        let connecting = RedisProvider::builder(url).key_prefix(PREFIX).connect();
        Ok(Self {
            locks: Arc::new(connecting.await?),
            run: std::process::id(),
            balance: Arc::clone(balance),
        })
    }

    /// Reads, waits for something, writes: without the lock, deposits of others were lost between.
    #[distributed_lock(
        name = "balance:{self.run}",
        timeout = "30s",
        provider = self.locks,
        guard = guard
    )]
    async fn deposit(&self) -> Result<()> {
        let value = self.balance.value.load(Ordering::SeqCst);
        yield_now().await;
        self.balance.value.store(value + 1, Ordering::SeqCst);
        let token = guard.fencing_token().map_or(0, FencingToken::get);
        if self.balance.token.swap(token, Ordering::SeqCst) >= token {
            return Err("a later grant should have a larger token".into());
        }
        Ok(())
    }

    /// Holds the lock for a while, and says when it was acquired and when the body ended.
    #[distributed_lock(name = "baton:{self.run}", timeout = "30s", provider = self.locks)]
    async fn carry(&self, how_long: Duration) -> Result<(Instant, Instant), LockError> {
        let acquired = Instant::now();
        sleep(how_long).await;
        Ok((acquired, Instant::now()))
    }

    /// Sends the report, unless the other instance is at it: then the caller goes on without. An
    /// instance that came later would run it again; where clocks differ, `min_hold` prevents that,
    /// as the README says.
    #[distributed_lock(
        name = "nightly-report:{self.run}",
        on_unavailable = "skip",
        provider = self.locks
    )]
    async fn nightly_report(&self) -> Option<&'static str> {
        sleep(Duration::from_millis(200)).await;
        Some("sent")
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| LOCAL.to_owned());
    let balance = Arc::default();
    let (one, other) = match tokio::try_join!(
        Service::start(&url, &balance),
        Service::start(&url, &balance)
    ) {
        Ok(services) => services,
        // The error says why, and never the password.
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("This example needs a Redis server: start one, or name yours in REDIS_URL.");
            return ExitCode::FAILURE;
        }
    };
    let result = show(&one, &other).await;
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

async fn show(one: &Service, other: &Service) -> Result<()> {
    let all = 2 * TASKS * DEPOSITS;
    println!("Two instances, {TASKS} tasks each, {DEPOSITS} deposits of 1 a task:");
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for service in [one, other] {
        for _ in 0..TASKS {
            let service = service.clone();
            tasks.spawn(async move {
                for _ in 0..DEPOSITS {
                    service.deposit().await?;
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            });
        }
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let took = began.elapsed();
    let value = one.balance.value.load(Ordering::SeqCst);
    let token = one.balance.token.load(Ordering::SeqCst);
    println!("  the balance is {value} of {all}, after {took:.1?}");
    println!("  every write had a larger fencing token; the last one {token}\n");
    if value != all {
        return Err("no deposit should be lost".into());
    }

    println!("One holds the lock, the other waits for it:");
    let (first, second) = tokio::join!(one.carry(Duration::from_millis(300)), async {
        sleep(Duration::from_millis(100)).await;
        other.carry(Duration::ZERO).await
    });
    let ((_, ended), (acquired, _)) = (first?, second?);
    let Some(took) = acquired.checked_duration_since(ended) else {
        return Err("the second should begin after the first has ended".into());
    };
    println!("  handed over by push, {took:.1?} after the first had done\n");

    println!("Both are told to send the nightly report:");
    let (first, second) = tokio::join!(one.nightly_report(), other.nightly_report());
    for (who, report) in [("one", first), ("the other", second)] {
        println!("  {who}: {}", report.unwrap_or("skipped"));
    }
    if first.is_some() == second.is_some() {
        return Err("exactly one should send the report".into());
    }
    Ok(())
}
