//! What storms have in common, whichever server they come over: their seeds, the faults of
//! processes and of the network, and what is told and judged afterwards.
//!
//! `LOCK_STORM_SECONDS` says for how long each storm goes on, `LOCK_STORM_SEEDS` how many there are
//! (1), `LOCK_STORM_SEED` the seed of the first (1). A seed repeats the choices, though not the
//! timing.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::child::ChildProcess;
use crate::proxy::{Fault, Flow};
use crate::workers::Workers;
use crate::{FencedRegister, History, Seeded};

/// Between one fault and the next.
const PAUSE: Range<u64> = 20..250;

fn from_environment(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => default,
    }
}

/// Runs the storm for each seed, with what it is to last: so many seconds, unless the environment
/// says otherwise. It may take `around` besides.
pub fn for_each_seed<F>(seconds: u64, around: Duration, storm: impl Fn(u64, Duration) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let length = Duration::from_secs(from_environment("LOCK_STORM_SECONDS", seconds));
    let first = from_environment("LOCK_STORM_SEED", 1);
    for seed in first..first + from_environment("LOCK_STORM_SEEDS", 1) {
        crate::run(length + around, storm(seed, length));
    }
}

/// Prints what came of a storm.
pub fn tell(storm: impl Display, history: &History, register: &FencedRegister, weather: &Weather) {
    println!(
        "storm {storm}: {} grants, {} changes of holder, {} writes, {} stale ones, faults {:?}",
        history.len(),
        history.changes_of_holder(),
        register.accepted(),
        register.refused(),
        weather.struck,
    );
}

/// That it was a storm, in which processes contended and made progress: more than so many grants.
///
/// # Panics
///
/// If it was not.
pub fn was_one(history: &History, grants: usize, weather: &Weather) {
    assert!(
        history.len() > grants,
        "{} grants are no progress",
        history.len()
    );
    assert!(history.changes_of_holder() > 5, "nobody contended");
    let struck = &weather.struck;
    assert!(struck.len() >= 4, "it was a storm: {struck:?}");
}

/// That nothing overlapped and no holder was refused a write.
///
/// # Panics
///
/// If not.
pub fn broke_nothing(history: &History, refused_to_holders: &[String]) {
    history.check();
    assert!(
        refused_to_holders.is_empty(),
        "holders were refused, so others had written with later tokens: {refused_to_holders:?}"
    );
}

/// Faults of the workers and of their ways to the server.
#[derive(Debug)]
pub struct Weather {
    /// The choices, also of whoever adds faults of the server's.
    pub seeded: Seeded,
    /// How often each fault came.
    struck: BTreeMap<&'static str, u64>,
    /// What passes by itself, when, and whom it concerns.
    passing: Vec<(Instant, Passing, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Passing {
    Network,
    Frozen,
}

impl Weather {
    /// None yet.
    pub fn new(seeded: Seeded) -> Self {
        Self {
            seeded,
            struck: BTreeMap::new(),
            passing: Vec::new(),
        }
    }

    /// Waits until the next fault is due, ends those whose time is over, and says whom it may hit.
    pub async fn gather(&mut self, workers: &mut Workers) -> usize {
        tokio::time::sleep(self.seeded.millis(PAUSE)).await;
        self.pass(workers, Instant::now());
        self.seeded.within(0..workers.running.len() as u64) as usize
    }

    /// Any way in which bytes can fail to arrive, or do so late.
    pub fn any_flow(&mut self) -> Flow {
        let delay = self.seeded.millis(5..400);
        self.seeded.one_of(&[
            Flow::Delay(delay),
            Flow::Delay(delay / 10),
            Flow::Swallow,
            Flow::Hold,
            Flow::Cut,
        ])
    }

    /// One direction fails like this, or both, for so many milliseconds.
    pub fn network(&mut self, workers: &mut Workers, place: usize, flow: Flow, span: Range<u64>) {
        let change: fn(&mut Fault, Flow) = self.seeded.one_of(&[
            (|fault, flow| fault.to_server = flow) as fn(&mut Fault, Flow),
            |fault, flow| fault.to_client = flow,
            |fault, flow| {
                fault.to_server = flow;
                fault.to_client = flow;
            },
        ]);
        let refuse = self.seeded.within(0..4) == 0;
        workers.running[place].proxy.set(|fault| {
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

    /// The connections of a process are reset.
    pub fn reset(&mut self, workers: &mut Workers, place: usize) {
        workers.running[place].proxy.reset();
        self.count("connections reset", 1);
    }

    /// A process stops for so many milliseconds, unless it is stopped already.
    pub fn freeze(&mut self, workers: &mut Workers, place: usize, span: Range<u64>) {
        let frozen = |&(_, what, whom): &_| what == Passing::Frozen && whom == place;
        if self.passing.iter().any(frozen) {
            return;
        }
        workers.running[place].probe.freeze();
        self.count("processes frozen", 1);
        self.later(span, Passing::Frozen, place);
    }

    /// A process is killed, and another one comes in its place.
    pub async fn kill(&mut self, workers: &mut Workers, place: usize) {
        self.passing.retain(|&(_, _, whom)| whom != place);
        workers.replace(place).await;
        self.count("processes killed", 1);
    }

    /// The server stops for so many milliseconds, and everybody waits for it.
    pub async fn freeze_server(&mut self, server: &ChildProcess, span: Range<u64>) {
        server.freeze();
        tokio::time::sleep(self.seeded.millis(span)).await;
        server.thaw();
        self.count("server frozen", 1);
    }

    /// Everything works again.
    pub fn clear(&mut self, workers: &mut Workers) {
        let latest = self.passing.iter().map(|&(at, ..)| at).max();
        if let Some(latest) = latest {
            self.pass(workers, latest);
        }
        let swallowed = workers
            .running
            .iter()
            .map(|worker| worker.proxy.swallowed());
        let swallowed = swallowed.sum();
        self.count("bytes swallowed", swallowed);
    }

    /// A fault came so many times.
    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.struck.entry(what).or_default() += times;
    }

    fn pass(&mut self, workers: &mut Workers, now: Instant) {
        self.passing.retain(|&(at, what, place)| {
            let over = at <= now;
            if over {
                match what {
                    Passing::Network => workers.running[place].proxy.heal(),
                    Passing::Frozen => workers.running[place].probe.thaw(),
                }
            }
            !over
        });
    }

    fn later(&mut self, span: Range<u64>, what: Passing, place: usize) {
        let at = Instant::now() + self.seeded.millis(span);
        self.passing.push((at, what, place));
    }
}
