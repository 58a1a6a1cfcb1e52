//! The part of every nemesis that is the same for all servers: seeds, faults of processes and of
//! the network, the report and the judgement.
//!
//! Three variables control it. `LOCK_STORM_SECONDS` says how long it injects faults with each seed.
//! `LOCK_STORM_SEEDS` says how many seeds there are (1), and `LOCK_STORM_SEED` which one is the
//! first (1). A seed repeats the choices, though not the timing.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::child::ChildProcess;
use crate::proxy::{Flow, NetworkFault};
use crate::windows::Seen;
use crate::workers::Workers;
use crate::{FencedRegister, History, Rng};

/// The milliseconds between one fault and the next.
const PAUSE: Range<u64> = 20..250;

fn from_environment(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => default,
    }
}

/// Runs `survive` once for each seed, with the time for which it is to inject faults.
///
/// That time is `seconds`, unless the environment says otherwise. A run may take `around` besides.
pub fn for_each_seed<F>(seconds: u64, around: Duration, survive: impl Fn(u64, Duration) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let length = Duration::from_secs(from_environment("LOCK_STORM_SECONDS", seconds));
    let first = from_environment("LOCK_STORM_SEED", 1);
    for seed in first..first + from_environment("LOCK_STORM_SEEDS", 1) {
        crate::run(length + around, survive(seed, length));
    }
}

/// Prints how many grants, writes and faults there were.
pub fn report(what: impl Display, history: &History, register: &FencedRegister, nemesis: &Nemesis) {
    println!(
        "nemesis {what}: {} grants, {} changes of holder, {} writes, {} stale ones, faults {:?}",
        history.len(),
        history.changes_of_holder(),
        register.accepted(),
        register.refused(),
        nemesis.injected,
    );
}

/// Checks that faults of several kinds were injected while processes contended and made progress.
///
/// # Panics
///
/// If there were not more than so many grants, or too few changes of holder or kinds of fault.
pub fn assert_progress(history: &History, grants: usize, nemesis: &Nemesis) {
    assert!(
        history.len() > grants,
        "{} grants are no progress",
        history.len()
    );
    assert!(history.changes_of_holder() > 5, "nobody contended");
    let injected = &nemesis.injected;
    assert!(injected.len() >= 4, "too few kinds of fault: {injected:?}");
}

/// Prints the same about grants of modes.
pub fn report_modes(what: impl Display, seen: &Seen, register: &FencedRegister, nemesis: &Nemesis) {
    println!(
        "nemesis {what}: {seen:?}, {} reads and writes, {} stale ones, faults {:?}",
        register.accepted(),
        register.refused(),
        nemesis.injected,
    );
}

/// Checks that faults of several kinds were injected while processes read, wrote and took permits.
///
/// # Panics
///
/// If a mode was granted too seldom, nobody shared anything, or there were too few kinds of fault.
pub fn assert_progress_of_modes(seen: &Seen, least: usize, nemesis: &Nemesis) {
    let of = |mode| seen.grants.get(mode).copied().unwrap_or(0);
    for mode in ["read", "write", "1/3"] {
        assert!(of(mode) > least, "{seen:?} are no progress");
    }
    assert!(seen.most_readers > 1 && seen.most_permits > 1, "{seen:?}");
    assert!(seen.changes_of_holder > 5, "nobody contended: {seen:?}");
    let injected = &nemesis.injected;
    assert!(injected.len() >= 4, "too few kinds of fault: {injected:?}");
}

/// Checks that no two grants overlapped and that no holder was refused a write.
///
/// # Panics
///
/// If two did, or one was.
pub fn assert_exclusive(history: &History, refused_to_holders: &[String]) {
    history.check();
    assert!(
        refused_to_holders.is_empty(),
        "holders were refused, so others had written with later tokens: {refused_to_holders:?}"
    );
}

