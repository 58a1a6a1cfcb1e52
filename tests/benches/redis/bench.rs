//! Measures each kind of work.

use std::collections::BTreeMap;
use std::iter::{once, repeat_n};
use std::time::{Duration, Instant};

use lock_tests::{RedisServer, Rng, boot_nanos};
use tokio::runtime::Runtime;

use crate::Scale;
use crate::child::Process;
use crate::leases::processor_time;
use crate::locks::{Clients, Kind, Way};
use crate::process::CHANNEL;
use crate::raw::Raw;
use crate::table::{Row, Target, median};
use crate::usage::{Crowd, Hold, Lone, Repeat};

/// The tasks of one process.
pub(crate) const TASKS: u64 = 64;
/// The tasks of one process that are more than go into one call.
pub(crate) const MANY_TASKS: u64 = 256;
/// The processes that do not compete, and the tasks of each.
pub(crate) const PROCESSES_APART: usize = 4;
pub(crate) const TASKS_APART: u64 = 16;
/// The processes that compete, and the tasks of each.
pub(crate) const PROCESSES: usize = 8;
pub(crate) const TASKS_EACH: u64 = 8;

/// The quiet before a hand-over. A round trip after a while of quiet costs several times what it
/// costs in a row.
const QUIET: Duration = Duration::from_millis(4);
/// The time that the other process has before that, to begin to wait.
const BEGIN: Duration = Duration::from_millis(1);
/// What the link delays a piece in each direction.
const LINK: Duration = Duration::from_micros(500);
/// The number of hand-overs of a contender that polls, which takes its time.
const HAND_OVERS_OF_POLLING: u64 = 4;

pub(crate) struct Bench {
    pub(crate) scale: Scale,
    pub(crate) runtime: Runtime,
    pub(crate) clients: Clients,
    pub(crate) processes: Vec<Process>,
    /// The process that delays, and the clients on its other side.
    link: Option<(Process, Clients)>,
    last_number: u64,
    /// What was noted while something else was measured last.
    pub(crate) noted: BTreeMap<(Note, Way), f64>,
    rng: Rng,
}

/// What is noted while something else is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Note {
    ServersCpu,
    ClientsCpu,
    RequestsApart,
    BytesToServer,
    BytesToClient,
    RequestsOfProcesses,
    AcquireAndRelease,
    RequestsTogether,
    LongestWait,
    ReadsBeside,
}

/// What the server and this process have used so far.
struct Used {
    servers_cpu: f64,
    clients_cpu: f64,
    requests: f64,
    to_server: f64,
    to_client: f64,
}

impl Bench {
    pub(crate) fn start(runtime: Runtime, server: &RedisServer, scale: Scale) -> Self {
        let url = server.url();
        let start = |_| Process::start(&url);
        let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
        processes[0].tell(&[&"subscribe"]);
        processes[0].answer();
        let mut link = Process::start(&url);
        link.tell(&[&"link", &server.port(), &LINK.as_micros()]);
        let behind = Clients::new(format!("redis://127.0.0.1:{}", link.answer()[0]));
        Self {
            scale,
            runtime,
            clients: Clients::new(url),
            processes,
            link: Some((link, behind)),
            last_number: 0,
            noted: BTreeMap::new(),
            rng: Rng::new(boot_nanos()),
        }
    }

    /// Finds the settings with which a contender does most.
    pub(crate) fn best(&mut self, ways: &[Way], measure: fn(&mut Self, Way) -> f64) -> Way {
        let mut best = (0.0, ways[0]);
        for way in ways {
            let rate = measure(self, *way);
            if rate > best.0 {
                best = (rate, *way);
            }
        }
        best.1
    }

    /// Measures one task with one lock that nobody else wants.
    pub(crate) fn alone(&mut self, way: Way) -> f64 {
        self.repeat(way, 1, self.scale.operations)
    }

    /// Measures the same over a link that is long.
    pub(crate) fn over_link(&mut self, way: Way) -> f64 {
        let number = self.numbers(1);
        let Some((_, clients)) = &self.link else {
            return f64::NAN;
        };
        let operations = self.scale.operations_over_link;
        repeat(&self.runtime, clients, way, number, operations)
    }

