//! The processes that contend, each behind a proxy of its own.

use std::path::Path;
use std::time::Duration;

use lock_tests::history::Held;
use lock_tests::{FaultProxy, History, Probe, Seeded};

use super::{LEASES, Locks};

const SAILORS: usize = 4;
/// A process starts within this time, and has ended its last attempt by then.
const BOUND: Duration = Duration::from_secs(30);

pub(super) struct Crew {
    pub(super) sailors: Vec<Sailor>,
    register_port: u16,
    locks: Locks,
    seeded: Seeded,
    history: History,
    refused: Vec<String>,
}

pub(super) struct Sailor {
    pub(super) proxy: FaultProxy,
    pub(super) probe: Probe,
}

impl Crew {
    pub(super) async fn sail(
        server_port: u16,
        register_port: u16,
        locks: Locks,
        seeded: Seeded,
    ) -> Self {
        let mut crew = Self {
            sailors: Vec::new(),
            register_port,
            locks,
            seeded,
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
        let lease = self.seeded.one_of(&LEASES).as_millis();
        let Locks { prefix, names } = self.locks;
        let url = format!("redis://127.0.0.1:{port}?key_prefix={prefix}&lease={lease}ms");
        let program = Path::new(env!("CARGO_BIN_EXE_lock-probe"));
        let mut probe = Probe::start(program, &url, &names.join(","));
        let seed = self.seeded.number();
        let contend = format!("contend {} {seed}", self.register_port);
        probe.ask(&contend, "contending", BOUND).await;
        probe
    }

    /// Kills a process, and starts another one in its place.
    pub(super) async fn replace(&mut self, place: usize) {
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
    pub(super) async fn land(mut self) -> (History, Vec<String>) {
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
