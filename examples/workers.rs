//! Several processes, one background job: each tick is done by exactly one of them, also when the
//! one that is at it is killed.
//!
//! Every replica of a service comes at every tick. Whoever gets the lock first does the tick and
//! records it; those that come in afterwards find it done. In the middle the replica that holds
//! the lock is killed with `SIGKILL`, and so can release nothing: the lock goes to another one as
//! soon as its lease ends on the server.
//!
//! It needs a Redis or Valkey server, 6.2 or newer: that of `REDIS_URL`, by default the one on this
//! machine. It ends by itself, non-zero without a server or if anything is not as it says.
//!
//! ```text
//! cargo run --example workers -- --replicas 3
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, pipe};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lock_runtime::{FencingToken, RedisProvider, distributed_lock};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const LOCAL: &str = "redis://127.0.0.1:6379";
const REPLICAS: usize = 3;
const TICKS: usize = 8;
const PERIOD: Duration = Duration::from_millis(500);
/// The tick whose worker is killed while it is at it.
const FATAL_TICK: usize = 4;
/// How long a killed holder keeps the lock at most. A live one renews it every third of it.
const LEASE: Duration = Duration::from_secs(2);
/// What a busy machine may add.
const DELAY: Duration = Duration::from_millis(1_500);

// A replica.

struct Replica {
    number: usize,
    /// Keeps two runs of this example from waiting for each other.
    run: String,
    /// Stands for a table in the database: a line for each tick that was done.
    record: PathBuf,
}

impl Replica {
    /// The background job. A replica that waits here is woken when the lock is handed to it.
    #[distributed_lock(name = "job:{self.run}", timeout = "30s", guard = guard)]
    async fn do_tick(&self, tick: usize) -> Result<()> {
        let token = guard.fencing_token().map_or(0, FencingToken::get);
        let record = tokio::fs::read_to_string(&self.record).await?;
        if record.lines().any(|line| line == format!("tick {tick}")) {
            self.say("found", tick, token);
            return Ok(());
        }
        self.say("began", tick, token);
        // The work takes its time.
        sleep(Duration::from_millis(300)).await;
        tokio::fs::write(&self.record, format!("{record}tick {tick}\n")).await?;
        self.say("did", tick, token);
        Ok(())
    }

    fn say(&self, what: &str, tick: usize, token: u64) {
        println!("{what} {} {tick} {token}", self.number);
    }

    async fn work(&self, began: SystemTime) -> Result<()> {
        for tick in 1..=TICKS {
            let due = began + PERIOD * tick as u32;
            sleep(due.duration_since(SystemTime::now()).unwrap_or_default()).await;
            self.do_tick(tick).await?;
        }
        Ok(())
    }
}

async fn be_replica(number: &str, run: &str, record: &str, began: &str) -> Result<()> {
    // Ends with its parent, however that one ends: the pipe between them is closed then.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    lock_runtime::register(connect().await?)?;
    let replica = Replica {
        number: number.parse()?,
        run: run.to_owned(),
        record: record.into(),
    };
    let began = UNIX_EPOCH + Duration::from_millis(began.parse()?);
    replica.work(began).await?;
    // Releases what is still held, so that the next start need not wait.
    lock_runtime::shutdown().await;
    Ok(())
}

async fn connect() -> Result<RedisProvider> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| LOCAL.to_owned());
    let settings = RedisProvider::builder(url).key_prefix("lock-runtime-example:");
    // The error says why, and never the password.
    let provider = settings.lease(LEASE).connect().await.map_err(|error| {
        format!(
            "{error}\nThis example needs a Redis server: start one, or name yours in REDIS_URL."
        )
    })?;
    Ok(provider)
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [] => watch(REPLICAS).await,
        ["--replicas", number] => match number.parse() {
            Ok(replicas @ 2..=20) => watch(replicas).await,
            _ => Err(format!("expected 2 to 20 replicas, got `{number}`").into()),
        },
        ["replica", number, run, record, began] => be_replica(number, run, record, began).await,
        _ => Err("expected no arguments, or `--replicas 3`".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

// The parent: starts the replicas, kills one, and checks what they say.

/// What a replica says of a tick.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    Began,
    Did,
    Found,
}

struct Report {
    replica: usize,
    said: Said,
    tick: usize,
    token: u64,
}

