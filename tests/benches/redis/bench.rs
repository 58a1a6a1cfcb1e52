//! Measures each kind of work.

use std::collections::BTreeMap;
use std::iter::{once, repeat_n};
use std::time::{Duration, Instant};

use lock_tests::{Rng, boot_nanos};
use tokio::runtime::Runtime;

use crate::Scale;
use crate::child::Process;
use crate::locks::{Clients, Kind, Way};
use crate::process::CHANNEL;
use crate::raw::Raw;
use crate::table::{Row, Target, median};
use crate::usage::{Crowd, Hold, Repeat};

/// The tasks of one process.
pub(crate) const TASKS: u64 = 64;
/// The processes that compete, and the tasks of each.
pub(crate) const PROCESSES: usize = 8;
pub(crate) const TASKS_EACH: u64 = 8;

/// The time for which the lock is held before a hand-over. A round trip after a while of quiet
/// costs several times what it costs in a row.
const QUIET: Duration = Duration::from_millis(5);
/// The number of hand-overs of a contender that polls, which takes its time.
const HAND_OVERS_OF_POLLING: u64 = 12;

pub(crate) struct Bench {
    pub(crate) scale: Scale,
    runtime: Runtime,
    clients: Clients,
    processes: Vec<Process>,
    last_number: u64,
    /// The requests that were counted when the processes competed last.
    requests: BTreeMap<Kind, f64>,
    rng: Rng,
}

impl Bench {
    pub(crate) fn start(runtime: Runtime, url: &str, scale: Scale) -> Self {
        let start = |_| Process::start(url);
        let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
        processes[0].tell(&[&"subscribe"]);
        processes[0].answer();
        Self {
            scale,
            runtime,
            clients: Clients::new(url.to_owned()),
            processes,
            last_number: 0,
            requests: BTreeMap::new(),
            rng: Rng::new(boot_nanos()),
        }
    }

    /// Finds the pause between two attempts with which this kind does most.
    pub(crate) fn best(&mut self, kind: Kind, measure: fn(&mut Self, Way) -> f64) -> Way {
        let mut best = (0.0, kind.usual());
        for pause in self.scale.pauses_in_ms {
            let way = kind.every(Duration::from_millis(*pause));
            let rate = measure(self, way);
            if rate > best.0 {
                best = (rate, way);
            }
        }
        best.1
    }

    /// Measures one task with one lock that nobody else wants.
    pub(crate) fn alone(&mut self, way: Way) -> f64 {
        self.repeat(way, 1, self.scale.operations)
    }

    /// Measures many tasks that do not compete.
    pub(crate) fn apart(&mut self, way: Way) -> f64 {
        self.repeat(way, TASKS, self.scale.operations / 16)
    }

    fn repeat(&mut self, way: Way, tasks: u64, operations: u64) -> f64 {
        let numbers = self.numbers(tasks);
        let repeat = self.clients.with_locks(way, numbers.clone(), Repeat(1));
        // Connects, and lets the server learn the scripts.
        self.runtime.block_on(repeat);
        let repeat = self.clients.with_locks(way, numbers, Repeat(operations));
        let took = self.runtime.block_on(repeat);
        (tasks * operations) as f64 / took.as_secs_f64()
    }

    /// Measures many tasks that compete.
    pub(crate) fn tasks(&mut self, way: Way) -> f64 {
        let (mut sections, mut took) = (0, Duration::ZERO);
        while took < self.scale.window {
            let numbers = repeat_n(self.numbers(1).start, TASKS as usize);
            let crowd = Crowd(self.scale.sections);
            took += self
                .runtime
                .block_on(self.clients.with_locks(way, numbers, crowd));
            sections += TASKS * self.scale.sections;
        }
        sections as f64 / took.as_secs_f64()
    }

    /// Measures many processes that compete.
    pub(crate) fn processes(&mut self, way: Way) -> f64 {
        // Connects.
        self.crowd(way, 1);
        let before = self.sent(way.kind);
        let (mut sections, mut took) = (0, Duration::ZERO);
        while took < self.scale.window {
            took += self.crowd(way, self.scale.sections);
            sections += PROCESSES as u64 * TASKS_EACH * self.scale.sections;
        }
        let requests = self.sent(way.kind) - before;
        self.requests.insert(way.kind, requests / sections as f64);
        sections as f64 / took.as_secs_f64()
    }

    /// Returns the requests that were counted in the course of that.
    pub(crate) fn requests(&mut self, way: Way) -> f64 {
        if !self.requests.contains_key(&way.kind) {
            self.processes(way);
        }
        self.requests.remove(&way.kind).unwrap_or(f64::NAN)
    }

