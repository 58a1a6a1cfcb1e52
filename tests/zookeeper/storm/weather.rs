//! What fails, when, and for how long.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use lock_tests::crew::Crew;
use lock_tests::proxy::{Fault, Flow};
use lock_tests::{Seeded, ZooKeeperServer};

/// Between one fault and the next.
const PAUSE: Range<u64> = 20..250;

pub(super) struct Weather {
    server: ZooKeeperServer,
    /// How often each fault came.
    pub(super) struck: BTreeMap<&'static str, u64>,
    seeded: Seeded,
    /// What passes by itself, when, and whom it concerns.
    passing: Vec<(Instant, Passing, usize)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Passing {
    Network,
    Frozen,
}

#[derive(Clone, Copy)]
enum Blow {
    Network,
    Reset,
    Freeze,
    Kill,
    FreezeServer,
    RestartServer,
}

/// Those that hit one process only come more often than those that stop all. Nobody closes a
/// session or deletes a node of others: the server lets the next one in before the holder is told.
const BLOWS: [Blow; 15] = [
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Reset,
    Blow::Reset,
    Blow::Reset,
    Blow::Freeze,
    Blow::Freeze,
    Blow::Kill,
    Blow::FreezeServer,
    Blow::FreezeServer,
    Blow::RestartServer,
];

impl Weather {
    pub(super) fn over(server: ZooKeeperServer, seeded: Seeded) -> Self {
        Self {
            server,
            struck: BTreeMap::new(),
            seeded,
            passing: Vec::new(),
        }
    }

    /// One more fault, and the end of those whose time is over.
    pub(super) async fn strike(&mut self, crew: &mut Crew) {
        tokio::time::sleep(self.seeded.millis(PAUSE)).await;
        self.pass(crew, Instant::now());
        let place = self.seeded.within(0..crew.sailors.len() as u64) as usize;
        match self.seeded.one_of(&BLOWS) {
            Blow::Network => self.network(crew, place),
            Blow::Reset => {
                crew.sailors[place].proxy.reset();
                self.count("connections reset", 1);
            }
            Blow::Freeze => self.freeze(crew, place),
            Blow::Kill => {
                self.passing.retain(|&(_, _, whom)| whom != place);
                crew.replace(place).await;
                self.count("processes killed", 1);
            }
            Blow::FreezeServer => {
                self.server.process().freeze();
                tokio::time::sleep(self.seeded.millis(50..3_000)).await;
                self.server.process().thaw();
                self.count("server frozen", 1);
            }
            Blow::RestartServer => {
                tokio::task::block_in_place(|| {
                    self.server.kill();
                    self.server.start_again();
                });
                self.count("server restarted", 1);
            }
        }
    }

    /// Everything works again.
    pub(super) async fn clear(&mut self, crew: &mut Crew) {
        let latest = self.passing.iter().map(|&(at, ..)| at).max();
        if let Some(latest) = latest {
            self.pass(crew, latest);
        }
        let swallowed = crew.sailors.iter().map(|sailor| sailor.proxy.swallowed());
        let swallowed = swallowed.sum();
        self.count("bytes swallowed", swallowed);
    }

    fn pass(&mut self, crew: &mut Crew, now: Instant) {
        self.passing.retain(|&(at, what, place)| {
            let over = at <= now;
            if over {
                match what {
                    Passing::Network => crew.sailors[place].proxy.heal(),
                    Passing::Frozen => crew.sailors[place].probe.thaw(),
                }
            }
            !over
        });
    }

    fn network(&mut self, crew: &mut Crew, place: usize) {
        let delay = self.seeded.millis(5..400);
        let flow = self.seeded.one_of(&[
            Flow::Delay(delay),
            Flow::Delay(delay / 10),
            Flow::Swallow,
            Flow::Hold,
            Flow::Cut,
        ]);
        let change: fn(&mut Fault, Flow) = self.seeded.one_of(&[
            (|fault, flow| fault.to_server = flow) as fn(&mut Fault, Flow),
            |fault, flow| fault.to_client = flow,
            |fault, flow| {
                fault.to_server = flow;
                fault.to_client = flow;
            },
        ]);
        let refuse = self.seeded.within(0..4) == 0;
        crew.sailors[place].proxy.set(|fault| {
            change(fault, flow);
            fault.refuse |= refuse;
        });
        let name = match flow {
            Flow::Delay(_) => "network slow",
            Flow::Swallow => "network swallows",
            Flow::Hold => "network stands still",
            Flow::Cut | Flow::Pass => "network cut",
        };
        self.count(name, 1);
        self.later(20..4_000, Passing::Network, place);
    }

    fn freeze(&mut self, crew: &mut Crew, place: usize) {
        let frozen = |&(_, what, whom): &_| what == Passing::Frozen && whom == place;
        if self.passing.iter().any(frozen) {
            return;
        }
        crew.sailors[place].probe.freeze();
        self.count("processes frozen", 1);
        self.later(20..5_000, Passing::Frozen, place);
    }

    fn count(&mut self, what: &'static str, times: u64) {
        *self.struck.entry(what).or_default() += times;
    }

    fn later(&mut self, span: Range<u64>, what: Passing, place: usize) {
        let at = Instant::now() + self.seeded.millis(span);
        self.passing.push((at, what, place));
    }
}