    /// Measures many tasks that do not compete, and notes what that costs.
    pub(crate) fn apart(&mut self, way: Way) -> f64 {
        let operations = self.scale.operations / 8;
        // Connects before.
        self.repeat(way, TASKS, 1);
        let before = self.used(way.kind);
        let rate = self.repeat(way, TASKS, operations);
        let after = self.used(way.kind);
        // Each task does one more, which connects where that is necessary.
        let pairs = (TASKS * (operations + 1)) as f64;
        for (note, before, after) in [
            (Note::ServersCpu, before.servers_cpu, after.servers_cpu),
            (Note::ClientsCpu, before.clients_cpu, after.clients_cpu),
            (Note::RequestsApart, before.requests, after.requests),
            (Note::BytesToServer, before.to_server, after.to_server),
            (Note::BytesToClient, before.to_client, after.to_client),
        ] {
            self.noted.insert((note, way), (after - before) / pairs);
        }
        rate
    }

    /// Measures still more tasks that do not compete.
    pub(crate) fn many_apart(&mut self, way: Way) -> f64 {
        self.repeat(way, MANY_TASKS, self.scale.operations / 32)
    }

    fn repeat(&mut self, way: Way, tasks: u64, operations: u64) -> f64 {
        let numbers = self.numbers(tasks);
        repeat(&self.runtime, &self.clients, way, numbers, operations)
    }

    /// Measures many processes that do not compete.
    pub(crate) fn processes_apart(&mut self, way: Way) -> f64 {
        // Connects, and lets the server learn the scripts.
        self.repeat_in_processes(way, 1);
        let operations = self.scale.operations / 8;
        let took = self.repeat_in_processes(way, operations);
        let pairs = PROCESSES_APART as u64 * TASKS_APART * operations;
        pairs as f64 / took.as_secs_f64()
    }

    fn repeat_in_processes(&mut self, way: Way, operations: u64) -> Duration {
        let numbers = self.numbers(PROCESSES_APART as u64 * TASKS_APART);
        let firsts = numbers.step_by(TASKS_APART as usize);
        let (kind, retry) = (way.kind.name(), way.retry.as_millis());
        let processes = &mut self.processes[..PROCESSES_APART];
        let began = Instant::now();
        for (process, first) in processes.iter_mut().zip(firsts) {
            let tasks = TASKS_APART;
            process.tell(&[&"repeat", &kind, &retry, &first, &tasks, &operations]);
        }
        for process in processes {
            process.answer();
        }
        began.elapsed()
    }

    pub(crate) fn servers_cpu(&mut self, way: Way) -> f64 {
        self.note(Note::ServersCpu, way, Self::apart)
    }

    pub(crate) fn clients_cpu(&mut self, way: Way) -> f64 {
        self.note(Note::ClientsCpu, way, Self::apart)
    }

    pub(crate) fn requests_apart(&mut self, way: Way) -> f64 {
        self.note(Note::RequestsApart, way, Self::apart)
    }

    pub(crate) fn bytes_to_server(&mut self, way: Way) -> f64 {
        self.note(Note::BytesToServer, way, Self::apart)
    }

    pub(crate) fn bytes_to_client(&mut self, way: Way) -> f64 {
        self.note(Note::BytesToClient, way, Self::apart)
    }

    /// Returns what was noted in the course of that.
    pub(crate) fn note(&mut self, note: Note, way: Way, measure: fn(&mut Self, Way) -> f64) -> f64 {
        if !self.noted.contains_key(&(note, way)) {
            measure(self, way);
        }
        self.noted.remove(&(note, way)).unwrap_or(f64::NAN)
    }

    /// Measures one task that takes its lock now and then while the others keep the connection
    /// busy: the time that the slowest hundredth takes at least, to acquire it.
    pub(crate) fn lone(&mut self, way: Way) -> f64 {
        let numbers = self.numbers(TASKS + 1);
        let lone = Lone(self.scale.lone);
        let times = self.clients.with_locks(way, numbers, lone);
        let times = self.runtime.block_on(times);
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let both = times.iter().map(|(_, both)| micros(*both));
        let note = (Note::AcquireAndRelease, way);
        self.noted.insert(note, percentile(99, both));
        percentile(99, times.iter().map(|(acquiring, _)| micros(*acquiring)))
    }

