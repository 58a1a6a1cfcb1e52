//! A periodic job that every replica of a service starts and one of them runs.
//!
//! With `on_unavailable = "skip"` the others go on at once while one is at it. That alone keeps two
//! runs from overlapping: a replica that comes late, when the lock is free again, would run the job
//! once more. Here it looks into a record of what was done, under the same lock. Where there is no
//! such record, `min_hold` keeps the lock for longer than clocks differ.
//!
//! It needs nothing but Rust. Each replica has a provider of its own on a common directory, as
//! separate processes would have. It ends by itself, non-zero unless every job ran exactly once.
//!
//! ```text
//! cargo run --example background_worker
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{FileProvider, LockProvider, Skipped, distributed_lock};
use tokio::fs;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const REPLICAS: usize = 3;
const TICKS: usize = 6;
const PERIOD: Duration = Duration::from_millis(500);

/// What a replica made of a tick.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Ran,
    /// Another replica has done it.
    Done,
    /// Another replica is at it.
    Skipped,
}

impl Skipped for Outcome {
    fn skipped() -> Self {
        Self::Skipped
    }
}

struct Replica {
    number: usize,
    /// A service registers its provider in `main` instead; here there are several in one process.
    locks: Arc<dyn LockProvider>,
    /// Stands for a table in the database: a line for each report that was sent.
    record: PathBuf,
}

impl Replica {
    /// Contention gives `Ok(Outcome::Skipped)`; a provider that fails is an error.
    #[distributed_lock(name = "report", on_unavailable = "skip", provider = self.locks)]
    async fn send_report(&self, tick: usize) -> Result<Outcome> {
        let mut record = fs::read_to_string(&self.record).await?;
        if record.lines().any(|line| line == format!("report {tick}")) {
            return Ok(Outcome::Done);
        }
        // The report takes its time.
        sleep(Duration::from_millis(40)).await;
        record.push_str(&format!("report {tick}\n"));
        fs::write(&self.record, record).await?;
        Ok(Outcome::Ran)
    }

    async fn run(
        self,
        began: Instant,
        outcomes: mpsc::UnboundedSender<(usize, usize, Outcome)>,
    ) -> Result<()> {
        for tick in 0..TICKS {
            // Clocks differ, and machines are busy: some come up to 80 ms late.
            let late = Duration::from_millis(((self.number + 1) * (tick + 3) * 20 % 100) as u64);
            sleep_until(began + PERIOD * tick as u32 + late).await;
            let outcome = self.send_report(tick).await?;
            outcomes.send((tick, self.number, outcome))?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let record = directory.path().join("reports");
    fs::write(&record, "").await?;

    let (send, mut outcomes) = mpsc::unbounded_channel();
    let mut replicas = JoinSet::new();
    let began = Instant::now();
    for number in 0..REPLICAS {
        let replica = Replica {
            number,
            locks: Arc::new(FileProvider::new(directory.path().join("locks"))),
            record: record.clone(),
        };
        replicas.spawn(replica.run(began, send.clone()));
    }
    drop(send);

    println!("         replica 1  replica 2  replica 3");
    let mut ticks = [[None; REPLICAS]; TICKS];
    while let Some((tick, replica, outcome)) = outcomes.recv().await {
        ticks[tick][replica] = Some(outcome);
        if let [Some(first), Some(second), Some(third)] = ticks[tick] {
            println!(
                "tick {:<3} {:<10} {:<10} {}",
                tick + 1,
                show(first),
                show(second),
                show(third)
            );
        }
    }
    while let Some(replica) = replicas.join_next().await {
        replica??;
    }
    // Releases what is still held, so that the next start need not wait.
    lock_runtime::shutdown().await;

    let ran_once = |tick: &[Option<Outcome>; REPLICAS]| {
        let ran = tick
            .iter()
            .filter(|outcome| **outcome == Some(Outcome::Ran));
        ran.count() == 1
    };
    let reports = fs::read_to_string(&record).await?.lines().count();
    println!("{reports} reports for {TICKS} ticks");
    if reports != TICKS || !ticks.iter().all(ran_once) {
        return Err("every report should be sent once".into());
    }
    Ok(())
}

fn show(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ran => "RAN",
        Outcome::Done => "was done",
        Outcome::Skipped => "skipped",
    }
}
