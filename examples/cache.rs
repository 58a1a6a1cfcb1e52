//! A price list that many read and one refreshes: readers run together, the refresher runs alone.
//!
//! Three processes read the list without pause, with four tasks each (`mode = "read"`). A fourth
//! process refreshes it from time to time (`mode = "write"`), file by file. Without the lock,
//! readers would find old and new files side by side. The refresher gets its turn although somebody
//! reads at every moment, since readers who ask after it wait behind it.
//!
//! It needs nothing but Rust, and ends by itself, non-zero if anything is not as it says. Locks are
//! files; with `REDIS_URL` they are on that server instead:
//!
//! ```text
//! cargo run --example cache
//! REDIS_URL=redis://127.0.0.1:6379 cargo run --example cache
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lock_runtime::{FencingToken, FileProvider, RedisProvider, distributed_lock};
use tokio::fs;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const READERS: usize = 3;
const TASKS: usize = 4;
const REFRESHES: u64 = 8;
/// The files of the list.
const FILES: [&str; 3] = ["names", "prices", "taxes"];

// What the lock protects, and how the code says so.

struct PriceList {
    directory: PathBuf,
    /// Keeps two runs of this example from waiting for each other.
    run: String,
}

impl PriceList {
    /// Others may read at the same time, in this process or in another one.
    #[distributed_lock(name = "prices:{self.run}", mode = "read", timeout = "30s")]
    async fn read(&self, process: usize) -> Result<()> {
        println!("read began {process}");
        let mut versions = Vec::new();
        for file in FILES {
            versions.push(fs::read_to_string(self.directory.join(file)).await?);
            sleep(Duration::from_millis(2)).await;
        }
        if !versions.iter().all(|version| version == &versions[0]) {
            return Err(format!("found half a refresh: {versions:?}").into());
        }
        println!("read ended {process} {}", versions[0]);
        Ok(())
    }

    /// Nobody reads meanwhile, and nobody else writes.
    #[distributed_lock(name = "prices:{self.run}", mode = "write", timeout = "30s", guard = guard)]
    async fn refresh(&self, version: u64, asked: Instant) -> Result<()> {
        let waited = asked.elapsed().as_micros();
        let token = guard.fencing_token().map_or(0, FencingToken::get);
        println!("refresh began {waited} {token}");
        for file in FILES {
            fs::write(self.directory.join(file), version.to_string()).await?;
            sleep(Duration::from_millis(5)).await;
        }
        println!("refresh ended {version}");
        Ok(())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [] => watch(),
        [process, run, directory] => take_part(process, run, directory).inspect_err(|_| {
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

// One of the processes. The refresher's number is that after the readers'.

#[tokio::main]
async fn take_part(process: &str, run: &str, directory: &str) -> Result<()> {
    let process = process.parse()?;
    let list = PriceList {
        directory: directory.into(),
        run: run.to_owned(),
    };
    register(&list.directory).await?;
    if process == READERS {
        for version in 1..=REFRESHES {
            sleep(Duration::from_millis(100)).await;
            list.refresh(version, Instant::now()).await?;
        }
    } else {
        read_until_told(list, process).await?;
    }
    // Releases what is still held, so that the others need not wait.
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
        Err(_) => lock_runtime::register(FileProvider::new(directory.join("locks")))?,
    }
    Ok(())
}

async fn read_until_told(list: PriceList, process: usize) -> Result<()> {
    let list: &'static PriceList = Box::leak(Box::new(list));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(async move {
            loop {
                list.read(process).await?;
            }
        });
    }
    // The parent closes the pipe, or it is closed because the parent has ended.
    let (tell, told) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(tell);
    });
    tokio::select! {
        Some(task) = tasks.join_next() => task?,
        // A read that is dropped where it stands gives its lock back.
        _ = told => Ok(()),
    }
}

// The parent: starts the processes, and checks what they say.

