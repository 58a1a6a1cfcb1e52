//! Processes that contend for a few locks, each behind a proxy of its own.

use std::path::PathBuf;
use std::time::Duration;

use crate::history::Held;
use crate::{FaultProxy, History, Probe, Seeded};

const SAILORS: usize = 4;
/// One of these is the lease of a process; another one's may be longer or shorter.
pub const LEASES: [Duration; 3] = [
    Duration::from_millis(700),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
];
/// A process starts within this time, and has ended its last attempt by then.
const BOUND: Duration = Duration::from_secs(30);

/// What a crew needs to know.
#[derive(Debug)]
pub struct Orders {
    /// The program `lock-probe`.
    pub program: PathBuf,
    /// The provider's URL, with `PORT` where the port belongs, and `LEASE` where one of [`LEASES`] does.
    pub url: String,
    /// The locks to contend for.
    pub names: Vec<String>,
    /// Where a [`ServedRegister`](crate::ServedRegister) listens.
    pub register_port: u16,
}

/// The processes, until they [`land`](Self::land).
#[derive(Debug)]
pub struct Crew {
    /// Those that contend now.
    pub sailors: Vec<Sailor>,
    orders: Orders,
    seeded: Seeded,
    history: History,
    refused: Vec<String>,
}

/// A process and its way to the server.
#[derive(Debug)]
pub struct Sailor {
    /// What the process takes for the server.
    pub proxy: FaultProxy,
    /// The process.
    pub probe: Probe,
}

impl Crew {
    /// Starts the processes, which contend from now on.
    pub async fn sail(server_port: u16, orders: Orders, seed: u64) -> Self {
        let mut crew = Self {
            sailors: Vec::new(),
            orders,
            seeded: Seeded::new(seed),
            history: History::default(),
            refused: Vec::new(),
        };
        for _ in 0..SAILORS {
            let proxy = FaultProxy::start(server_port).await;
            let probe = crew.start(proxy.port()).await;
            crew.sailors.push(Sailor { proxy, probe });
        }
        crew
    }

    async fn start(&mut self, port: u16) -> Probe {
        let orders = &self.orders;
        let lease = self.seeded.one_of(&LEASES).as_millis();
        let url = orders.url.replace("PORT", &port.to_string());
        let url = url.replace("LEASE", &format!("{lease}ms"));
        let mut probe = Probe::start(&orders.program, &url, &orders.names.join(","));
        let seed = self.seeded.number();
        let contend = format!("contend {} {seed}", orders.register_port);
        probe.ask(&contend, "contending", BOUND).await;
        probe
    }

    /// Kills a process, and starts another one in its place.
    pub async fn replace(&mut self, place: usize) {
        let Sailor { proxy, probe } = &mut self.sailors[place];
        probe.kill();
        let lines = probe.lines_until("done", BOUND).await;
        let (port, killed) = (proxy.port(), probe.id());
        // Without a way to the server no process starts.
        proxy.heal();
        self.log(killed, &lines);
        self.sailors[place].probe = self.start(port).await;
    }

    /// Ends all, and answers what they did and which writes were refused to a holder.
    pub async fn land(mut self) -> (History, Vec<String>) {
        for place in 0..self.sailors.len() {
            self.sailors[place].probe.tell("stop");
        }
        for place in 0..self.sailors.len() {
            let probe = &mut self.sailors[place].probe;
            let lines = probe.lines_until("done", BOUND).await;
            assert!(probe.is_running(), "process {place} ended in the storm");
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
                ["refused", ..] => self.refused.push(line.clone()),
                _ => panic!("a process said: {line}"),
            }
        }
    }
}
