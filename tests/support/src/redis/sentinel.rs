//! A primary, servers that follow it, and the sentinels that watch over them.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::command::ask;
use super::{PROGRAM, RedisOptions, RedisServer, START_BOUND, answers};
use crate::child::ChildProcess;
use crate::scratch::{Scratch, free_port};
use crate::skip;

/// What the sentinels call the servers.
pub const SERVICE: &str = "orders";

/// The rights that a client needs on a sentinel, as they are documented.
pub const SENTINEL_LEAST_PRIVILEGE: &str = "resetchannels &+switch-master +hello +subscribe \
    +sentinel|get-master-addr-by-name +sentinel|master +sentinel|sentinels +sentinel|myid";

/// Sentinels pass on what they know every two seconds, and ask each other every second. This is
/// sooner. Versions before 7.0 do not know the command and take their time.
const IN_A_HURRY: &str = "SENTINEL DEBUG PUBLISH-PERIOD 100 ASK-PERIOD 100 PING-PERIOD 100 \
    ELECTION-TIMEOUT 2000 TILT-PERIOD 1000";

/// Options for the start of [`WatchedServers`].
#[derive(Debug, Clone)]
pub struct SentinelOptions {
    replicas: usize,
    sentinels: usize,
    down_after: Duration,
    server: RedisOptions,
    config: Vec<String>,
    password: Option<String>,
}

impl Default for SentinelOptions {
    /// A primary, two replicas, and three sentinels that give a server up after a second.
    fn default() -> Self {
        Self {
            replicas: 2,
            sentinels: 3,
            down_after: Duration::from_secs(1),
            server: RedisOptions::default(),
            config: Vec::new(),
            password: None,
        }
    }
}

impl SentinelOptions {
    /// Sets how many replicas and sentinels there are.
    #[must_use]
    pub fn with(mut self, replicas: usize, sentinels: usize) -> Self {
        (self.replicas, self.sentinels) = (replicas, sentinels);
        self
    }

    /// Sets how the primary and the replicas are started.
    #[must_use]
    pub fn servers(mut self, options: RedisOptions) -> Self {
        self.server = options;
        self
    }

    /// Adds a line to the configuration of each sentinel.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }

    /// Names the password of the sentinels' default user, which a line of [`config`](Self::config)
    /// has set.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Starts all, and waits until each sentinel knows all. `None` where none is installed.
    pub fn start(self) -> Option<WatchedServers> {
        let primary = self.server.clone().config("repl-diskless-sync-delay 0");
        let mut servers = vec![primary.clone().start()?];
        for _ in 0..self.replicas {
            let follow = format!("replicaof 127.0.0.1 {}", servers[0].port());
            servers.push(primary.clone().config(&follow).start()?);
        }
        let followed = format!("connected_slaves:{}", self.replicas);
        until("the replicas follow", || {
            let info = servers[0].ask("INFO replication").concat();
            info.contains(&followed) && info.matches("state=online").count() == self.replicas
        });
        let port = servers[0].port();
        let sentinels = (0..self.sentinels).map(|_| SentinelServer::start(&self, port));
        let watched = WatchedServers {
            sentinels: sentinels.collect::<Option<_>>()?,
            servers,
        };
        let known = (self.replicas.to_string(), (self.sentinels - 1).to_string());
        until("the sentinels know each other", || {
            watched.sentinels.iter().all(|sentinel| {
                let told = |field| sentinel.tells(field);
                (told("num-slaves"), told("num-other-sentinels")) == known
                    && told("flags") == "master"
            })
        });
        Some(watched)
    }