async fn watch(replicas: usize) -> Result<()> {
    // Rather one message than as many as there are replicas.
    drop(connect().await?);
    let directory = tempfile::tempdir()?;
    let record = directory.path().join("ticks");
    tokio::fs::write(&record, "").await?;

    println!("{replicas} processes, a tick every {PERIOD:?}, a lease of {LEASE:?}\n");
    let run = std::process::id().to_string();
    let began = (SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis()).to_string();
    // One for all, so that what they say is read in the order in which they say it.
    let (said, output) = pipe()?;
    let mut children = Vec::new();
    for replica in 0..replicas {
        let number = replica.to_string();
        let arguments = [&*number, &run, &record.to_string_lossy(), &began];
        children.push(start(&arguments, output.try_clone()?)?);
    }
    drop(output);
    let (send, reports) = unbounded_channel();
    std::thread::spawn(move || follow(said, &send));
    let mut watcher = Watcher {
        began: Instant::now(),
        children,
        reports,
        ticks: [Tick::default(); TICKS],
        last_token: 0,
        killed: None,
    };
    let limit = PERIOD * TICKS as u32 + LEASE + Duration::from_secs(30);
    timeout(limit, watcher.watch_all())
        .await
        .map_err(|_| format!("not done after {limit:?}"))??;
    watcher.check(&record).await
}

fn start(arguments: &[&str], output: PipeWriter) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .arg("replica")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(output)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

/// Passes on what the replicas say, until the last of them ends.
fn follow(said: PipeReader, send: &UnboundedSender<Report>) {
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        let Some(report) = Report::read(&line) else {
            continue;
        };
        if send.send(report).is_err() {
            break;
        }
    }
}

impl Report {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let said = match words.next()? {
            "began" => Said::Began,
            "did" => Said::Did,
            "found" => Said::Found,
            _ => return None,
        };
        Some(Self {
            said,
            replica: words.next()?.parse().ok()?,
            tick: words.next()?.parse().ok()?,
            token: words.next()?.parse().ok()?,
        })
    }
}

struct Watcher {
    began: Instant,
    children: Vec<Child>,
    reports: UnboundedReceiver<Report>,
    ticks: [Tick; TICKS],
    last_token: u64,
    /// Which replica, and when.
    killed: Option<(usize, Instant)>,
}

/// What is known of a tick.
#[derive(Default, Clone, Copy)]
struct Tick {
    done: bool,
    found: usize,
}

impl Watcher {
    async fn watch_all(&mut self) -> Result<()> {
        while let Some(report) = self.reports.recv().await {
            self.take(&report).await?;
        }
        for (replica, child) in self.children.iter_mut().enumerate() {
            let status = child.wait().await?;
            let killed = self.killed.is_some_and(|(killed, _)| killed == replica);
            if status.success() == killed {
                return Err(format!("replica {} ended with {status}", replica + 1).into());
            }
        }
        Ok(())
    }

    async fn take(&mut self, report: &Report) -> Result<()> {
        if self
            .killed
            .is_some_and(|(killed, _)| killed == report.replica)
        {
            return Err("a killed replica should say nothing".into());
        }
        if report.said != Said::Did {
            if report.token <= self.last_token {
                return Err("a later grant should have a larger token".into());
            }
            self.last_token = report.token;
        }
        let others = self.alive() - 1;
        let number = report.tick;
        let Some(tick) = self.ticks.get_mut(number.wrapping_sub(1)) else {
            return Err(format!("there is no tick {number}").into());
        };
        match (report.said, tick.done) {
            (Said::Began, false) => return self.began(report).await,
            (Said::Did, false) => tick.done = true,
            (Said::Found, true) => tick.found += 1,
            (said, _) => return Err(format!("tick {number}: {said:?} at the wrong time").into()),
        }
        if tick.found == others {
            self.say(&format!("tick {number}: done; all others found it so"));
        }
        Ok(())
    }

    async fn began(&mut self, report: &Report) -> Result<()> {
        let (replica, tick, token) = (report.replica + 1, report.tick, report.token);
        self.say(&format!(
            "tick {tick}: replica {replica} is at it (fencing token {token})"
        ));
        if tick != FATAL_TICK {
            return Ok(());
        }
        let Some((_, at)) = self.killed else {
            self.children[report.replica].kill().await?;
            self.killed = Some((report.replica, Instant::now()));
            self.say(&format!(
                "        replica {replica} is KILLED while it holds the lock"
            ));
            return Ok(());
        };
        let took = at.elapsed();
        self.say(&format!(
            "        that is {took:.2?} after the kill; the lease is {LEASE:?}"
        ));
        if took > LEASE + DELAY {
            return Err("another one should go on within a lease".into());
        }
        Ok(())
    }

    fn alive(&self) -> usize {
        self.children.len() - usize::from(self.killed.is_some())
    }

    fn say(&self, what: &str) {
        println!("{:>6.2} s  {what}", self.began.elapsed().as_secs_f64());
    }

    async fn check(&self, record: &Path) -> Result<()> {
        let record = tokio::fs::read_to_string(record).await?;
        let expected: String = (1..=TICKS).map(|tick| format!("tick {tick}\n")).collect();
        println!("\nThe record holds {} ticks.", record.lines().count());
        if record != expected || !self.ticks.iter().all(|tick| tick.done) {
            return Err("the record should hold each tick once, in order".into());
        }
        if self.killed.is_none() {
            return Err("one replica should have been killed".into());
        }
        Ok(())
    }
}
