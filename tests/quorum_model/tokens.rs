//! Exclusion and fencing tokens: clients vote on three servers, each for a grant with a lease.
//!
//! A vote takes a proposal, and answers with the highest of three numbers: the server's last one
//! plus one, its clock, and the proposal. Numbers that are the same on a majority are the token at
//! once. Otherwise the highest is made known to a majority in a second round.
//!
//! A client that crashes is one that takes no further step, so every walk has it. A message that is
//! lost is one that is never delivered.

use crate::walk::{Found, State, walk};

const SERVERS: usize = 3;
const CLIENTS: usize = 2;
const MAJORITY: usize = 2;
/// How long a grant lasts, in ticks.
const LEASE: u8 = 2;
/// How far a server's clock moves with a tick.
const CLOCK: u8 = 10;

/// What is done otherwise than it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mistake {
    None,
    /// One server's vote is enough.
    GrantedWithoutMajority,
    /// A token that is the highest answer, and that no second round makes known.
    HighestAnswerIsToken,
    /// A token of the first server that answered.
    FirstAnswerIsToken,
    /// The second round ends with the first answer.
    OneServerIsTold,
    /// The second round is answered by servers on which somebody else holds the lock.
    ToldWithoutLock,
    /// The lease is counted from when a majority had answered.
    CountedFromAnswer,
    /// A grant that was given up counts when the answers come.
    GrantedAfterUndo,
    /// All attempts of a client have the same owner.
    SameOwner,
    /// A renewal sets the lock although somebody else holds it.
    RenewedOverAnother,
    /// A renewal is enough if one server answers.
    RenewedWithoutMajority,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    mistake: Mistake,
    /// How far ahead each server's clock is, in ascending order; `None` if numbers begin at zero.
    clocks: Option<[u8; SERVERS]>,
    /// For how many ticks a server that has forgotten everything gives no vote.
    restart_delay: u8,
    /// The number that each server has given out last.
    counters: [u8; SERVERS],
    /// Whether a renewal sets the lock on servers that have forgotten it.
    votes_again: bool,
    /// Whether the vote of a renewal counts before the delay is over.
    votes_early: bool,
}

const RIGHT: World = World {
    mistake: Mistake::None,
    clocks: None,
    restart_delay: LEASE,
    counters: [0; SERVERS],
    votes_again: false,
    votes_early: false,
};