fn watch() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for file in FILES {
        std::fs::write(directory.path().join(file), "0")?;
    }
    try_to_connect(directory.path())?;
    println!("{READERS} processes × {TASKS} tasks read without pause, one process refreshes:\n");
    // One for all, so that what they say is read in the order in which they say it.
    let (said, output) = pipe()?;
    let mut children = Vec::new();
    for process in 0..=READERS {
        children.push(start(process, directory.path(), output.try_clone()?)?);
    }
    drop(output);
    let mut watcher = Watcher::default();
    let watched = watcher.follow(&said, &mut children);
    for child in &mut children {
        if watched.is_err() {
            child.kill()?;
        }
        let status = child.wait()?;
        if watched.is_ok() && !status.success() {
            return Err(format!("a process ended with {status}").into());
        }
    }
    watched?;
    watcher.check()
}

/// Fails without the server. Rather one message than as many as there are processes.
#[tokio::main]
async fn try_to_connect(directory: &Path) -> Result<()> {
    register(directory).await
}

fn start(process: usize, directory: &Path, output: PipeWriter) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .args([process.to_string(), std::process::id().to_string()])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(output)
        .spawn()?;
    Ok(child)
}

#[derive(Default)]
struct Watcher {
    /// How many read now, in each process.
    reading: [usize; READERS],
    refreshing: bool,
    /// What the list holds, and the last fencing token that wrote it.
    version: u64,
    token: u64,
    /// The reads since the last refresh, and the most of them at once, with their processes.
    reads: usize,
    at_once: (usize, usize),
    most_processes: usize,
    waited: Duration,
}

impl Watcher {
    fn follow(&mut self, said: &PipeReader, children: &mut [Child]) -> Result<()> {
        for line in BufReader::new(said).lines() {
            let line = line?;
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["read", "began", process] => self.read_began(process.parse()?)?,
                ["read", "ended", process, version] => {
                    self.reading[process.parse::<usize>()?] -= 1;
                    if version.parse() != Ok(self.version) {
                        return Err(format!("version {version} was read too late").into());
                    }
                    self.reads += 1;
                }
                ["refresh", "began", waited, token] => {
                    self.waited = Duration::from_micros(waited.parse()?);
                    self.refresh_began(token.parse()?)?;
                }
                ["refresh", "ended", version] => self.refresh_ended(version.parse()?),
                _ => return Err(format!("one of the processes says `{line}`").into()),
            }
            if self.version == REFRESHES {
                // Those who read are told to end.
                children
                    .iter_mut()
                    .for_each(|child| drop(child.stdin.take()));
            }
        }
        Ok(())
    }

    fn read_began(&mut self, process: usize) -> Result<()> {
        if self.refreshing {
            return Err("nobody should read while the list is refreshed".into());
        }
        self.reading[process] += 1;
        let processes = self.reading.iter().filter(|reading| **reading > 0).count();
        self.at_once = self.at_once.max((self.reading.iter().sum(), processes));
        self.most_processes = self.most_processes.max(processes);
        Ok(())
    }

    fn refresh_began(&mut self, token: u64) -> Result<()> {
        if self.refreshing || self.reading.iter().any(|reading| *reading > 0) {
            return Err("the refresher should be alone".into());
        }
        if token <= self.token {
            return Err("a later refresh should have a larger token".into());
        }
        (self.refreshing, self.token) = (true, token);
        Ok(())
    }

    fn refresh_ended(&mut self, version: u64) {
        (self.refreshing, self.version) = (false, version);
        let (reads, waited) = (std::mem::take(&mut self.reads), self.waited);
        let (readers, processes) = std::mem::take(&mut self.at_once);
        println!(
            "refresh {version} waited {waited:>6.1?} for those who read, then was alone; before it \
             {reads} reads, up to {readers} at once in {processes} processes"
        );
    }

    fn check(&self) -> Result<()> {
        println!("\nEvery read found one version, and the newest one.");
        if self.version != REFRESHES {
            return Err("the list should be refreshed every time".into());
        }
        if self.most_processes < 2 {
            return Err("processes should read at the same time".into());
        }
        Ok(())
    }
}
