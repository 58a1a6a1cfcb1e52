//! Four processes post into one ledger, first without a lock between them, then with one.
//!
//! The ledger is a file. Posting reads it, appends an entry and writes it back, so what another
//! process wrote in between is lost, unless only one of them posts at a time. Both rounds run the
//! same annotated method. In the first one no provider is registered, so that the lock is held in
//! each process alone; in the second one each process registers the file provider.
//!
//! It needs nothing but Rust, and exits non-zero if an entry is missing at the end:
//!
//! ```text
//! cargo run --example quickstart
//! ```

use std::collections::HashSet;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use lock_runtime::{FileProvider, distributed_lock};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const PROCESSES: [&str; 4] = ["A", "B", "C", "D"];
const ENTRIES: usize = 250;
const ALL: usize = PROCESSES.len() * ENTRIES;

// What the lock protects, and how the code says so.

struct Ledger {
    account: String,
    directory: PathBuf,
    process: String,
}

impl Ledger {
    /// Nobody else posts to this account meanwhile, in this process or in another one.
    #[distributed_lock(name = "ledger:{self.account}", timeout = "30s")]
    async fn post(&self, entry: usize, asked: Instant) -> Result<()> {
        let waited = asked.elapsed().as_micros();
        let (file, draft) = (self.file(), self.directory.join(&self.process));
        let mut ledger = tokio::fs::read_to_string(&file).await?;
        writeln!(ledger, "{} {entry} {waited}", self.process)?;
        // Replaced in one step, so that nobody reads half a ledger: all that can go wrong here is
        // that updates are lost.
        tokio::fs::write(&draft, ledger).await?;
        tokio::fs::rename(&draft, &file).await?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.directory.join(format!("{}.ledger", self.account))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [] => compare().await,
        [directory, process, locked] => {
            post_all(directory.into(), process.clone(), locked == "locked").await
        }
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

// One of the four processes.

async fn post_all(directory: PathBuf, process: String, locked: bool) -> Result<()> {
    if locked {
        lock_runtime::register(FileProvider::new(directory.join("locks")))?;
    }
    let ledger = Ledger {
        account: "cash".to_owned(),
        directory,
        process,
    };
    wait_for_parent()?;
    for entry in 0..ENTRIES {
        ledger.post(entry, Instant::now()).await?;
        println!("posted");
    }
    lock_runtime::shutdown().await;
    Ok(())
}

/// Waits for the parent's word, so that all processes begin at once. From then on this process
/// ends with its parent, however that one ends: the pipe between them is closed then.
fn wait_for_parent() -> Result<()> {
    println!("ready");
    io::stdin().read_exact(&mut [0])?;
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    Ok(())
}

// The parent.

async fn compare() -> Result<()> {
    let mut stop = Stop::new()?;
    let processes = PROCESSES.len();
    println!("{processes} processes post {ENTRIES} entries each into one ledger.\n");

    println!("Without a lock between the processes, since none has registered a provider:");
    let ledger = run_round("unlocked", &mut stop).await?;
    let kept = ledger.distinct();
    println!(
        "  {kept} of {ALL} entries are there; {} are lost\n",
        ALL - kept
    );

    println!("With `lock_runtime::register(FileProvider::new(…))?` in each process:");
    let ledger = run_round("locked", &mut stop).await?;
    let kept = ledger.distinct();
    println!(
        "  {kept} of {ALL} entries are there; {} are lost",
        ALL - kept
    );
    println!("  mean wait for the lock: {:.1?}", ledger.mean_wait());
    ledger.print_hand_overs();
    if kept != ALL || ledger.0.len() != ALL {
        return Err("the ledger should hold each entry once".into());
    }
    Ok(())
}

async fn run_round(locked: &str, stop: &mut Stop) -> Result<Entries> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("cash.ledger");
    tokio::fs::write(&file, "").await?;
    let mut children = Vec::new();
    for process in PROCESSES {
        children.push(start(directory.path(), process, locked)?);
    }
    let followed = tokio::select! {
        followed = follow(&mut children) => followed,
        () = stop.told() => Err("interrupted".into()),
    };
    // Those that still run must be gone before their directory is.
    for child in &mut children {
        let _ = child.kill().await;
    }
    followed?;
    Entries::parse(&tokio::fs::read_to_string(&file).await?)
}

fn start(directory: &Path, process: &str, locked: &str) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .arg(directory)
        .args([process, locked])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

/// Lets them begin, and shows their progress until they have ended.
async fn follow(children: &mut [Child]) -> Result<()> {
    let mut reports = Vec::new();
    for child in children.iter_mut() {
        let output = child.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(output).lines();
        lines.next_line().await?;
        reports.push(lines);
    }
    let mut words = Vec::new();
    for child in children.iter_mut() {
        let mut word = child.stdin.take().ok_or("no input")?;
        word.write_all(b"\n").await?;
        // Kept open until they have ended.
        words.push(word);
    }
    let (posted, mut postings) = mpsc::unbounded_channel();
    for mut lines in reports {
        let posted = posted.clone();
        tokio::spawn(async move {
            while let Ok(Some(_)) = lines.next_line().await {
                let _ = posted.send(());
            }
        });
    }
    drop(posted);
    let mut progress = Progress::new();
    while postings.recv().await.is_some() {
        progress.advance();
    }
    progress.finish();
    for child in children {
        let status = child.wait().await?;
        if !status.success() {
            return Err(format!("a process failed: {status}").into());
        }
    }
    Ok(())
}

/// Ctrl-C, or a polite `kill`.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

// What is printed.

/// A bar that grows on a terminal; elsewhere a line at each quarter.
struct Progress {
    done: usize,
    began: Instant,
    redraws: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            done: 0,
            began: Instant::now(),
            redraws: io::stdout().is_terminal(),
        }
    }

    fn advance(&mut self) {
        self.done += 1;
        if self.redraws && self.done.is_multiple_of(10) {
            let bar = "#".repeat(self.done * 40 / ALL);
            print!("\r  [{bar:<40}] {:>4} of {ALL} posted", self.done);
            let _ = io::stdout().flush();
        } else if !self.redraws && self.done.is_multiple_of(ALL / 4) && self.done < ALL {
            println!("  {:>4} of {ALL} posted", self.done);
        }
    }

    fn finish(self) {
        if self.redraws {
            // Erases the bar.
            print!("\r\x1b[K");
        }
        let took = self.began.elapsed();
        println!("  {:>4} of {ALL} posted in {took:.1?}", self.done);
    }
}