/// How much may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    attempts: [u8; CLIENTS],
    ticks: u8,
    forgets: u8,
    lost_answers: u8,
    renewals: u8,
    /// How many messages of attempts and grants that are over may still be on their way; `None` for
    /// all of them. Those that may not are lost, or carried out at once if they take back.
    late: Option<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Server {
    /// The owner, and when its lock ends; zero for none.
    owner: u8,
    until: u8,
    counter: u8,
    votes_from: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// It waits for votes.
    Votes,
    /// It makes its token known.
    Tells,
    /// It has sent what takes its votes back, and counts them all the same: a mistake.
    Undone,
    Holds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client {
    phase: Phase,
    owner: u8,
    sent_at: u8,
    /// The number with which each server has voted; zero for none.
    votes: [u8; SERVERS],
    token: u8,
    /// Which servers have answered the second round, or the renewal that was sent last.
    told: [bool; SERVERS],
    renewed_at: Option<u8>,
    /// The highest number that it has seen.
    highest: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Request {
    Vote { proposal: u8 },
    Tell { token: u8 },
    Renew { token: u8, sent_at: u8 },
    Undo,
}

/// A request on its way, from a client's owner to a server.
type Message = (usize, u8, usize, Request);

/// What happened. Servers and clients have their numbers.
#[derive(Debug)]
#[expect(dead_code, reason = "it is shown")]
enum Step {
    Asks {
        client: usize,
        owner: u8,
    },
    Carries {
        server: usize,
        owner: u8,
        out: Request,
    },
    CarriesAndAnswerIsLost {
        server: usize,
        owner: u8,
        out: Request,
    },
    GivesUp {
        client: usize,
    },
    Releases {
        client: usize,
    },
    Renews {
        client: usize,
    },
    Forgets {
        server: usize,
    },
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Votes {
    world: World,
    left: Budget,
    now: u8,
    servers: [Server; SERVERS],
    clients: [Client; CLIENTS],
    wire: Vec<Message>,
    /// The highest token of a grant.
    last_token: u8,
    /// A grant whose token is not above that.
    stale: bool,
}

impl Votes {
    fn new(world: World, left: Budget) -> Self {
        let client = Client {
            phase: Phase::Idle,
            owner: 0,
            sent_at: 0,
            votes: [0; SERVERS],
            token: 0,
            told: [false; SERVERS],
            renewed_at: None,
            highest: 0,
        };
        Self {
            world,
            left,
            now: 0,
            servers: world.counters.map(|counter| Server {
                counter,
                ..Server::default()
            }),
            clients: [client; CLIENTS],
            wire: Vec::new(),
            last_token: 0,
            stale: false,
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

    fn clock(&self, server: usize) -> u8 {
        self.world
            .clocks
            .map_or(0, |ahead| self.now * CLOCK + ahead[server])
    }

    fn send(&mut self, client: usize, out: Request) {
        let owner = self.clients[client].owner;
        for server in 0..SERVERS {
            let message = (client, owner, server, out);
            if let Err(place) = self.wire.binary_search(&message) {
                self.wire.insert(place, message);
            }
        }
    }

    fn asks(&mut self, number: usize) {
        self.left.attempts[number] -= 1;
        let attempt = match self.is(Mistake::SameOwner) {
            true => 0,
            false => self.left.attempts[number],
        };
        let clocks = (0..SERVERS).map(|server| self.clock(server));
        // The other client has seen no clock.
        let estimate = clocks.max().filter(|_| number == 0).unwrap_or(0);
        let client = &mut self.clients[number];
        client.phase = Phase::Votes;
        client.owner = 1 + number as u8 + attempt * CLIENTS as u8;
        client.sent_at = self.now;
        client.votes = [0; SERVERS];
        client.told = [false; SERVERS];
        client.renewed_at = None;
        let proposal = client.highest.max(estimate) + 1;
        self.send(number, Request::Vote { proposal });
    }

    /// Ends an attempt or a grant, and returns the states to which that may lead: what it has left
    /// is taken back everywhere, and what is on its way may be late.
    fn ended(&self, number: usize) -> Vec<Self> {
        let all_late = self.with(|next| next.ends(number));
        let Some(late) = self.left.late else {
            return vec![all_late];
        };
        let owner = self.clients[number].owner;
        let (ours, others): (Vec<_>, Vec<_>) = all_late
            .wire
            .iter()
            .partition(|it| (it.0, it.1) == (number, owner));
        let chosen = (0..1_u16 << ours.len()).filter(|it| it.count_ones() <= u32::from(late));
        chosen
            .map(|are_late| {
                all_late.with(|next| {
                    next.wire.clone_from(&others);
                    for (at, message) in ours.iter().enumerate() {
                        if are_late & (1 << at) != 0 {
                            next.left.late = next.left.late.map(|late| late - 1);
                            next.wire.push(*message);
                        } else if message.3 == Request::Undo {
                            next.carry(owner, message.2, Request::Undo);
                        }
                    }
                    next.wire.sort_unstable();
                })
            })
            .collect()
    }

    fn ends(&mut self, number: usize) {
        self.send(number, Request::Undo);
        self.clients[number] = Client {
            phase: Phase::Idle,
            sent_at: 0,
            votes: [0; SERVERS],
            token: 0,
            told: [false; SERVERS],
            renewed_at: None,
            ..self.clients[number]
        };
    }

    /// Has the server do what is asked for. Returns its number, or 1 for yes; zero for no.
    fn carry(&mut self, owner: u8, server: usize, out: Request) -> u8 {
        let (now, clock, is) = (self.now, self.clock(server), self.world.mistake);
        let World {
            votes_again,
            votes_early,
            ..
        } = self.world;
        let server = &mut self.servers[server];
        if server.until <= now {
            (server.owner, server.until) = (0, 0);
        }
        let may_vote = now >= server.votes_from;
        match out {
            Request::Vote { proposal } => {
                if !may_vote || (server.owner != 0 && server.owner != owner) {
                    return 0;
                }
                (server.owner, server.until) = (owner, now + LEASE);
                server.counter = (server.counter + 1).max(clock).max(proposal);
                server.counter
            }
            Request::Tell { token } => {
                if server.owner != owner && is != Mistake::ToldWithoutLock {
                    return 0;
                }
                server.counter = server.counter.max(token);
                1
            }
            Request::Renew { token, .. } => {
                let votes = votes_again && (may_vote || votes_early);
                let is_free = server.owner == 0 && votes;
                if server.owner != owner && !is_free && is != Mistake::RenewedOverAnother {
                    return 0;
                }
                (server.owner, server.until) = (owner, now + LEASE);
                server.counter = server.counter.max(token);
                1
            }
            Request::Undo => {
                if server.owner == owner {
                    (server.owner, server.until) = (0, 0);
                }
                0
            }
        }
    }

    /// Takes an answer to a client, which acts on it at once.
    fn answer(&mut self, message: Message, answer: u8) {
        let (number, owner, server, out) = message;
        let client = &mut self.clients[number];
        if client.owner != owner || answer == 0 {
            return;
        }
        client.highest = client.highest.max(match out {
            Request::Vote { .. } => answer,
            _ => 0,
        });
        match (out, client.phase) {
            (Request::Vote { .. }, Phase::Votes | Phase::Undone) => {
                client.votes[server] = answer;
                self.count_votes(number);
            }
            (Request::Tell { token }, Phase::Tells) if token == client.token => {
                client.told[server] = true;
                let told = client.told.iter().filter(|told| **told).count();
                if told >= MAJORITY || self.is(Mistake::OneServerIsTold) {
                    self.grant(number);
                }
            }
            (Request::Renew { sent_at, .. }, Phase::Holds)
                if client.renewed_at == Some(sent_at) =>
            {
                client.told[server] = true;
                let told = client.told.iter().filter(|told| **told).count();
                if told >= MAJORITY || self.world.mistake == Mistake::RenewedWithoutMajority {
                    client.sent_at = sent_at;
                    client.renewed_at = None;
                    client.told = [false; SERVERS];
                }
            }
            _ => {}
        }
    }

    fn count_votes(&mut self, number: usize) {
        let client = self.clients[number];
        let votes: Vec<u8> = client.votes.into_iter().filter(|vote| *vote > 0).collect();
        let needed = match self.is(Mistake::GrantedWithoutMajority) {
            true => 1,
            false => MAJORITY,
        };
        if votes.len() < needed {
            return;
        }
        let same = |vote: &&u8| votes.iter().filter(|it| it == vote).count() >= needed;
        let token = votes.iter().find(same).copied();
        let highest = votes.iter().max().copied();
        let at_once = match self.world.mistake {
            Mistake::HighestAnswerIsToken => highest,
            Mistake::FirstAnswerIsToken => votes.first().copied(),
            _ => token,
        };
        if let Some(token) = at_once.or(highest) {
            self.clients[number].token = token;
            match at_once {
                Some(_) => self.grant(number),
                None => {
                    self.clients[number].phase = Phase::Tells;
                    self.send(number, Request::Tell { token });
                }
            }
        }
    }

    fn grant(&mut self, number: usize) {
        let counted = self.is(Mistake::CountedFromAnswer);
        let client = &mut self.clients[number];
        if counted {
            client.sent_at = self.now;
        }
        client.phase = Phase::Holds;
        client.votes = [0; SERVERS];
        client.told = [false; SERVERS];
        self.stale |= client.token <= self.last_token;
        self.last_token = self.last_token.max(client.token);
    }

    fn steps_of(&self, number: usize, all: &mut Vec<(Step, Self)>) {
        let client = &self.clients[number];
        match client.phase {
            Phase::Idle if self.left.attempts[number] > 0 => {
                let asked = self.with(|next| next.asks(number));
                let owner = asked.clients[number].owner;
                all.push((
                    Step::Asks {
                        client: number,
                        owner,
                    },
                    asked,
                ));
            }
            Phase::Votes if self.is(Mistake::GrantedAfterUndo) => {
                let given_up = self.with(|next| {
                    next.send(number, Request::Undo);
                    next.clients[number].phase = Phase::Undone;
                });
                all.push((Step::GivesUp { client: number }, given_up));
            }
            Phase::Votes | Phase::Tells => {
                for given_up in self.ended(number) {
                    all.push((Step::GivesUp { client: number }, given_up));
                }
            }
            Phase::Holds => {
                for released in self.ended(number) {
                    all.push((Step::Releases { client: number }, released));
                }
                if self.left.renewals > 0 && client.renewed_at.is_none() {
                    let renews = self.with(|next| {
                        next.left.renewals -= 1;
                        next.clients[number].renewed_at = Some(next.now);
                        next.clients[number].told = [false; SERVERS];
                        let (token, sent_at) = (client.token, next.now);
                        next.send(number, Request::Renew { token, sent_at });
                    });
                    all.push((Step::Renews { client: number }, renews));
                }
            }
            Phase::Idle | Phase::Undone => {}
        }
    }

    /// Puts the servers in an order that depends on nothing but what they and the clients know of
    /// them. Servers whose clocks are equal may change places.
    fn sort_servers(&mut self) {
        let key = |server: usize| {
            let clock = self.world.clocks.map_or(0, |ahead| ahead[server]);
            let known = self
                .clients
                .map(|client| (client.votes[server], client.told[server]));
            let wire = self.wire.iter().filter(|message| message.2 == server);
            let wire = wire.fold(0_u64, |sum, (_, owner, _, out)| {
                let out = match *out {
                    Request::Vote { proposal } => u64::from(proposal),
                    Request::Tell { token } => 256 + u64::from(token),
                    Request::Renew { token, sent_at } => {
                        512 + u64::from(token) + 1024 * u64::from(sent_at)
                    }
                    Request::Undo => 768,
                };
                sum.wrapping_mul(31)
                    .wrapping_add(out * 64 + u64::from(*owner))
            });
            let it = self.servers[server];
            (
                clock,
                it.owner,
                it.until,
                it.counter,
                it.votes_from,
                known,
                wire,
            )
        };
        let keys = [key(0), key(1), key(2)];
        let mut order = [0, 1, 2];
        order.sort_by(|one, other| keys[*one].cmp(&keys[*other]));
        if order == [0, 1, 2] {
            return;
        }
        let old = (self.servers, self.clients);
        let mut places = [0; SERVERS];
        for (to, from) in order.into_iter().enumerate() {
            places[from] = to;
            self.servers[to] = old.0[from];
            for (client, old) in self.clients.iter_mut().zip(&old.1) {
                client.votes[to] = old.votes[from];
                client.told[to] = old.told[from];
            }
        }
        for message in &mut self.wire {
            message.2 = places[message.2];
        }
        self.wire.sort_unstable();
    }

    fn ticked(&self) -> Vec<Self> {
        let mut all = vec![self.with(|next| {
            next.now += 1;
            next.left.ticks -= 1;
        })];
        for number in 0..CLIENTS {
            let client = &self.clients[number];
            // An attempt that has taken so long is over, as is a grant.
            let waits = match client.phase {
                Phase::Idle => false,
                Phase::Holds => true,
                _ => !self.is(Mistake::CountedFromAnswer),
            };
            if waits && client.sent_at + LEASE <= self.now + 1 {
                all = all.iter().flat_map(|next| next.ended(number)).collect();
            }
        }
        all
    }
}

impl State for Votes {
    type Step = Step;

    fn next(&self) -> Vec<(Step, Self)> {
        let mut all = Vec::new();
        let is_done = |number: usize| {
            self.clients[number].phase == Phase::Idle && self.left.attempts[number] == 0
        };
        if (0..CLIENTS).all(is_done) {
            return all;
        }
        for number in 0..CLIENTS {
            self.steps_of(number, &mut all);
        }
        for (place, message) in self.wire.iter().enumerate() {
            let (_, owner, server, out) = *message;
            let mut next = self.clone();
            next.wire.remove(place);
            let answer = next.carry(owner, server, out);
            if self.left.lost_answers > 0 && answer > 0 {
                let mut lost = next.clone();
                lost.left.lost_answers -= 1;
                let step = Step::CarriesAndAnswerIsLost { server, owner, out };
                all.push((step, lost));
            }
            next.answer(*message, answer);
            all.push((Step::Carries { server, owner, out }, next));
        }
        if self.left.forgets > 0 {
            let knows = |server: &usize| self.servers[*server].owner != 0;
            for server in (0..SERVERS).filter(knows) {
                let forgets = self.with(|next| {
                    next.left.forgets -= 1;
                    next.servers[server] = Server {
                        votes_from: next.now + next.world.restart_delay,
                        ..Server::default()
                    };
                });
                all.push((Step::Forgets { server }, forgets));
            }
        }
        if self.left.ticks > 0 {
            all.extend(self.ticked().into_iter().map(|next| (Step::Tick, next)));
        }
        all
    }

    fn plain(mut self) -> Self {
        for number in 0..CLIENTS {
            let client = &mut self.clients[number];
            if client.phase == Phase::Idle && self.left.attempts[number] == 0 {
                (client.owner, client.highest) = (0, 0);
            }
        }
        let wire = std::mem::take(&mut self.wire);
        let comes = |server, owner| {
            let sets = |it: &&Message| {
                (it.1, it.2) == (owner, server)
                    && matches!(it.3, Request::Vote { .. } | Request::Renew { .. })
            };
            wire.iter().any(|it| sets(&it))
        };
        let matters = |message: &&Message| {
            let (_, owner, server, out) = **message;
            let is_there = self.servers[server].owner == owner || comes(server, owner);
            match out {
                Request::Undo => is_there,
                Request::Tell { .. } => is_there || self.is(Mistake::ToldWithoutLock),
                _ => true,
            }
        };
        let kept: Vec<Message> = wire.iter().filter(matters).copied().collect();
        self.wire = kept;
        self.sort_servers();
        self
    }

    fn broken(&self, _: bool) -> Option<String> {
        let holders = self.clients.iter();
        let holders = holders
            .filter(|client| client.phase == Phase::Holds)
            .count();
        if holders > 1 {
            return Some("two hold the lock".to_owned());
        }
        self.stale
            .then(|| "a token is not above that of an earlier grant".to_owned())
    }
}

/// A little of everything.
const SOME: Budget = Budget {
    attempts: [1, 1],
    ticks: 0,
    forgets: 0,
    lost_answers: 0,
    renewals: 0,
    late: None,
};

fn found(world: World, budget: Budget) -> Found {
    walk(Votes::new(world, budget))
}

/// A server has given out more numbers than the others, so that proposals are too low for it.
const UNEVEN: World = World {
    counters: [0, 0, 3],
    ..RIGHT
};

/// Leases end, and an answer is lost.
const TIMED: Budget = Budget {
    ticks: 3,
    lost_answers: 1,
    late: Some(1),
    ..SOME
};
/// A client asks again after it has given up.
const AGAIN: Budget = Budget {
    attempts: [2, 1],
    late: Some(1),
    ..SOME
};
const RENEWED: Budget = Budget {
    ticks: 3,
    renewals: 1,
    late: Some(1),
    ..SOME
};
/// Two messages are late.
const LATE: Budget = Budget {
    renewals: 1,
    late: Some(2),
    ..AGAIN
};
/// A server restarts without its data.
const FORGETS: Budget = Budget {
    ticks: 3,
    forgets: 1,
    late: Some(0),
    ..SOME
};

const TWO: &str = "two hold the lock";
const STALE: &str = "a token is not above";

#[test]
fn exclusion_and_tokens_hold() {
    found(RIGHT, SOME).expect_kept("two attempts");
    found(UNEVEN, SOME).expect_kept("a server that is ahead");
    found(UNEVEN, AGAIN).expect_kept("three attempts");
    found(RIGHT, TIMED).expect_kept("leases that end, and a lost answer");
    found(RIGHT, RENEWED).expect_kept("a renewal");
}

#[test]
fn mistakes_are_found() {
    for (mistake, budget, words) in [
        (Mistake::GrantedWithoutMajority, SOME, TWO),
        (Mistake::HighestAnswerIsToken, SOME, STALE),
        (Mistake::FirstAnswerIsToken, SOME, STALE),
        (Mistake::OneServerIsTold, SOME, STALE),
        (Mistake::ToldWithoutLock, SOME, STALE),
        (Mistake::CountedFromAnswer, TIMED, TWO),
        (Mistake::GrantedAfterUndo, SOME, TWO),
        (Mistake::SameOwner, AGAIN, TWO),
        (Mistake::RenewedOverAnother, LATE, TWO),
        (Mistake::RenewedWithoutMajority, RENEWED, TWO),
    ] {
        let what = format!("{mistake:?}");
        let world = World {
            mistake,
            counters: if words == STALE {
                UNEVEN.counters
            } else {
                RIGHT.counters
            },
            ..RIGHT
        };
        found(world, budget).expect_broken(&what, words);
    }
}

#[test]
fn a_server_that_forgets_breaks_exclusion_unless_it_waits() {
    for restart_delay in [0, LEASE - 1] {
        let world = World {
            restart_delay,
            clocks: Some([0; SERVERS]),
            ..RIGHT
        };
        let what = format!("a server that votes {restart_delay} ticks after its start");
        found(world, FORGETS).expect_broken(&what, "");
    }
    let world = World {
        clocks: Some([0; SERVERS]),
        ..RIGHT
    };
    found(world, FORGETS).expect_kept("a server that waits for a lease");
}

/// What a server has forgotten is not the lock alone.
#[test]
fn a_server_that_forgets_its_counter_breaks_tokens_unless_they_are_clocks() {
    found(RIGHT, FORGETS).expect_broken("counters that begin at zero", STALE);
    let near = World {
        clocks: Some([0, 0, CLOCK]),
        ..RIGHT
    };
    found(near, FORGETS).expect_kept("clocks that differ by less than the delay");
    let far = World {
        clocks: Some([0, 0, CLOCK * 4]),
        ..RIGHT
    };
    found(far, FORGETS).expect_broken("clocks that differ by more than the delay", STALE);
}

#[test]
fn a_renewal_may_vote_on_a_server_that_has_forgotten() {
    let budget = Budget {
        renewals: 1,
        ..FORGETS
    };
    let world = World {
        clocks: Some([0; SERVERS]),
        votes_again: true,
        ..RIGHT
    };
    found(world, budget).expect_kept("a renewal votes after the delay");
    let early = World {
        votes_early: true,
        ..world
    };
    found(early, budget).expect_kept("a renewal votes before the delay is over");
}
