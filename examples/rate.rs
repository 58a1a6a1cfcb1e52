//! Three replicas call a partner's API, which bears three calls at once and three new ones every
//! 200 ms, counted over all replicas.
//!
//! `permits = 3` is the number at once. `min_hold` keeps each permit for 200 ms, even if the call
//! is shorter, and so limits the rate too. A call in bulk counts double: `take = 2`. Callers wait
//! for their turn, and one who wants two permits is not overtaken for ever by those who want one.
//!
//! It needs nothing but Rust, and ends by itself, non-zero if anything is not as it says. Locks are
//! files; with `REDIS_URL` they are on that server instead:
//!
//! ```text
//! cargo run --example rate
//! REDIS_URL=redis://127.0.0.1:6379 cargo run --example rate
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lock_runtime::{FileProvider, RedisProvider, distributed_lock};
use tokio::task::JoinSet;
use tokio::time::sleep;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const REPLICAS: usize = 3;
/// The tasks of a replica that call one by one, and the calls of each. Another one calls in bulk.
const TASKS: usize = 2;
const CALLS: usize = 3;
/// What the partner bears.
const AT_ONCE: u32 = 3;
const PERIOD: Duration = Duration::from_millis(200);
/// What all calls count together.
const ALL: u32 = (REPLICAS * (TASKS * CALLS + 2)) as u32;

// A replica.

struct Partner {
    /// Keeps two runs of this example from waiting for each other.
    run: String,
    /// From configuration, in a real service.
    at_once: u32,
    period: Duration,
}

impl Partner {
    #[distributed_lock(
        name = "partner:{self.run}",
        permits = self.at_once,
        min_hold = self.period,
        timeout = "30s"
    )]
    async fn call(&self) -> Result<()> {
        self.answer(1).await;
        Ok(())
    }

    #[distributed_lock(
        name = "partner:{self.run}",
        permits = self.at_once,
        take = 2,
        min_hold = self.period,
        timeout = "30s"
    )]
    async fn call_in_bulk(&self) -> Result<()> {
        self.answer(2).await;
        Ok(())
    }

    /// Stands for the request to the partner, who notes when it begins and ends.
    async fn answer(&self, counts: u32) {
        println!("began {counts}");
        sleep(Duration::from_millis(30)).await;
        println!("ended {counts}");
    }
}

#[tokio::main]
async fn be_replica(run: &str, directory: &str) -> Result<()> {
    register(directory.as_ref()).await?;
    println!("ready");
    // So that all begin at once.
    std::io::stdin().read_exact(&mut [0])?;
    let partner: &'static Partner = Box::leak(Box::new(Partner {
        run: run.to_owned(),
        at_once: AT_ONCE,
        period: PERIOD,
    }));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(async {
            for _ in 0..CALLS {
                partner.call().await?;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
    }
    tasks.spawn(partner.call_in_bulk());
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    // A service runs on. With files, a process that ends gives up its permits before their time;
    // on Redis they outlive it.
    let _ = std::io::stdin().read(&mut [0]);
    lock_runtime::shutdown().await;
    Ok(())
}

async fn register(directory: &Path) -> Result<()> {
    match std::env::var("REDIS_URL") {
        Ok(url) => {
            let settings = RedisProvider::builder(url).key_prefix("lock-runtime-example:");
            // The error says why, and never the password.
            lock_runtime::register(settings.connect().await?)?;
        }
        Err(_) => lock_runtime::register(FileProvider::new(directory))?,
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [] => be_partner(),
        [run, directory] => be_replica(run, directory).inspect_err(|_| {
            // The parent ends the others then.
            println!("failed");
        }),
        _ => Err("expected no arguments".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

// The parent is the partner: it starts the replicas, and counts their calls.

fn be_partner() -> Result<()> {
    let directory = tempfile::tempdir()?;
    try_to_connect(directory.path())?;
    println!("At most {AT_ONCE} calls at once, and {AT_ONCE} new ones every {PERIOD:?}:\n");
    // One for all, so that what they say is read in the order in which they say it.
    let (said, output) = pipe()?;
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(start(directory.path(), output.try_clone()?)?);
    }
    drop(output);
    let mut calls = Calls::default();
    let counted = calls.count(&said, &mut replicas);
    for replica in &mut replicas {
        if counted.is_err() {
            replica.kill()?;
        }
        let status = replica.wait()?;
        if counted.is_ok() && !status.success() {
            return Err(format!("a replica ended with {status}").into());
        }
    }
    counted?;
    calls.check()
}

/// Fails without the server. Rather one message than as many as there are replicas.
#[tokio::main]
async fn try_to_connect(directory: &Path) -> Result<()> {
    register(directory).await
}

fn start(directory: &Path, output: PipeWriter) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .arg(std::process::id().to_string())
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(output)
        .spawn()?;
    Ok(child)
}

#[derive(Default)]
struct Calls {
    ready: usize,
    began: Option<Instant>,
    now: u32,
    most: u32,
    done: u32,
    /// When the last call began, counted from the beginning.
    took: Duration,
}

impl Calls {
    fn count(&mut self, said: &PipeReader, replicas: &mut [Child]) -> Result<()> {
        for line in BufReader::new(said).lines() {
            let line = line?;
            match line.split_once(' ') {
                None if line == "ready" => self.ready(replicas)?,
                Some(("began", counts)) => self.began(counts.parse()?)?,
                Some(("ended", counts)) => {
                    let counts: u32 = counts.parse()?;
                    self.now -= counts;
                    self.done += counts;
                }
                _ => return Err(format!("one of the replicas says `{line}`").into()),
            }
            if self.done == ALL {
                // The replicas may end.
                replicas.iter_mut().for_each(|it| drop(it.stdin.take()));
            }
        }
        Ok(())
    }

    fn ready(&mut self, replicas: &mut [Child]) -> Result<()> {
        self.ready += 1;
        if self.ready == replicas.len() {
            self.began = Some(Instant::now());
            for replica in replicas {
                replica.stdin.as_mut().ok_or("no input")?.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    fn began(&mut self, counts: u32) -> Result<()> {
        self.now += counts;
        self.most = self.most.max(self.now);
        self.took = self.began.ok_or("a call before the first")?.elapsed();
        let call = ["a call", "a call in bulk"][usize::from(counts > 1)];
        let at = self.took.as_secs_f64();
        println!("{at:>5.2} s  {call}; {} of {AT_ONCE} now", self.now);
        if self.now > AT_ONCE {
            return Err("the partner should not get so many calls at once".into());
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        // What comes before the last permits are taken fills whole periods.
        let least = PERIOD * (ALL.div_ceil(AT_ONCE) - 1);
        println!(
            "\nCalls that count {} have begun in {:.2?}, at most {} at once; less than {least:.2?} \
             would have been too fast.",
            self.done, self.took, self.most
        );
        if self.done != ALL || self.most < 2 {
            return Err("every call should be made, and not one by one".into());
        }
        if self.took < least {
            return Err("the partner should not get so many calls in so short a time".into());
        }
        Ok(())
    }
}