    fn configuration(&self, sentinel: &SentinelServer, primary: u16) -> String {
        let quorum = self.sentinels / 2 + 1;
        let mut text = format!(
            "bind 127.0.0.1\nport {}\ndir {}\ndaemonize no\n\
             sentinel monitor {SERVICE} 127.0.0.1 {primary} {quorum}\n\
             sentinel down-after-milliseconds {SERVICE} {}\n\
             sentinel failover-timeout {SERVICE} 3000\n\
             sentinel parallel-syncs {SERVICE} {}\n",
            sentinel.port,
            sentinel.scratch.path().display(),
            self.down_after.as_millis(),
            self.replicas.max(1),
        );
        for line in &self.config {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + 2 * START_BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Servers and their sentinels, which end with this. The first server is the primary at first.
#[derive(Debug)]
pub struct WatchedServers {
    /// The sentinels.
    pub sentinels: Vec<SentinelServer>,
    /// The servers that they watch over.
    pub servers: Vec<RedisServer>,
}

impl WatchedServers {
    /// Returns one primary without replicas and one sentinel, for all tests that run at this time
    /// and do them no harm. `None` where none is installed.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<WatchedServers>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(servers) = shared.upgrade() {
            return Some(servers);
        }
        let servers = Arc::new(SentinelOptions::default().with(0, 1).start()?);
        *shared = Arc::downgrade(&servers);
        Some(servers)
    }

    /// Returns the addresses of the sentinels, separated by commas.
    pub fn hosts(&self) -> String {
        let ports = self.sentinels.iter().map(SentinelServer::port);
        let hosts: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        hosts.join(",")
    }

    /// Returns the URL without credentials, and with one parameter.
    pub fn url(&self) -> String {
        format!("redis-sentinel://{}/0?service={SERVICE}", self.hosts())
    }
}

/// One sentinel.
#[derive(Debug)]
pub struct SentinelServer {
    process: Option<ChildProcess>,
    program: PathBuf,
    port: u16,
    scratch: Scratch,
    password: Option<String>,
}

impl SentinelServer {
    fn start(options: &SentinelOptions, primary: u16) -> Option<Self> {
        let program = skip::find_server("redis", PROGRAM, &["redis-server", "valkey-server"])?;
        for _ in 0..5 {
            let mut sentinel = Self {
                process: None,
                program: program.clone(),
                port: free_port(),
                scratch: Scratch::new(),
                password: options.password.clone(),
            };
            let configuration = options.configuration(&sentinel, primary);
            std::fs::write(sentinel.configuration(), configuration).expect("it is writable");
            if sentinel.run() {
                return Some(sentinel);
            }
        }
        panic!("the sentinel did not start in five attempts");
    }

    fn configuration(&self) -> PathBuf {
        self.scratch.join("sentinel.conf")
    }

    fn run(&mut self) -> bool {
        let mut command = Command::new(&self.program);
        command
            .arg(self.configuration())
            .arg("--sentinel")
            .current_dir(self.scratch.path());
        let process = ChildProcess::spawn(command, &self.scratch.join("sentinel.log"));
        let mut process = process.expect("the program can be started");
        let deadline = Instant::now() + START_BOUND;
        while !answers(self.port) {
            if process.exit_status().is_some() || Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
        self.ask(IN_A_HURRY);
        true
    }

    /// Returns the port on which it listens on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its URL, with the password of its default user.
    pub fn url(&self) -> String {
        let password = self.password.as_ref();
        let password = password.map(|it| format!(":{it}@")).unwrap_or_default();
        format!("redis://{password}127.0.0.1:{}", self.port)
    }

    /// Returns the running process.
    ///
    /// # Panics
    ///
    /// If it was [killed](Self::kill).
    pub fn process(&self) -> &ChildProcess {
        self.process.as_ref().expect("the sentinel was killed")
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again after it was killed. It remembers what it knew.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start_again(&mut self) {
        assert!(self.run(), "the sentinel starts again");
    }

    /// Sends a command, and returns the texts in its answer.
    pub fn ask(&self, command: &str) -> Vec<String> {
        ask(self.port, self.password.as_deref(), command).unwrap_or_default()
    }

    /// Returns a field of what it tells about the primary, or nothing.
    pub fn tells(&self, field: &str) -> String {
        let answer = self.ask(&format!("SENTINEL MASTER {SERVICE}"));
        let mut fields = answer.chunks_exact(2);
        let found = fields.find(|pair| pair[0] == field);
        found.map(|pair| pair[1].clone()).unwrap_or_default()
    }

    /// Returns the port of the server that is the primary, as it says.
    pub fn primary(&self) -> u16 {
        let command = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}");
        let port = self.ask(&command).pop();
        port.and_then(|port| port.parse().ok()).unwrap_or(0)
    }
}