/// The ledger's entries, in its order: process, number, wait.
struct Entries(Vec<(char, usize, Duration)>);

impl Entries {
    fn parse(ledger: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for line in ledger.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let [process, number, waited] = fields[..] else {
                return Err(format!("a strange entry: `{line}`").into());
            };
            let waited = Duration::from_micros(waited.parse()?);
            entries.push((process.parse()?, number.parse()?, waited));
        }
        Ok(Self(entries))
    }

    fn distinct(&self) -> usize {
        let entries = self.0.iter().map(|(process, number, _)| (process, number));
        entries.collect::<HashSet<_>>().len()
    }

    fn mean_wait(&self) -> Duration {
        let waits: Duration = self.0.iter().map(|(_, _, waited)| *waited).sum();
        waits / u32::try_from(self.0.len().max(1)).unwrap_or(u32::MAX)
    }

    fn print_hand_overs(&self) {
        let runs: Vec<_> = self.0.chunk_by(|one, next| one.0 == next.0).collect();
        println!(
            "  the lock went from one process to another {} times (A3 is three in a row by A):",
            runs.len().saturating_sub(1)
        );
        let mut line = String::new();
        for run in runs {
            let mut shown = run[0].0.to_string();
            if run.len() > 1 {
                let _ = write!(shown, "{}", run.len());
            }
            if line.len() + shown.len() > 72 {
                println!("    {line}");
                line.clear();
            }
            line.push_str(&shown);
        }
        println!("    {line}");
    }
}
