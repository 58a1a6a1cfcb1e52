//! A model of calls that take several locks: three parties, each of which wants two of three names,
//! written in an order in which they would wait in a circle. It walks through every interleaving of
//! their steps, with and without timeouts.

use std::collections::HashSet;

const PARTIES: usize = 3;
const NAMES: usize = 3;
/// What each party wants, as it is written.
const WANTED: [[usize; 2]; PARTIES] = [[0, 1], [1, 2], [2, 0]];
const ROUNDS: u8 = 2;

/// What a party does otherwise than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// It takes the names in the order in which they are written.
    WrittenOrder,
    /// It takes places in the queues of all names at once.
    EarlyPlaces,
    /// It takes what is free behind a name that is not.
    TakesBehindHeld,
    /// A call that gives up keeps what it holds.
    KeepsLocks,
    /// A call that gives up keeps its place.
    KeepsPlace,
    /// The body begins with the first lock.
    BeginsEarly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    /// It takes what is free, or stands in a queue.
    Takes,
    /// Its body runs.
    Runs,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    step: [Step; PARTIES],
    rounds: [u8; PARTIES],
    holder: [Option<usize>; NAMES],
    queue: [Vec<usize>; NAMES],
}

impl State {
    fn new() -> Self {
        Self {
            step: [Step::Idle; PARTIES],
            rounds: [ROUNDS; PARTIES],
            holder: [None; NAMES],
            queue: Default::default(),
        }
    }

    fn has(&self, party: usize, name: usize) -> bool {
        self.holder[name] == Some(party)
    }

    fn is_queued(&self, party: usize) -> bool {
        self.queue.iter().any(|queue| queue.contains(&party))
    }

    fn is_free(&self, name: usize) -> bool {
        self.holder[name].is_none() && self.queue[name].is_empty()
    }

    /// Gives a name back: to the first in its queue, if there is one.
    fn release(&mut self, name: usize) {
        self.holder[name] = match self.queue[name].is_empty() {
            true => None,
            false => Some(self.queue[name].remove(0)),
        };
    }

    fn release_all(&mut self, party: usize, order: &[usize]) {
        for name in order.iter().rev() {
            if self.has(party, *name) {
                self.release(*name);
            }
        }
    }
}

/// Walks through everything that can happen. Returns what is wrong, if anything is.
fn walk(mistake: Mistake, timeouts: bool) -> Option<String> {
    let (mut seen, mut open) = (HashSet::new(), vec![State::new()]);
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        for (party, wanted) in WANTED.iter().enumerate() {
            let runs = state.step[party] == Step::Runs;
            if runs && !wanted.iter().all(|name| state.has(party, *name)) {
                return Some(format!("{party} runs without all: {state:?}"));
            }
        }
        let next = successors(&state, mistake, timeouts);
        if next.is_empty() {
            let done = state.step == [Step::Idle; PARTIES] && state.rounds == [0; PARTIES];
            if !done {
                return Some(format!("stuck: {state:?}"));
            }
            if !(0..NAMES).all(|name| state.is_free(name)) {
                return Some(format!("something is left: {state:?}"));
            }
        }
        open.extend(next);
    }
    assert!(seen.len() > 100, "there is something to walk through");
    None
}

fn successors(state: &State, mistake: Mistake, timeouts: bool) -> Vec<State> {
    let mut next = Vec::new();
    for (party, mut order) in WANTED.into_iter().enumerate() {
        if mistake != Mistake::WrittenOrder {
            order.sort_unstable();
        }
        let mut after = state.clone();
        match state.step[party] {
            Step::Idle if state.rounds[party] > 0 => {
                after.rounds[party] -= 1;
                after.step[party] = Step::Takes;
                next.push(after);
            }
            Step::Idle => {}
            Step::Runs => {
                after.release_all(party, &order);
                after.step[party] = Step::Idle;
                next.push(after);
            }
            Step::Takes => {
                if timeouts {
                    let mut gone = state.clone();
                    if mistake != Mistake::KeepsPlace {
                        for queue in &mut gone.queue {
                            queue.retain(|other| *other != party);
                        }
                    }
                    if mistake != Mistake::KeepsLocks {
                        gone.release_all(party, &order);
                    }
                    gone.step[party] = Step::Idle;
                    next.push(gone);
                }
                let missing = order.into_iter().filter(|name| !state.has(party, *name));
                let missing: Vec<_> = missing.collect();
                let enough = mistake == Mistake::BeginsEarly && missing.len() < order.len();
                if missing.is_empty() || enough {
                    after.step[party] = Step::Runs;
                    next.push(after);
                } else if !state.is_queued(party) {
                    next.push(taken(after, party, &missing, mistake));
                }
            }
        }
    }
    next
}

/// Takes what is free in one step, and a place in the queue of the first name that is not.
fn taken(mut state: State, party: usize, missing: &[usize], mistake: Mistake) -> State {
    let mut waits = false;
    for name in missing {
        if state.is_free(*name) && (!waits || mistake == Mistake::TakesBehindHeld) {
            state.holder[*name] = Some(party);
        } else if !waits || mistake == Mistake::EarlyPlaces {
            state.queue[*name].push(party);
            waits = true;
        }
    }
    state
}

#[test]
fn calls_of_several_locks_end_and_leave_nothing() {
    for timeouts in [false, true] {
        assert_eq!(walk(Mistake::None, timeouts), None);
    }
}

#[test]
fn planted_mistakes_are_found() {
    for (mistake, timeouts, expected) in [
        (Mistake::WrittenOrder, false, "stuck"),
        (Mistake::EarlyPlaces, false, "stuck"),
        (Mistake::TakesBehindHeld, false, "stuck"),
        (Mistake::KeepsLocks, true, "left"),
        (Mistake::KeepsPlace, true, "left"),
        (Mistake::BeginsEarly, false, "runs without all"),
    ] {
        let found = walk(mistake, timeouts).unwrap_or_else(|| panic!("{mistake:?} is not found"));
        assert!(found.contains(expected), "{mistake:?}: {found}");
    }
}
