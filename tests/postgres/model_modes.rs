//! A model of readers and writers that wait for notices: two of each, of processes of their own,
//! none of which has a place in the server's queue. It walks through every interleaving of their
//! steps. The README beside the provider says what each party does, in "Waiting".
//!
//! Nobody polls in the model, so whoever only a poll would serve is found as stuck.

use std::collections::{HashSet, VecDeque};

const PARTIES: usize = 4;
/// The first two read, and the others write.
const READERS: usize = 2;
/// How often each wants the lock.
const ROUNDS: [u8; PARTIES] = [3, 3, 1, 2];

/// How far a party is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    Wants,
    /// It was refused, and is not seen yet.
    Refused,
    /// It is seen, and tries next.
    TriesSeen,
    Hears,
    Holds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Notice {
    None,
    OfReader,
    OfWriter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    step: [Step; PARTIES],
    rounds: [u8; PARTIES],
    notices: [Notice; PARTIES],
    /// How many readers have come in while a writer was seen, since the last one wrote.
    passed: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// Readers do not look for writers that are seen.
    ReadersPass,
    /// A reader that is told of a reader's release tries past writers too.
    ReadersPassReaders,
    /// Readers tell nobody of their release.
    ReadersTellNobody,
    /// Who is refused tries before it is seen, and not after it.
    TriesBeforeItIsSeen,
}

fn writes(party: usize) -> bool {
    party >= READERS
}

impl State {
    fn new() -> Self {
        Self {
            step: [Step::Wants; PARTIES],
            rounds: ROUNDS,
            notices: [Notice::None; PARTIES],
            passed: 0,
        }
    }

    fn holds(&self, party: usize) -> bool {
        self.step[party] == Step::Holds
    }

    fn is_free_for(&self, party: usize) -> bool {
        let mut others = (0..PARTIES).filter(|other| *other != party);
        others.all(|other| !self.holds(other) || !(writes(party) || writes(other)))
    }

    fn is_seen(&self, party: usize) -> bool {
        matches!(self.step[party], Step::TriesSeen | Step::Hears)
    }

    fn writer_is_seen(&self) -> bool {
        (READERS..PARTIES).any(|writer| self.is_seen(writer))
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    /// Tries the lock; `refused` is where that leads if it is not to be had.
    fn tries(&self, mistake: Mistake, party: usize, told: Notice, refused: Step) -> Self {
        let past = match told {
            Notice::OfWriter => true,
            Notice::OfReader => mistake == Mistake::ReadersPassReaders,
            Notice::None => false,
        };
        let comes_after =
            !writes(party) && !past && mistake != Mistake::ReadersPass && self.writer_is_seen();
        self.with(|next| {
            next.notices[party] = Notice::None;
            next.step[party] = refused;
            if self.is_free_for(party) && !comes_after {
                next.step[party] = Step::Holds;
                if writes(party) {
                    next.passed = 0;
                } else if self.writer_is_seen() {
                    next.passed += 1;
                }
            }
        })
    }

    fn next(&self, mistake: Mistake, party: usize) -> Option<Self> {
        match self.step[party] {
            Step::Idle => None,
            Step::Wants => Some(self.tries(mistake, party, Notice::None, Step::Refused)),
            Step::Refused => Some(self.with(|next| {
                next.step[party] = match mistake {
                    Mistake::TriesBeforeItIsSeen => Step::Hears,
                    _ => Step::TriesSeen,
                };
            })),
            Step::TriesSeen => Some(self.tries(mistake, party, Notice::None, Step::Hears)),
            Step::Hears => match self.notices[party] {
                Notice::None => None,
                told => Some(self.tries(mistake, party, told, Step::Hears)),
            },
            Step::Holds => Some(self.with(|next| {
                next.rounds[party] -= 1;
                next.step[party] = match next.rounds[party] {
                    0 => Step::Idle,
                    _ => Step::Wants,
                };
                let tells = writes(party) || mistake != Mistake::ReadersTellNobody;
                for other in (0..PARTIES).filter(|other| tells && self.is_seen(*other)) {
                    next.notices[other] = match (writes(party), self.notices[other]) {
                        // What was not looked at yet is not forgotten.
                        (true, _) | (_, Notice::OfWriter) => Notice::OfWriter,
                        _ => Notice::OfReader,
                    };
                }
            })),
        }
    }
}

/// What is wrong with a state.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// Somebody waits for what nobody has.
    Stuck,
    /// More readers came past a writer than there were when the last one wrote.
    Starved,
}

fn walk(mistake: Mistake) -> (usize, Option<(Wrong, State)>) {
    let mut seen = HashSet::from([State::new()]);
    let mut ahead = VecDeque::from([State::new()]);
    while let Some(state) = ahead.pop_front() {
        let writers = (READERS..PARTIES).filter(|writer| state.holds(*writer));
        let readers = (0..READERS).filter(|reader| state.holds(*reader));
        let (writers, readers) = (writers.count(), readers.count());
        assert!(writers == 0 || writers + readers == 1, "{state:?}");
        if usize::from(state.passed) > READERS {
            return (seen.len(), Some((Wrong::Starved, state)));
        }
        let next: Vec<_> = (0..PARTIES)
            .filter_map(|party| state.next(mistake, party))
            .collect();
        if next.is_empty() && state.step.iter().any(|step| *step != Step::Idle) {
            return (seen.len(), Some((Wrong::Stuck, state)));
        }
        for next in next {
            if seen.insert(next.clone()) {
                ahead.push_back(next);
            }
        }
    }
    (seen.len(), None)
}

#[test]
fn every_reader_and_writer_is_served_in_every_interleaving() {
    let (states, wrong) = walk(Mistake::None);
    assert!(wrong.is_none(), "{wrong:?}");
    assert!(states > 1_000, "{states} states cannot be all");
}

#[test]
fn planted_mistakes_about_the_modes_are_found() {
    for (mistake, expected) in [
        (Mistake::ReadersPass, Wrong::Starved),
        (Mistake::ReadersPassReaders, Wrong::Starved),
        (Mistake::ReadersTellNobody, Wrong::Stuck),
        (Mistake::TriesBeforeItIsSeen, Wrong::Stuck),
    ] {
        let (_, wrong) = walk(mistake);
        let wrong = wrong.map(|(wrong, _)| wrong);
        assert_eq!(wrong, Some(expected), "{mistake:?}");
    }
}
