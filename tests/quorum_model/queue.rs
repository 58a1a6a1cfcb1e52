//! Who is served next: clients stand in the queue of one server, whose release hands its own vote
//! to the first of them and tells it that it is its turn. Only a majority of votes makes a holder.
//!
//! What one client sends to one server arrives in order. Leases end only where a client has crashed,
//! and tokens are left to the other model.

use crate::walk::{Found, State, walk};

const SERVERS: usize = 3;
/// The third takes part where the order is looked at.
const CLIENTS: usize = 3;
const MAJORITY: usize = 2;

/// What is done otherwise than it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mistake {
    None,
    /// A client that is told that it is its turn holds the lock.
    PushIsBelieved,
    /// A push for an earlier attempt of the client counts for the next.
    PushOfAnyRound,
    /// A client that has the vote of the queue's server holds the lock.
    QueueServerIsEnough,
    /// A vote is given although another client has it.
    VotesOverAnother,
    /// A release goes to the other servers first, before the body ends.
    ReleasedBeforeEnd,
    /// A release reaches nobody but the queue's server.
    ReleasedOnQueueServerAlone,
    /// What is taken back is so only where a vote was heard of.
    UndoneWhereHeard,
    /// A release frees the queue's server, and tells nobody.
    TellsNobody,
    /// A waiter that gives up leaves its entry.
    LeavesEntry,
    /// The queue's server serves whoever came last.
    LastComesFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    mistake: Mistake,
    /// Whether clients may use the queues of different servers.
    disagree: bool,
    /// Whether a waiter looks now and then, which it needs where something was lost.
    looks: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    rounds: [u8; CLIENTS],
    crashes: u8,
    lost_answers: u8,
    lost_pushes: u8,
    give_ups: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// It has asked for a place in the queue, or stands there.
    Waits,
    /// The queue's server has voted for it, and it wants the other votes.
    Turn,
    Holds,
    /// It holds, and has told the other servers already that it does not: a mistake.
    HoldsStill,
    Crashed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client {
    phase: Phase,
    /// The server in whose queue it is.
    queue: usize,
    votes: [bool; SERVERS],
    /// The rounds that were left when this one began. With the client's number it is the owner.
    round: u8,
}

/// A request to a server, or a word from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Ask {
        round: u8,
    },
    Vote {
        round: u8,
    },
    /// Gives back a vote and a place, and hands over.
    Release {
        round: u8,
    },
    /// From a server: it is your turn.
    Push,
}

