//! What fails, when, and for how long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lock_tests::crew::Crew;
use lock_tests::proxy::{Fault, Flow};
use lock_tests::{PostgresServer, Seeded};
use rustix::process::{Pid, Signal, kill_process};

/// Between one fault and the next.
const PAUSE: std::ops::Range<u64> = 20..250;

pub(super) struct Weather {
    pub(super) server: PostgresServer,
    /// How often each fault came.
    pub(super) struck: BTreeMap<&'static str, u64>,
    blows: &'static [Blow],
    seeded: Seeded,
    /// What passes by itself, when, and whom it concerns.
    passing: Vec<(Instant, Passing, usize)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Passing {
    Network,
    Frozen,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Blow {
    Network,
    SlowNetwork,
    Reset,
    Cut,
    Freeze,
    Kill,
    Cancel,
    Terminate,
    FreezeServer,
    CrashOneProcess,
    CrashServer,
}

/// Those that hit one process only come more often than those that stop all.
pub(super) const SLOW: [Blow; 12] = [
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::SlowNetwork,
    Blow::Freeze,
    Blow::Freeze,
    Blow::Kill,
    Blow::Cancel,
    Blow::Cancel,
    Blow::FreezeServer,
];

/// Nothing here keeps a holder from hearing that its session has ended.
pub(super) const SUDDEN: [Blow; 14] = [
    Blow::SlowNetwork,
    Blow::SlowNetwork,
    Blow::Reset,
    Blow::Reset,
    Blow::Reset,
    Blow::Cut,
    Blow::Cut,
    Blow::Kill,
    Blow::Cancel,
    Blow::Terminate,
    Blow::Terminate,
    Blow::Terminate,
    Blow::CrashOneProcess,
    Blow::CrashServer,
];

impl Weather {
    pub(super) fn over(server: PostgresServer, blows: &'static [Blow], seeded: Seeded) -> Self {
        Self {
            server,
            struck: BTreeMap::new(),
            blows,
            seeded,
            passing: Vec::new(),
        }
    }

    /// One more fault, and the end of those whose time is over.
    pub(super) async fn strike(&mut self, crew: &mut Crew) {
        tokio::time::sleep(self.seeded.millis(PAUSE)).await;
        self.pass(crew, Instant::now());
        let place = self.seeded.within(0..crew.sailors.len() as u64) as usize;
        match self.seeded.one_of(self.blows) {
            Blow::Network => {
                let delay = self.seeded.millis(5..400);
                let flows = [Flow::Delay(delay), Flow::Swallow, Flow::Hold];
                let flow = self.seeded.one_of(&flows);
                self.network(crew, place, flow, 20..2_500);
            }
            Blow::SlowNetwork => {
                let delay = Flow::Delay(self.seeded.millis(1..30));
                self.network(crew, place, delay, 20..1_000);
            }
            Blow::Cut => self.network(crew, place, Flow::Cut, 5..300),
            Blow::Reset => {
                crew.sailors[place].proxy.reset();
                self.count("connections reset", 1);
            }
            Blow::Freeze => self.freeze(crew, place),
            Blow::Kill => {
                self.passing.retain(|&(_, _, whom)| whom != place);
                crew.replace(place).await;
                self.count("processes killed", 1);
            }
            Blow::FreezeServer => {
                self.server.freeze();
                tokio::time::sleep(self.seeded.millis(50..1_500)).await;
                self.server.thaw();
                self.count("server frozen", 1);
            }
            Blow::Cancel => {
                let cancelled = self.of_locks("count(pg_cancel_backend(pid))");
                self.count("requests cancelled", cancelled);
            }
            Blow::Terminate => {
                let ended = self.of_locks("count(pg_terminate_backend(pid))");
                self.count("sessions ended", ended);
            }
            Blow::CrashOneProcess => {
                let victim = Pid::from_raw(self.of_locks("max(pid)") as i32);
                if victim.is_some_and(|victim| kill_process(victim, Signal::KILL).is_ok()) {
                    self.count("server's processes crashed", 1);
                }
            }
            Blow::CrashServer => {
                tokio::task::block_in_place(|| {
                    self.server.kill();
                    self.server.start_again();
                });
                self.count("server crashed", 1);
            }
        }
    }

    /// Everything works again.
    pub(super) async fn clear(&mut self, crew: &mut Crew) {
        let latest = self.passing.iter().map(|&(at, ..)| at).max();
        if let Some(latest) = latest {
            self.pass(crew, latest);
        }
        let swallowed = crew.sailors.iter().map(|sailor| sailor.proxy.swallowed());
        let swallowed = swallowed.sum();
        self.count("bytes swallowed", swallowed);
        // One that has crashed may still be coming back.
        let start = Instant::now();
        while self.server.psql("postgres", "SELECT 1").is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "it comes back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn pass(&mut self, crew: &mut Crew, now: Instant) {
        self.passing.retain(|&(at, what, place)| {
            let over = at <= now;
            if over {
                match what {
                    Passing::Network => crew.sailors[place].proxy.heal(),
                    Passing::Frozen => crew.sailors[place].probe.thaw(),
                }
            }
            !over
        });
    }

    fn network(&mut self, crew: &mut Crew, place: usize, flow: Flow, span: std::ops::Range<u64>) {
        let change: fn(&mut Fault, Flow) = self.seeded.one_of(&[
            (|fault, flow| fault.to_server = flow) as fn(&mut Fault, Flow),
            |fault, flow| fault.to_client = flow,
            |fault, flow| {
                fault.to_server = flow;
                fault.to_client = flow;
            },
        ]);
        let refuse = self.seeded.within(0..4) == 0;
        crew.sailors[place].proxy.set(|fault| {
            change(fault, flow);
            fault.refuse |= refuse;
        });
        let name = match flow {
            Flow::Delay(_) => "network slow",
            Flow::Swallow => "network swallows",
            Flow::Hold => "network stands still",
            Flow::Cut | Flow::Pass => "network cut",
        };
        self.count(name, 1);
        self.later(span, Passing::Network, place);
    }

    fn freeze(&mut self, crew: &mut Crew, place: usize) {
        let frozen = |&(_, what, whom): &_| what == Passing::Frozen && whom == place;
        if self.passing.iter().any(frozen) {
            return;
        }
        crew.sailors[place].probe.freeze();
        self.count("processes frozen", 1);
        self.later(20..3_000, Passing::Frozen, place);
    }

    /// Of the sessions that hold an advisory lock or wait for one; zero if the server is away.
    fn of_locks(&self, what: &str) -> u64 {
        let sql = format!(
            "SELECT {what} FROM (SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory') AS of"
        );
        let answer = tokio::task::block_in_place(|| self.server.psql("postgres", &sql));
        answer.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn count(&mut self, what: &'static str, times: u64) {
        *self.struck.entry(what).or_default() += times;
    }

    fn later(&mut self, span: std::ops::Range<u64>, what: Passing, place: usize) {
        let at = Instant::now() + self.seeded.millis(span);
        self.passing.push((at, what, place));
    }
}
