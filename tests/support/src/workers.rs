//! Processes that contend for a few locks, each behind a proxy of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::history::Held;
use crate::{FaultProxy, History, Probe, Rng, Window, Windows};

const WORKERS: usize = 4;
/// The leases of the processes. One of these is the lease of a process; another one's may be longer
/// or shorter.
pub const LEASES: [Duration; 3] = [
    Duration::from_millis(700),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
];
/// The time within which a process starts, and has ended its last attempt after it was told to.
const BOUND: Duration = Duration::from_secs(30);

/// The locks that the workers contend for, and where.
#[derive(Debug)]
pub struct Plan {
    /// The program `lock-probe`.
    pub program: PathBuf,
    /// The provider's URL, with `PORT` where the port belongs. It may have `LEASE` where one of
    /// [`LEASES`] belongs.
    pub url: String,
    /// The locks to contend for.
    pub names: Vec<String>,
    /// The port of a [`RegisterServer`](crate::RegisterServer).
    pub register_port: u16,
    /// What the processes do: `contend` or `contend-modes`.
    pub command: &'static str,
}

/// The processes, until they [`finish`](Self::finish).
#[derive(Debug)]
pub struct Workers {
    /// The processes that contend now.
    pub running: Vec<Worker>,
    plan: Plan,
    rng: Rng,
    history: History,
    /// The grants of modes, which are there when the processes have ended.
    pub windows: Arc<Windows>,
    refused: Vec<String>,
}

/// A process and its connection to the server.
#[derive(Debug)]
pub struct Worker {
    /// The proxy that the process takes for the server.
    pub proxy: FaultProxy,
    /// The process.
    pub probe: Probe,
}

impl Workers {
    /// Starts the processes, which contend from now on.
    pub async fn spawn(server_port: u16, plan: Plan, seed: u64) -> Self {
        let mut workers = Self {
            running: Vec::new(),
            plan,
            rng: Rng::new(seed),
            history: History::default(),
            windows: Arc::default(),
            refused: Vec::new(),
        };
        for _ in 0..WORKERS {
            let proxy = FaultProxy::start(server_port).await;
            let probe = workers.start(proxy.port()).await;
            workers.running.push(Worker { proxy, probe });
        }
        workers
    }

    async fn start(&mut self, port: u16) -> Probe {
        let plan = &self.plan;
        let lease = self.rng.one_of(&LEASES).as_millis();
        let url = plan.url.replace("PORT", &port.to_string());
        let url = url.replace("LEASE", &format!("{lease}ms"));
        let mut probe = Probe::start(&plan.program, &url, &plan.names.join(","));
        let seed = self.rng.number();
        let contend = format!("{} {} {seed}", plan.command, plan.register_port);
        probe.ask(&contend, "contending", BOUND).await;
        probe
    }

    /// Kills a process, and starts another one in its place.
    pub async fn replace(&mut self, place: usize) {
        let Worker { proxy, probe } = &mut self.running[place];
        probe.kill();
        let lines = probe.lines_until("done", BOUND).await;
        let (port, killed) = (proxy.port(), probe.id());
        // Without a way to the server no process starts.
        proxy.heal();
        self.log(killed, &lines);
        self.running[place].probe = self.start(port).await;
    }

    /// Ends all of them. Returns what they did, and which writes were refused to a holder.
    pub async fn finish(mut self) -> (History, Vec<String>) {
        for place in 0..self.running.len() {
            self.running[place].probe.tell("stop");
        }
        for place in 0..self.running.len() {
            let probe = &mut self.running[place].probe;
            let lines = probe.lines_until("done", BOUND).await;
            assert!(
                probe.is_running(),
                "process {place} ended while it contended"
            );
            let id = probe.id();
            self.log(id, &lines);
        }
        (self.history, self.refused)
    }

    fn log(&mut self, process: u32, lines: &[String]) {
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let number = |at: usize| words[at].parse().expect("a number");
            match words[..] {
                ["grant", name, ..] => self.history.record(Held {
                    name: name.to_owned(),
                    holder: process.to_string(),
                    from: number(2),
                    until: number(3),
                    token: Some(number(4)),
                }),
                ["window", ..] => {
                    self.windows
                        .record(Window::parse(&process.to_string(), line));
                }
                ["refused", ..] => self.refused.push(line.clone()),
                _ => panic!("a process said: {line}"),
            }
        }
    }
}
