//! A model of waiting: two processes, three names, and two places in the server's queues. It walks
//! through every interleaving of their steps, with sessions that are killed and notices that are
//! lost. ARCHITECTURE.md says what each party does, in "Waiting on PostgreSQL".
//!
//! Nobody polls in the model. A waiter that only a poll would serve is found as stuck, unless a
//! session was killed or a notice lost, where polls are what helps.

use std::collections::{HashSet, VecDeque};

const PROCESSES: usize = 2;
const NAMES: usize = 3;
const PLACES: usize = 1;
/// The number of times that each process wants each name.
const ROUNDS: [u8; NAMES] = [2, 1, 1];

/// The step of a process on its way to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// It does not want the lock, or not any more.
    Idle,
    /// It has not tried yet, or goes back to the start after a session of its own ended.
    Wants,
    /// It was refused, and looks for a place.
    Refused,
    /// It stands in the server's queue.
    Queued,
    /// It listens, but is not seen yet.
    Listens,
    /// It was refused, and is not seen yet; only a planted mistake leads here.
    Tried,
    /// It is seen, and tries next.
    TriesSeen,
    /// It is seen, and hears.
    Hears,
    Holds,
    /// It holds, and has looked for waiters; only a planted mistake leads here.
    Looked {
        seen: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    step: [[Step; NAMES]; PROCESSES],
    rounds: [[u8; NAMES]; PROCESSES],
    /// The notices that are on their way.
    notices: [[bool; NAMES]; PROCESSES],
    /// The waiters in the server's queue, in the order of their arrival.
    queues: [Vec<usize>; NAMES],
    /// The number of sessions that may still be killed, and notices that may still be lost.
    faults: u8,
    /// Whether a poll alone may be what serves somebody.
    faulty: [bool; NAMES],
}

/// The mistake that is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// Waiters try before they are seen, and not after it.
    TriesBeforeItIsSeen,
    /// A process that releases looks for waiters before the lock is free.
    LooksBeforeItUnlocks,
    /// A process that releases tells nobody.
    TellsNobody,
    /// A process that releases, and wants the lock again, tries at once.
    TriesAtOnce,
}

impl State {
    fn new(faults: u8) -> Self {
        Self {
            step: [[Step::Wants; NAMES]; PROCESSES],
            rounds: [ROUNDS; PROCESSES],
            notices: [[false; NAMES]; PROCESSES],
            queues: Default::default(),
            faults,
            faulty: [false; NAMES],
        }
    }

    fn holder(&self, name: usize) -> Option<usize> {
        let holds = |process: &usize| {
            matches!(self.step[*process][name], Step::Holds | Step::Looked { .. })
        };
        let mut holders = (0..PROCESSES).filter(holds);
        let holder = holders.next();
        assert!(holders.next().is_none(), "two hold {name}: {self:?}");
        holder
    }

    /// Tells whether another process is seen to wait for a notice.
    fn is_watched(&self, name: usize, but: usize) -> bool {
        let is_seen =
            |process: usize| matches!(self.step[process][name], Step::TriesSeen | Step::Hears);
        (0..PROCESSES).any(|process| process != but && is_seen(process))
    }

    fn in_queues(&self, process: usize) -> usize {
        let steps = self.step[process].iter();
        steps.filter(|step| **step == Step::Queued).count()
    }

    /// Frees the lock: the server gives it to the first in its queue.
    fn free(&mut self, name: usize) {
        if !self.queues[name].is_empty() {
            let next = self.queues[name].remove(0);
            self.step[next][name] = Step::Holds;
        }
    }