#[derive(Debug)]
#[expect(dead_code, reason = "it is shown")]
enum Step {
    Asks {
        client: usize,
        queue: usize,
    },
    AsksAgain {
        client: usize,
        server: usize,
    },
    Looks {
        client: usize,
    },
    Carries {
        client: usize,
        server: usize,
        message: Message,
    },
    CarriesAndAnswerIsLost {
        client: usize,
        server: usize,
    },
    PushIsLost {
        client: usize,
    },
    GivesUp {
        client: usize,
    },
    Releases {
        client: usize,
    },
    Crashes {
        client: usize,
    },
    LeaseEnds {
        server: usize,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Queues {
    world: World,
    left: Budget,
    clients: [Client; CLIENTS],
    /// Who has each server's vote.
    owner: [Option<(usize, u8)>; SERVERS],
    queue: [Vec<(usize, u8)>; SERVERS],
    /// What is on its way between each client and server, in order.
    wire: [[Vec<Message>; SERVERS]; CLIENTS],
    /// The rounds that were told last that it is their turn.
    pushed: [[Option<u8>; SERVERS]; CLIENTS],
    /// The clients that wait, in the order in which a queue's server has heard of them.
    arrived: Vec<usize>,
    overtaken: bool,
}

impl Queues {
    fn new(world: World, left: Budget) -> Self {
        let client = Client {
            phase: Phase::Idle,
            queue: 0,
            votes: [false; SERVERS],
            round: 0,
        };
        Self {
            world,
            left,
            clients: [client; CLIENTS],
            owner: [None; SERVERS],
            queue: Default::default(),
            wire: Default::default(),
            pushed: Default::default(),
            arrived: Vec::new(),
            overtaken: false,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    fn is(&self, mistake: Mistake) -> bool {
        self.world.mistake == mistake
    }

    /// Gives the server's vote to the first in its queue that is alive, or to nobody.
    fn hand_over(&mut self, server: usize) {
        self.owner[server] = None;
        if self.is(Mistake::TellsNobody) {
            return;
        }
        while !self.queue[server].is_empty() {
            let place = match self.is(Mistake::LastComesFirst) {
                true => self.queue[server].len() - 1,
                false => 0,
            };
            let next = self.queue[server].remove(place);
            let client = next.0;
            // A server counts who listens.
            if self.clients[client].phase != Phase::Crashed {
                self.owner[server] = Some(next);
                self.pushed[client][server] = Some(next.1);
                return;
            }
        }
    }

    /// Begins a turn: asks every server for its vote.
    fn begin_turn(&mut self, number: usize) {
        self.clients[number].phase = Phase::Turn;
        self.clients[number].votes = [false; SERVERS];
        if self.is(Mistake::QueueServerIsEnough) {
            return self.hold(number);
        }
        let round = self.clients[number].round;
        for server in 0..SERVERS {
            self.wire[number][server].push(Message::Vote { round });
        }
    }

    fn hold(&mut self, number: usize) {
        self.clients[number].phase = Phase::Holds;
        // Those that use another queue know nothing of its order.
        self.overtaken |= !self.world.disagree && self.arrived.first() != Some(&number);
        self.arrived.retain(|it| *it != number);
    }

    /// Has the server do the first of what the client has sent there. `heard` says whether the
    /// answer arrives.
    fn carry(&mut self, number: usize, server: usize, heard: bool) {
        let owner = self.owner[server];
        match self.wire[number][server].remove(0) {
            Message::Ask { round } => {
                let me = (number, round);
                if owner.is_none() && !self.queue[server].is_empty() {
                    self.hand_over(server);
                }
                if self.owner[server].is_none() {
                    self.owner[server] = Some(me);
                }
                if self.owner[server] != Some(me) && !self.queue[server].contains(&me) {
                    self.queue[server].push(me);
                }
                let client = self.clients[number];
                let waits = client.phase == Phase::Waits && client.round == round;
                if waits && !self.arrived.contains(&number) {
                    self.arrived.push(number);
                }
                if self.owner[server] == Some(me) {
                    self.queue[server].retain(|it| *it != me);
                    if heard && waits {
                        self.begin_turn(number);
                    }
                }
            }
            Message::Vote { round } => {
                let me = (number, round);
                let may = owner.is_none_or(|owner| owner == me);
                if !may && !self.is(Mistake::VotesOverAnother) {
                    return;
                }
                self.owner[server] = Some(me);
                let client = &mut self.clients[number];
                if heard && client.phase == Phase::Turn && client.round == round {
                    client.votes[server] = true;
                    if client.votes.iter().filter(|vote| **vote).count() >= MAJORITY {
                        self.hold(number);
                    }
                }
            }
            Message::Release { round } => {
                let me = (number, round);
                if !self.is(Mistake::LeavesEntry) {
                    self.queue[server].retain(|it| *it != me);
                }
                if owner == Some(me) {
                    self.hand_over(server);
                }
            }
            Message::Push => {}
        }
    }

    fn release(&mut self, number: usize) {
        let client = self.clients[number];
        for server in 0..SERVERS {
            let skips = match self.world.mistake {
                Mistake::ReleasedOnQueueServerAlone => server != client.queue,
                // Of its own queue it knows.
                Mistake::UndoneWhereHeard => server != client.queue && !client.votes[server],
                _ => false,
            };
            if !skips {
                self.wire[number][server].push(Message::Release {
                    round: client.round,
                });
            }
        }
        self.clients[number].phase = Phase::Idle;
        self.clients[number].votes = [false; SERVERS];
    }

    fn steps_of(&self, number: usize, all: &mut Vec<(Step, Self)>) {
        let client = self.clients[number];
        let is_quiet = self.wire[number].iter().all(Vec::is_empty)
            && self.pushed[number].iter().all(Option::is_none);
        match client.phase {
            Phase::Idle if self.left.rounds[number] > 0 => {
                for queue in 0..=usize::from(self.world.disagree) {
                    let asks = self.with(|next| {
                        next.left.rounds[number] -= 1;
                        next.clients[number].phase = Phase::Waits;
                        let round = next.left.rounds[number];
                        next.clients[number].queue = queue;
                        next.clients[number].round = round;
                        next.wire[number][queue].push(Message::Ask { round });
                    });
                    all.push((
                        Step::Asks {
                            client: number,
                            queue,
                        },
                        asks,
                    ));
                }
            }
            Phase::Waits if self.world.looks && is_quiet => {
                // It looks now and then. That is a step where it helps.
                let (queue, me) = (client.queue, (number, client.round));
                let owner = self.owner[queue];
                let is_out = !self.queue[queue].contains(&me);
                if owner.is_none_or(|owner| owner == me) || is_out {
                    let round = client.round;
                    let ask = Message::Ask { round };
                    let looks = self.with(|next| next.wire[number][queue].push(ask));
                    all.push((Step::Looks { client: number }, looks));
                }
            }
            Phase::Turn => {
                for server in 0..SERVERS {
                    let (owner, round) = (self.owner[server], client.round);
                    let is_refused = owner.is_none_or(|it| it == (number, round))
                        && !client.votes[server]
                        && self.wire[number][server].is_empty();
                    if is_refused {
                        let vote = Message::Vote { round };
                        let again = self.with(|next| next.wire[number][server].push(vote));
                        all.push((
                            Step::AsksAgain {
                                client: number,
                                server,
                            },
                            again,
                        ));
                    }
                }
            }
            Phase::Holds if self.is(Mistake::ReleasedBeforeEnd) => {
                let released = self.with(|next| {
                    next.release(number);
                    next.clients[number].phase = Phase::HoldsStill;
                });
                all.push((Step::Releases { client: number }, released));
            }
            Phase::Holds => {
                let released = self.with(|next| next.release(number));
                all.push((Step::Releases { client: number }, released));
            }
            Phase::HoldsStill => {
                let ended = self.with(|next| next.clients[number].phase = Phase::Idle);
                all.push((Step::Releases { client: number }, ended));
            }
            Phase::Idle | Phase::Waits | Phase::Crashed => {}
        }
        if matches!(client.phase, Phase::Waits | Phase::Turn) && self.left.give_ups > 0 {
            let given_up = self.with(|next| {
                next.left.give_ups -= 1;
                next.arrived.retain(|it| *it != number);
                next.release(number);
            });
            all.push((Step::GivesUp { client: number }, given_up));
        }
        if client.phase != Phase::Idle && client.phase != Phase::Crashed && self.left.crashes > 0 {
            let crashed = self.with(|next| {
                next.left.crashes -= 1;
                next.clients[number].phase = Phase::Crashed;
                next.clients[number].votes = [false; SERVERS];
                next.pushed[number] = [None; SERVERS];
                next.arrived.retain(|it| *it != number);
            });
            all.push((Step::Crashes { client: number }, crashed));
        }
    }

    fn carried(&self, number: usize, server: usize, all: &mut Vec<(Step, Self)>) {
        if let Some(message) = self.wire[number][server].first().copied() {
            let carried = self.with(|next| next.carry(number, server, true));
            let step = Step::Carries {
                client: number,
                server,
                message,
            };
            all.push((step, carried));
            if self.left.lost_answers > 0 && !matches!(message, Message::Release { .. }) {
                let lost = self.with(|next| {
                    next.left.lost_answers -= 1;
                    next.carry(number, server, false);
                });
                let step = Step::CarriesAndAnswerIsLost {
                    client: number,
                    server,
                };
                all.push((step, lost));
            }
        }
        if let Some(round) = self.pushed[number][server] {
            let carried = self.with(|next| {
                next.pushed[number][server] = None;
                let client = next.clients[number];
                let is_meant = client.round == round || next.is(Mistake::PushOfAnyRound);
                if client.phase != Phase::Waits || !is_meant {
                    return;
                }
                match next.is(Mistake::PushIsBelieved) {
                    true => next.hold(number),
                    false => next.begin_turn(number),
                }
            });
            let message = Message::Push;
            all.push((
                Step::Carries {
                    client: number,
                    server,
                    message,
                },
                carried,
            ));
            if self.left.lost_pushes > 0 {
                let lost = self.with(|next| {
                    next.left.lost_pushes -= 1;
                    next.pushed[number][server] = None;
                });
                all.push((Step::PushIsLost { client: number }, lost));
            }
        }
    }
}

impl State for Queues {
    type Step = Step;

    fn next(&self) -> Vec<(Step, Self)> {
        let mut all = Vec::new();
        for number in 0..CLIENTS {
            self.steps_of(number, &mut all);
            for server in 0..SERVERS {
                self.carried(number, server, &mut all);
            }
        }
        for server in 0..SERVERS {
            let crashed = |(owner, _): (usize, u8)| {
                let is_done = self.wire[owner].iter().all(Vec::is_empty);
                self.clients[owner].phase == Phase::Crashed && is_done
            };
            if self.owner[server].is_some_and(crashed) {
                let ends = self.with(|next| next.owner[server] = None);
                all.push((Step::LeaseEnds { server }, ends));
            }
        }
        all
    }

    fn broken(&self, ends: bool) -> Option<String> {
        let phases = self.clients.map(|client| client.phase);
        let holds = |phase: &&Phase| matches!(phase, Phase::Holds | Phase::HoldsStill);
        if phases.iter().filter(holds).count() > 1 {
            return Some("two hold the lock".to_owned());
        }
        if self.overtaken {
            return Some("a waiter was overtaken".to_owned());
        }
        if ends
            && phases
                .iter()
                .any(|phase| matches!(phase, Phase::Waits | Phase::Turn))
        {
            return Some("a waiter is never served".to_owned());
        }
        let is_left =
            self.owner.iter().any(Option::is_some) || self.queue.iter().any(|it| !it.is_empty());
        (ends && is_left).then(|| "something is left on a server".to_owned())
    }

    fn plain(self) -> Self {
        self
    }
}

const NO_FAULTS: Budget = Budget {
    rounds: [0; CLIENTS],
    crashes: 0,
    lost_answers: 0,
    lost_pushes: 0,
    give_ups: 0,
};

/// Each client wants the lock, and one wants it again.
const TWICE: Budget = Budget {
    rounds: [2, 1, 0],
    ..NO_FAULTS
};
/// One client holds it and another waits.
const ONCE: Budget = Budget {
    rounds: [1, 1, 0],
    ..NO_FAULTS
};

const TWICE_GIVEN_UP: Budget = Budget {
    give_ups: 1,
    ..TWICE
};
/// Three that wait for each other.
const THREE: Budget = Budget {
    rounds: [1; CLIENTS],
    ..NO_FAULTS
};

const AGREE: World = World {
    mistake: Mistake::None,
    disagree: false,
    looks: false,
};
const DISAGREE: World = World {
    disagree: true,
    ..AGREE
};

fn found(world: World, budget: Budget) -> Found {
    let faults = [
        budget.crashes,
        budget.lost_answers,
        budget.lost_pushes,
        budget.give_ups,
    ];
    let looks = faults.iter().any(|count| *count > 0);
    let world = World { looks, ..world };
    walk(Queues::new(world, budget))
}

#[test]
fn waiters_are_served_in_order_and_nothing_is_left() {
    found(AGREE, TWICE).expect_kept("one queue");
    found(AGREE, THREE).expect_kept("three clients");
    for (what, budget) in [
        ("a crash", Budget { crashes: 1, ..ONCE }),
        ("a waiter that gives up", TWICE_GIVEN_UP),
        (
            "a lost push",
            Budget {
                lost_pushes: 1,
                ..TWICE
            },
        ),
    ] {
        found(AGREE, budget).expect_kept(what);
    }
}

/// Then only the order suffers.
#[test]
fn clients_may_use_different_queues() {
    found(DISAGREE, TWICE).expect_kept("two queues");
    let faulty = Budget {
        give_ups: 1,
        ..ONCE
    };
    found(DISAGREE, faulty).expect_kept("two queues and a waiter that gives up");
}

#[test]
fn mistakes_are_found() {
    let gives_up = Budget {
        give_ups: 1,
        ..ONCE
    };
    let lost = Budget {
        give_ups: 1,
        lost_answers: 1,
        ..ONCE
    };
    const TWO: &str = "two hold the lock";
    for (mistake, disagree, budget, words) in [
        (Mistake::PushIsBelieved, true, TWICE, TWO),
        (Mistake::PushOfAnyRound, false, TWICE_GIVEN_UP, "overtaken"),
        (Mistake::QueueServerIsEnough, true, ONCE, TWO),
        (Mistake::VotesOverAnother, true, ONCE, TWO),
        (Mistake::ReleasedBeforeEnd, false, ONCE, TWO),
        (
            Mistake::ReleasedOnQueueServerAlone,
            false,
            ONCE,
            "never served",
        ),
        (Mistake::UndoneWhereHeard, false, lost, ""),
        (Mistake::TellsNobody, false, ONCE, "never served"),
        (Mistake::LeavesEntry, false, gives_up, ""),
        (Mistake::LastComesFirst, false, THREE, "overtaken"),
    ] {
        let world = World {
            mistake,
            disagree,
            ..AGREE
        };
        found(world, budget).expect_broken(&format!("{mistake:?}"), words);
    }
}
