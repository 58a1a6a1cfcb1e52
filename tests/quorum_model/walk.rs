//! Walks through all states that a model can come to.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A state of a model.
pub(crate) trait State: Clone + Hash {
    type Step: Debug;

    /// Returns the states that may come next, each with the step that leads there.
    fn next(&self) -> Vec<(Self::Step, Self)>;

    /// Returns the promise that is broken in this state. `ends` says that no step leads out of it.
    fn broken(&self, ends: bool) -> Option<String>;

    /// Makes one of all states that differ in nothing that matters.
    fn plain(self) -> Self;
}

/// No walk here is longer.
const MOST_STATES: usize = 3_000_000;

/// What a walk has found.
pub(crate) struct Found {
    pub(crate) states: usize,
    /// The promise that was broken first, and the steps that led there.
    pub(crate) broken: Option<(String, Vec<String>)>,
}

impl Found {
    /// Fails if a promise was broken.
    pub(crate) fn expect_kept(&self, what: &str) {
        if let Some((broken, steps)) = &self.broken {
            panic!("{what}: {broken}\n  {}", steps.join("\n  "));
        }
        println!("{what}: kept in {} states", self.states);
    }

    /// Fails unless a promise of which these words are a part was broken.
    pub(crate) fn expect_broken(&self, what: &str, words: &str) {
        let Some((broken, steps)) = &self.broken else {
            panic!("{what}: not found in {} states", self.states);
        };
        assert!(broken.contains(words), "{what}: {broken}");
        let count = steps.len();
        println!(
            "{what}: {broken} after {count} steps\n  {}",
            steps.join("\n  ")
        );
    }
}

/// Walks breadth first. It keeps 64 bits of each state that it has seen: among millions, two states
/// hardly ever share them, and then a part of the walk is left out, the same part every time.
pub(crate) fn walk<S: State>(start: S) -> Found {
    let hash = |state: &S| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        hasher.finish()
    };
    let mut seen: HashSet<u64, BuildHasherDefault<Kept>> = HashSet::default();
    seen.insert(hash(&start));
    // How each state was come to: from which one, and by which step.
    let mut came: Vec<(usize, Option<S::Step>)> = vec![(0, None)];
    let mut level = vec![(0, start)];
    while !level.is_empty() {
        let mut ahead = Vec::new();
        for (number, state) in level {
            let next = state.next();
            if let Some(broken) = state.broken(next.is_empty()) {
                let mut steps = Vec::new();
                let mut at = number;
                while let (from, Some(step)) = &came[at] {
                    steps.push(format!("{step:?}"));
                    at = *from;
                }
                steps.reverse();
                return Found {
                    states: seen.len(),
                    broken: Some((broken, steps)),
                };
            }
            assert!(seen.len() < MOST_STATES, "the model has become too large");
            for (step, next) in next {
                let next = next.plain();
                if seen.insert(hash(&next)) {
                    came.push((number, Some(step)));
                    ahead.push((came.len() - 1, next));
                }
            }
        }
        level = ahead;
    }
    Found {
        states: seen.len(),
        broken: None,
    }
}

/// A hasher of what is a hash already.
#[derive(Default)]
struct Kept(u64);

impl Hasher for Kept {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("it is given numbers alone");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
