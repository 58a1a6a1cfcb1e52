//! The kinds of work, the contenders in each, and what this project demands of itself.

use std::time::Duration;

use crate::bench::{Bench, MANY_TASKS, PROCESSES, PROCESSES_APART, TASKS, TASKS_APART, TASKS_EACH};
use crate::locks::{Kind, MOST_CONNECTIONS, Way};
use crate::shared::PERMITS;
use crate::sharing::{READERS_EACH, READING};
use crate::table::{Row, Target};

const POLLING: [Kind; 3] = [Kind::Rslock, Kind::AsyncRedisLock, Kind::DistributedLock];

/// Some use of locks. The first contender is what the others are compared with.
pub(crate) struct Work {
    pub(crate) title: String,
    measure: fn(&mut Bench, Way) -> f64,
    contenders: Vec<(Way, Row)>,
    best: Best,
}

/// The settings of which the bench finds the best for each contender.
#[derive(Clone, Copy, PartialEq)]
enum Best {
    /// None: all have their usual ones.
    Usual,
    /// The pauses of those that poll.
    Pause,
    /// The number of connections of rslock.
    Connections,
}

pub(crate) fn all() -> Vec<Work> {
    let apart = format!("{TASKS} tasks, a name each");
    let cost = |what, measure| {
        Work::new(format!("{apart}: {what}"), measure).with(Kind::RawScripts.usual())
    };
    let lone = |what, measure| {
        Work::new(format!("lone among {TASKS}, {what}"), measure)
            .with(Kind::RawScripts.usual())
            .with_ours(None)
    };
    vec![
        Work::new("one after another, sections/s", Bench::alone)
            .with(Kind::Raw.usual())
            .with_ours(Target::RatioAtLeast(0.85))
            .with_ours_in_background(Target::RatioAtLeast(1.4))
            .with_polling(&POLLING),
        Work::new("one after another, 0.5 ms each way", Bench::over_link)
            .with(Kind::Raw.usual())
            .with_ours(Target::RatioAtLeast(0.97))
            .with_ours_in_background(None),
        Work::new("three names at once, sections/s", Bench::alone)
            .with(Kind::Prepared.usual())
            .with_target(Kind::Several.usual(), Some(Target::RatioAtLeast(1.0 / 1.5))),
        Work::new(format!("{apart}, sections/s"), Bench::apart)
            .with(Kind::RawScripts.usual())
            .with_ours(Target::RatioAtLeast(1.0))
            .with_polling(&POLLING),
        // After that in whose course they are noted.
        cost("server's CPU, µs", Bench::servers_cpu).with_ours(Target::RatioAtMost(0.9)),
        cost("client's CPU, µs", Bench::clients_cpu).with_ours(None),
        cost("requests a pair", Bench::requests_apart).with_ours(None),
        cost("bytes sent a pair", Bench::bytes_to_server).with_ours(None),
        cost("bytes received", Bench::bytes_to_client).with_ours(None),
        Work::new(format!("{apart}, beside rslock"), Bench::apart)
            .with(Kind::Rslock.usual())
            .with_ours(Target::RatioAtLeast(1.0))
            .at_best(Best::Connections),
        Work::new(
            format!("{MANY_TASKS} tasks, a name each, sections/s"),
            Bench::many_apart,
        )
        .with(Kind::RawScripts.usual())
        .with_ours(Target::RatioAtLeast(1.1)),
        Work::new(
            format!("{PROCESSES_APART} × {TASKS_APART} tasks, a name each"),
            Bench::processes_apart,
        )
        .with(Kind::RawScripts.usual())
        .with_ours(Target::RatioAtLeast(0.9)),
        lone("p99 to acquire, µs", Bench::lone),
        lone("p99 with release, µs", Bench::lone_with_release),
        Work::new("hand-over between processes, µs", Bench::hand_over)
            .with(Kind::Raw.usual())
            .named("raw PUBLISH")
            .with_ours(Target::RatioAtMost(1.5))
            .with(Kind::Rslock.every(Duration::from_millis(5)))
            .with_polling(&POLLING),
        Work::new(format!("{TASKS} tasks, one name, sections/s"), Bench::tasks)
            .with_polling(&POLLING[..1])
            .with_ours(Target::RatioAtLeast(20.0))
            .with_polling(&POLLING[1..])
            .at_best(Best::Pause),
        Work::new(
            format!("{PROCESSES} × {TASKS_EACH} tasks, one name, sections/s"),
            Bench::processes,
        )
        .with_polling(&POLLING[..1])
        .with_ours(Target::RatioAtLeast(10.0))
        .with_polling(&POLLING[1..])
        .at_best(Best::Pause),
        // After that whose requests it counts.
        Work::new("the same, requests/section", Bench::requests)
            .with_polling(&POLLING[..1])
            .named("rslock")
            .with_ours(Target::AtMost(1.0)),
    ]
    .into_iter()
    .chain(of_readers())
    .chain(of_permits())
    .collect()
}

