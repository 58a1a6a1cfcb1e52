//! The kinds of work, the contenders in each, and what this project demands of itself.

use std::time::Duration;

use crate::bench::{Bench, PROCESSES, TASKS, TASKS_EACH};
use crate::locks::{Kind, Way};
use crate::table::{Row, Target};

const POLLING: [Kind; 3] = [Kind::Rslock, Kind::AsyncRedisLock, Kind::DistributedLock];

/// Some use of locks. The first contender is what the others are compared with.
pub(crate) struct Work {
    pub(crate) title: String,
    measure: fn(&mut Bench, Way) -> f64,
    contenders: Vec<(Way, Row)>,
    /// Whether a contender that polls works with the pause that suits it best.
    at_best: bool,
}

pub(crate) fn all() -> Vec<Work> {
    vec![
        Work::new("one after another, sections/s", Bench::alone)
            .with(Kind::Raw.usual())
            .with_ours(Target::RatioAtLeast(0.85))
            .with_polling(&POLLING),
        Work::new(
            format!("{TASKS} tasks, a name each, sections/s"),
            Bench::apart,
        )
        .with(Kind::RawScripts.usual())
        .with_ours(Target::RatioAtLeast(0.8))
        .with_polling(&POLLING),
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
            .at_best(),
        Work::new(
            format!("{PROCESSES} × {TASKS_EACH} tasks, one name, sections/s"),
            Bench::processes,
        )
        .with_polling(&POLLING[..1])
        .with_ours(Target::RatioAtLeast(10.0))
        .with_polling(&POLLING[1..])
        .at_best(),
        // After that whose requests it counts.
        Work::new("the same, requests/section", Bench::requests)
            .with_polling(&POLLING[..1])
            .named("rslock")
            .with_ours(Target::AtMost(1.0)),
    ]
}

impl Work {
    fn new(title: impl Into<String>, measure: fn(&mut Bench, Way) -> f64) -> Self {
        Self {
            title: title.into(),
            measure,
            contenders: Vec::new(),
            at_best: false,
        }
    }

    fn with(mut self, way: Way) -> Self {
        self.contenders.push((way, Row::new(way.what(), None)));
        self
    }

    fn with_ours(mut self, target: Target) -> Self {
        let way = Kind::Attribute.usual();
        let row = Row::new(way.what(), Some(target));
        self.contenders.push((way, row));
        self.with(Kind::Prepared.usual())
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

    fn at_best(mut self) -> Self {
        self.at_best = true;
        self
    }

    pub(crate) fn find_best_pauses(&mut self, bench: &mut Bench) {
        for (way, row) in &mut self.contenders {
            if self.at_best && POLLING.contains(&way.kind) {
                *way = bench.best(way.kind, self.measure);
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