/// Injects faults of the workers and of their connections, and counts all faults.
#[derive(Debug)]
pub struct Nemesis {
    /// Makes the choices, also those about faults of the server.
    pub rng: Rng,
    /// The number of times that each fault was injected.
    injected: BTreeMap<&'static str, u64>,
    /// The faults that end by themselves: when, which one, and whose.
    temporary: Vec<(Instant, Temporary, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Temporary {
    Network,
    Frozen,
}

impl Nemesis {
    /// Makes one that has injected nothing yet.
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            injected: BTreeMap::new(),
            temporary: Vec::new(),
        }
    }

    /// Waits until the next fault is due, ends those whose time is over, and chooses a worker.
    pub async fn next_target(&mut self, workers: &mut Workers) -> usize {
        tokio::time::sleep(self.rng.millis(PAUSE)).await;
        self.pass(workers, Instant::now());
        self.rng.below(workers.running.len())
    }

    /// Chooses a way in which bytes fail to arrive, or arrive late.
    pub fn any_flow(&mut self) -> Flow {
        let delay = self.rng.millis(5..400);
        self.rng.one_of(&[
            Flow::Delay(delay),
            Flow::Delay(delay / 10),
            Flow::Swallow,
            Flow::Hold,
            Flow::Cut,
        ])
    }

    /// Makes one direction of a worker's connections, or both, fail for so many milliseconds.
    pub fn network(&mut self, workers: &mut Workers, place: usize, flow: Flow, span: Range<u64>) {
        let change: fn(&mut NetworkFault, Flow) = self.rng.one_of(&[
            (|fault, flow| fault.to_server = flow) as fn(&mut NetworkFault, Flow),
            |fault, flow| fault.to_client = flow,
            |fault, flow| {
                fault.to_server = flow;
                fault.to_client = flow;
            },
        ]);
        let refuse = self.rng.within(0..4) == 0;
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
        self.later(span, Temporary::Network, place);
    }

    /// Resets the connections of a worker.
    pub fn reset(&mut self, workers: &mut Workers, place: usize) {
        workers.running[place].proxy.reset();
        self.count("connections reset", 1);
    }

    /// Stops a worker for so many milliseconds, unless it is stopped already.
    pub fn freeze(&mut self, workers: &mut Workers, place: usize, span: Range<u64>) {
        let frozen = |&(_, what, whom): &_| what == Temporary::Frozen && whom == place;
        if self.temporary.iter().any(frozen) {
            return;
        }
        workers.running[place].probe.freeze();
        self.count("processes frozen", 1);
        self.later(span, Temporary::Frozen, place);
    }

    /// Kills a worker, and starts another one in its place.
    pub async fn kill(&mut self, workers: &mut Workers, place: usize) {
        self.temporary.retain(|&(_, _, whom)| whom != place);
        workers.replace(place).await;
        self.count("processes killed", 1);
    }

    /// Stops the server for so many milliseconds; no other fault is injected meanwhile.
    pub async fn freeze_server(&mut self, server: &ChildProcess, span: Range<u64>) {
        server.freeze();
        tokio::time::sleep(self.rng.millis(span)).await;
        server.thaw();
        self.count("server frozen", 1);
    }

    /// Ends every fault that has not ended yet.
    pub fn clear(&mut self, workers: &mut Workers) {
        let latest = self.temporary.iter().map(|&(at, ..)| at).max();
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

    /// Counts a fault that was injected so many times.
    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.injected.entry(what).or_default() += times;
    }

    fn pass(&mut self, workers: &mut Workers, now: Instant) {
        self.temporary.retain(|&(at, what, place)| {
            let over = at <= now;
            if over {
                match what {
                    Temporary::Network => workers.running[place].proxy.heal(),
                    Temporary::Frozen => workers.running[place].probe.thaw(),
                }
            }
            !over
        });
    }

    fn later(&mut self, span: Range<u64>, what: Temporary, place: usize) {
        let at = Instant::now() + self.rng.millis(span);
        self.temporary.push((at, what, place));
    }
}