fn of_readers() -> Vec<Work> {
    let (theirs, ours) = (Kind::DistributedLockRead.usual(), Kind::Read.usual());
    let together = format!("{TASKS} tasks read one name");
    let beside = format!("writer beside {READING} × {READERS_EACH} readers");
    let writer = |what, measure| {
        Work::new(format!("{beside}, {what}"), measure).with(Kind::DistributedLockWrite.usual())
    };
    vec![
        Work::new("reads, one after another, a second", Bench::alone)
            .with(Kind::RawRead.usual())
            .with_target(ours, Some(Target::RatioAtLeast(0.7)))
            .with(theirs),
        Work::new(format!("{together}, 1 ms, reads/s"), Bench::together)
            .with(theirs)
            .with_target(ours, Some(Target::RatioAtLeast(10.0)))
            .with(Kind::TokioRead.usual()),
        // After that in whose course they are noted.
        Work::new(format!("{together}, requests"), Bench::requests_together)
            .with(theirs)
            .with_target(ours, Some(Target::AtMost(0.1))),
        writer("p50 of wait, ms", Bench::writers_wait)
            .with_target(Kind::Write.usual(), Some(Target::AtMost(25.0))),
        writer("longest, ms", Bench::longest_wait)
            .with_target(Kind::Write.usual(), Some(Target::AtMost(60.0))),
        writer("reads/s", Bench::reads_beside).with(Kind::Write.usual()),
        Work::new("hand-over to a writer, µs", Bench::hand_over)
            .with(Kind::Raw.usual())
            .named("raw PUBLISH")
            .with_target(Kind::Write.usual(), Some(Target::RatioAtMost(1.6)))
            .with(Kind::DistributedLockWrite.usual()),
    ]
}

fn of_permits() -> Vec<Work> {
    let crowd = format!("{PROCESSES} × {TASKS_EACH} tasks, {PERMITS} permits");
    let work = |what, measure| {
        Work::new(format!("{crowd}, {what}"), measure).with(Kind::DistributedLockPermit.usual())
    };
    let ours = Kind::Permit.usual();
    vec![
        work("sections/s", Bench::processes).with_target(ours, Some(Target::RatioAtLeast(10.0))),
        // After that whose requests it counts.
        work("requests", Bench::requests).with_target(ours, Some(Target::AtMost(1.0))),
        work("most out", Bench::permits_out)
            .with_target(ours, Some(Target::AtMost(f64::from(PERMITS)))),
    ]
}

impl Best {
    /// Lists the settings to try. Empty where there is nothing to find.
    fn settings(self, way: Way, pauses_in_ms: &[u64]) -> Vec<Way> {
        let every = |pause: &u64| way.kind.every(Duration::from_millis(*pause));
        match self {
            Self::Pause if POLLING.contains(&way.kind) => pauses_in_ms.iter().map(every).collect(),
            Self::Connections if way.kind == Kind::Rslock => {
                let connections = [1, 2, 4, 16, MOST_CONNECTIONS];
                connections.map(|connections| way.over(connections)).into()
            }
            _ => Vec::new(),
        }
    }
}

impl Work {
    fn new(title: impl Into<String>, measure: fn(&mut Bench, Way) -> f64) -> Self {
        Self {
            title: title.into(),
            measure,
            contenders: Vec::new(),
            best: Best::Usual,
        }
    }

    fn with(self, way: Way) -> Self {
        self.with_target(way, None)
    }

    fn with_target(mut self, way: Way, target: Option<Target>) -> Self {
        self.contenders.push((way, Row::new(way.what(), target)));
        self
    }

    fn with_ours(self, target: impl Into<Option<Target>>) -> Self {
        let target = target.into();
        self.with_target(Kind::Attribute.usual(), target)
            .with_target(Kind::Prepared.usual(), target)
    }

    fn with_ours_in_background(self, target: impl Into<Option<Target>>) -> Self {
        let target = target.into();
        self.with_target(Kind::AttributeInBackground.usual(), target)
            .with_target(Kind::PreparedInBackground.usual(), target)
    }

    fn with_polling(self, kinds: &[Kind]) -> Self {
        kinds
            .iter()
            .fold(self, |work, kind| work.with(kind.usual()))
    }

    fn named(mut self, what: &str) -> Self {
        if let Some((_, row)) = self.contenders.last_mut() {
            row.what = what.to_owned();
        }
        self
    }

    fn at_best(mut self, best: Best) -> Self {
        self.best = best;
        self
    }

    pub(crate) fn find_best(&mut self, bench: &mut Bench) {
        for (way, row) in &mut self.contenders {
            let ways = self.best.settings(*way, bench.scale.pauses_in_ms);
            if !ways.is_empty() {
                *way = bench.best(&ways, self.measure);
                row.what = way.what();
            }
        }
    }

    pub(crate) fn measure(&mut self, bench: &mut Bench) {
        for (way, row) in &mut self.contenders {
            row.samples.push((self.measure)(bench, *way));
        }
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.contenders.iter().map(|(_, row)| row)
    }
}