    fn tell(&mut self, name: usize, but: usize) {
        for process in (0..PROCESSES).filter(|process| *process != but) {
            if matches!(
                self.step[process][name],
                Step::Listens | Step::Tried | Step::TriesSeen | Step::Hears
            ) {
                self.notices[process][name] = true;
            }
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    /// Returns the states that may come next.
    fn next(&self, mistake: Mistake) -> Vec<Self> {
        let mut all = Vec::new();
        for process in 0..PROCESSES {
            for name in 0..NAMES {
                self.steps(mistake, process, name, &mut all);
                if self.faults > 0 {
                    self.fail(process, name, &mut all);
                }
            }
        }
        all
    }

    fn steps(&self, mistake: Mistake, process: usize, name: usize, all: &mut Vec<Self>) {
        let is_free = self.holder(name).is_none();
        let go = |step: Step| self.with(|next| next.step[process][name] = step);
        match self.step[process][name] {
            Step::Idle => {}
            Step::Wants if is_free => all.push(go(Step::Holds)),
            Step::Wants => all.push(go(Step::Refused)),
            Step::Refused => {
                let watched = self.is_watched(name, process);
                if !watched && self.in_queues(process) < PLACES {
                    all.push(self.with(|next| {
                        next.step[process][name] = Step::Queued;
                        next.queues[name].push(process);
                        if is_free {
                            next.free(name);
                        }
                    }));
                } else {
                    all.push(go(Step::Listens));
                }
            }
            Step::Queued => {}
            Step::Listens if mistake == Mistake::TriesBeforeItIsSeen => match is_free {
                true => all.push(go(Step::Holds)),
                false => all.push(go(Step::Tried)),
            },
            Step::Tried => all.push(go(Step::Hears)),
            Step::Listens => all.push(go(Step::TriesSeen)),
            Step::TriesSeen if is_free => all.push(go(Step::Holds)),
            Step::TriesSeen => all.push(go(Step::Hears)),
            Step::Hears => {
                if self.notices[process][name] {
                    all.push(self.with(|next| {
                        next.notices[process][name] = false;
                        next.step[process][name] = match is_free {
                            true => Step::Holds,
                            false => Step::Hears,
                        };
                    }));
                }
            }
            Step::Holds if mistake == Mistake::LooksBeforeItUnlocks => {
                let seen = self.is_watched(name, process);
                all.push(go(Step::Looked { seen }));
            }
            Step::Holds => {
                let seen = self.is_watched(name, process);
                all.push(self.releases(mistake, process, name, seen));
            }
            Step::Looked { seen } => all.push(self.releases(mistake, process, name, seen)),
        }
    }

    /// Releases the lock: the process is done, or wants it again. `seen` says whether somebody
    /// waits for a notice.
    fn releases(&self, mistake: Mistake, process: usize, name: usize, seen: bool) -> Self {
        let is_last = self.rounds[process][name] <= 1;
        let done = self.with(|next| {
            next.rounds[process][name] -= 1;
            next.notices[process][name] = false;
            next.step[process][name] = Step::Idle;
            next.free(name);
            if seen && mistake != Mistake::TellsNobody {
                next.tell(name, process);
            }
        });
        if is_last {
            done
        } else if seen && mistake != Mistake::TriesAtOnce {
            // Those who were told come first: it waits to be told itself.
            done.with(|next| next.step[process][name] = Step::Listens)
        } else {
            let is_free = done.holder(name).is_none();
            done.with(|next| {
                next.step[process][name] = if is_free { Step::Holds } else { Step::Refused };
            })
        }
    }

    /// Adds the states in which a session is killed, or a notice lost.
    fn fail(&self, process: usize, name: usize, all: &mut Vec<Self>) {
        let failed = |change: &dyn Fn(&mut Self)| {
            self.with(|next| {
                next.faults -= 1;
                next.faulty[name] = true;
                change(next);
            })
        };
        if self.notices[process][name] {
            all.push(failed(&|next| next.notices[process][name] = false));
        }
        match self.step[process][name] {
            Step::Queued => all.push(failed(&|next| {
                next.queues[name].retain(|queued| *queued != process);
                next.step[process][name] = Step::Wants;
            })),
            Step::Listens | Step::TriesSeen | Step::Hears => all.push(failed(&|next| {
                next.notices[process][name] = false;
                next.step[process][name] = Step::Wants;
            })),
            // Nobody is told that the lock is free.
            Step::Holds | Step::Looked { .. } => all.push(failed(&|next| {
                next.step[process][name] = Step::Wants;
                next.free(name);
            })),
            _ => {}
        }
    }

    /// Tells whether somebody waits for a lock that nobody holds, in a state that nothing leads out
    /// of.
    fn is_stuck(&self, name: usize) -> bool {
        let waits = |process: usize| self.step[process][name] != Step::Idle;
        self.holder(name).is_none() && (0..PROCESSES).any(waits)
    }
}

/// Walks through all states. Returns how many there are, and the first that is stuck without a
/// fault.
fn walk(mistake: Mistake, faults: u8) -> (usize, Option<State>) {
    let start = State::new(faults);
    let mut seen = HashSet::from([start.clone()]);
    let mut ahead = VecDeque::from([start]);
    while let Some(state) = ahead.pop_front() {
        let all = state.next(mistake);
        let ends = all.iter().all(|next| next.faults < state.faults);
        if ends {
            for name in 0..NAMES {
                // Polls help where there was a fault, and only there.
                if state.is_stuck(name) && !state.faulty[name] {
                    return (seen.len(), Some(state));
                }
            }
        }
        for next in all {
            if seen.insert(next.clone()) {
                ahead.push_back(next);
            }
        }
    }
    (seen.len(), None)
}

/// Two never hold a name and nobody is stuck, whatever comes after what.
#[test]
fn every_waiter_is_served_in_every_interleaving() {
    for faults in [0, 1] {
        let (states, stuck) = walk(Mistake::None, faults);
        assert!(stuck.is_none(), "{stuck:?}");
        assert!(states > 1_000, "{states} states cannot be all");
        println!("{states} states with {faults} faults");
    }
}

#[test]
fn planted_mistakes_are_found() {
    for mistake in [
        Mistake::TriesBeforeItIsSeen,
        Mistake::LooksBeforeItUnlocks,
        Mistake::TellsNobody,
    ] {
        let (_, stuck) = walk(mistake, 0);
        assert!(stuck.is_some(), "{mistake:?} is not found");
    }
}

/// A process that tries at once after a release keeps out those that were told. One of them is
/// told, tries, and is refused, as often as one likes.
#[test]
fn who_tries_at_once_can_keep_others_out() {
    let passes = |mistake| {
        let mut state = State::new(0);
        state.step[0][0] = Step::Holds;
        state.step[1][0] = Step::Hears;
        let next = state.releases(mistake, 0, 0, true);
        next.step[0][0] == Step::Holds
    };
    assert!(passes(Mistake::TriesAtOnce));
    assert!(!passes(Mistake::None));
}