    fn crowd(&mut self, way: Way, sections: u64) -> Duration {
        let number = self.numbers(1).start;
        let (kind, retry) = (way.kind.name(), way.retry.as_millis());
        let began = Instant::now();
        for process in &mut self.processes {
            process.tell(&[&"crowd", &kind, &retry, &number, &TASKS_EACH, &sections]);
        }
        for process in &mut self.processes {
            process.answer();
        }
        began.elapsed()
    }

    /// Counts the requests that clients of this kind have sent. The server counts commands, whether
    /// a client sent them or a script called them; but no script calls those that are counted here.
    fn sent(&mut self, kind: Kind) -> f64 {
        let clients = &self.clients;
        let info = self.runtime.block_on(async {
            let mut raw = clients.raw().await.clone();
            raw.info("commandstats").await
        });
        let calls = |command: &str| {
            let prefix = format!("cmdstat_{command}:calls=");
            let rest = info.lines().find_map(|line| line.strip_prefix(&prefix))?;
            rest.split(',').next()?.parse::<f64>().ok()
        };
        kind.commands()
            .iter()
            .filter_map(|command| calls(command))
            .sum()
    }

    /// Measures the median time from the beginning of a release to the moment when a waiter in
    /// another process holds the lock. For the raw commands, it is the time from a publication to
    /// its arrival.
    pub(crate) fn hand_over(&mut self, way: Way) -> f64 {
        let polls = !way.retry.is_zero();
        let count = if polls {
            self.scale.hand_overs.min(HAND_OVERS_OF_POLLING)
        } else {
            self.scale.hand_overs
        };
        let raw = self.runtime.block_on(self.clients.raw()).clone();
        let mut times = Vec::new();
        for at in 0..=count {
            // Any moment of a pause is as likely as any other.
            let quiet = self.rng.within(0..(way.retry.as_nanos() as u64).max(1));
            let quiet = QUIET + Duration::from_nanos(quiet);
            let (from, until) = match way.kind {
                Kind::Raw => self.publish(raw.clone(), quiet),
                _ => self.hand_lock_over(way, quiet),
            };
            // The first one connects.
            if at > 0 {
                times.push((until - from as f64) / 1e3);
            }
        }
        median(times.into_iter())
    }

    fn hand_lock_over(&mut self, way: Way, quiet: Duration) -> (u64, f64) {
        let number = self.numbers(1).start;
        let (kind, retry) = (way.kind.name(), way.retry.as_millis());
        let process = &mut self.processes[0];
        let section = async {
            process.tell(&[&"hold", &kind, &retry, &number]);
            tokio::time::sleep(quiet).await;
        };
        let held = self.clients.with_locks(way, once(number), Hold(section));
        let (_, from) = self.runtime.block_on(held);
        (from, process.answer()[0])
    }

    fn publish(&mut self, mut raw: Raw, quiet: Duration) -> (u64, f64) {
        let process = &mut self.processes[0];
        process.tell(&[&"hear"]);
        let from = self.runtime.block_on(async {
            tokio::time::sleep(quiet).await;
            let from = boot_nanos();
            raw.publish(CHANNEL, "a message as long as a grant: 0123456789abcdef")
                .await;
            from
        });
        (from, process.answer()[0])
    }

    /// Measures many leases that are held, each kind in a new process; ours is the first, alone.
    pub(crate) fn leases(&mut self) -> Vec<(&'static str, Vec<Row>)> {
        // They would be idle, but not quite.
        self.processes.clear();
        let mut costs = Vec::new();
        let kinds: [&[Kind]; 2] = [
            &[Kind::Prepared],
            &[Kind::AsyncRedisLock, Kind::DistributedLock],
        ];
        for kinds in kinds {
            let (count, lease) = (self.scale.leases, self.scale.lease.as_millis());
            let mut processes = Vec::new();
            for kind in kinds {
                let mut process = Process::start(&self.clients.url);
                process.tell(&[&"leases", &kind.name(), &count, &lease]);
                processes.push((kind, process));
            }
            for (kind, mut process) in processes {
                costs.push((kind.name(), process.answer()));
            }
        }
        let figures = [
            ("leases lost", 0.0),
            ("leases, % of one core", 5.0),
            ("leases, bytes of memory each", 2_048.0),
        ];
        let rows = |at: usize, most: f64| {
            let row = |(kind, cost): &(&str, Vec<f64>)| {
                let ours = *kind == Kind::Prepared.name();
                let mut row = Row::new(*kind, ours.then_some(Target::AtMost(most)));
                row.samples.push(cost[at]);
                row
            };
            costs.iter().map(row).collect()
        };
        let figures = figures.into_iter().enumerate();
        figures
            .map(|(at, (title, most))| (title, rows(at, most)))
            .collect()
    }

    /// Returns numbers of names that were not used before.
    fn numbers(&mut self, count: u64) -> std::ops::Range<u64> {
        let first = self.last_number + 1;
        self.last_number += count;
        first..first + count
    }
}