    /// Returns the same time to acquire and release it.
    pub(crate) fn lone_with_release(&mut self, way: Way) -> f64 {
        self.note(Note::AcquireAndRelease, way, Self::lone)
    }

    /// Measures many tasks that compete.
    pub(crate) fn tasks(&mut self, way: Way) -> f64 {
        let (mut sections, mut took) = (0, Duration::ZERO);
        while took < self.scale.window {
            let numbers = repeat_n(self.numbers(1).start, TASKS as usize);
            let crowd = Crowd {
                sections: self.scale.sections,
                at_once: way.kind.at_once(),
                hold: Duration::ZERO,
            };
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
        let note = (Note::RequestsOfProcesses, way);
        self.noted.insert(note, requests / sections as f64);
        sections as f64 / took.as_secs_f64()
    }

    pub(crate) fn requests(&mut self, way: Way) -> f64 {
        self.note(Note::RequestsOfProcesses, way, Self::processes)
    }

    fn crowd(&mut self, way: Way, sections: u64) -> Duration {
        let number = self.numbers(1).start;
        self.crowd_on(way, number, sections)
    }

    pub(crate) fn crowd_on(&mut self, way: Way, number: u64, sections: u64) -> Duration {
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
    pub(crate) fn sent(&mut self, kind: Kind) -> f64 {
        let info = self.info("commandstats");
        let calls = |command: &str| {
            let rest = field(&info, &format!("cmdstat_{command}:calls="))?;
            rest.split(',').next()?.parse::<f64>().ok()
        };
        kind.commands()
            .iter()
            .filter_map(|command| calls(command))
            .sum()
    }

    fn used(&mut self, kind: Kind) -> Used {
        let requests = self.sent(kind);
        let stats = self.info("stats");
        let cpu = self.info("cpu");
        let number = |info: &str, name: &str| {
            let number = field(info, name).and_then(|rest| rest.parse::<f64>().ok());
            number.expect("the server counts it")
        };
        Used {
            servers_cpu: (number(&cpu, "used_cpu_user:") + number(&cpu, "used_cpu_sys:")) * 1e6,
            clients_cpu: processor_time().as_secs_f64() * 1e6,
            requests,
            to_server: number(&stats, "total_net_input_bytes:"),
            to_client: number(&stats, "total_net_output_bytes:"),
        }
    }

    fn info(&mut self, section: &str) -> String {
        self.runtime.block_on(async {
            let mut raw = self.clients.raw().await.clone();
            raw.info(section).await
        })
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
            let quiet = BEGIN + QUIET + Duration::from_nanos(quiet);
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
        self.link = None;
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
    pub(crate) fn numbers(&mut self, count: u64) -> std::ops::Range<u64> {
        let first = self.last_number + 1;
        self.last_number += count;
        first..first + count
    }
}

/// Measures tasks with a lock each that nobody else wants.
fn repeat(
    runtime: &Runtime,
    clients: &Clients,
    way: Way,
    numbers: std::ops::Range<u64>,
    operations: u64,
) -> f64 {
    let tasks = numbers.end - numbers.start;
    // Connects, and lets the server learn the scripts.
    runtime.block_on(clients.with_locks(way, numbers.clone(), Repeat(1)));
    let took = runtime.block_on(clients.with_locks(way, numbers, Repeat(operations)));
    (tasks * operations) as f64 / took.as_secs_f64()
}

/// Returns what comes after this in its line of the server's information.
fn field<'a>(info: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = info.lines().find_map(|line| line.strip_prefix(prefix));
    rest.map(str::trim_end)
}

/// Returns the sample that so many per cent of them do not exceed.
fn percentile(per_cent: usize, samples: impl Iterator<Item = f64>) -> f64 {
    let mut samples: Vec<_> = samples.collect();
    samples.sort_by(f64::total_cmp);
    let at = (samples.len() * per_cent).div_ceil(100).max(1) - 1;
    samples.get(at).copied().unwrap_or(f64::NAN)
}
