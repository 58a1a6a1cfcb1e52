//! Clients that do things in random order, by the real scripts, and what each of them believes.

use std::sync::{Arc, Mutex};

use lock_tests::rng::Rng;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};

use super::judge::{HIGHEST_LIMIT, Judge, Verdict};
use super::scripts::Scripts;
use super::upgrades::Upgrading;
use crate::dotnet::DotNet;

/// The name of the lock.
const NAME: &str = "order";
/// Leases in ms. They end by themselves in the midst of a run.
pub(super) const LEASES: [u64; 3] = [90, 150, 240];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ReadWrite,
    Permits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Upgradeable,
    Write,
    Permits { limit: u32, take: u32 },
}

impl Mode {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Read => "r".to_owned(),
            Self::Upgradeable => "u".to_owned(),
            Self::Write => "w".to_owned(),
            Self::Permits { limit, take } => format!("{limit},{take}"),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) owner: String,
    pub(super) mode: Mode,
    pub(super) lease: u64,
    pub(super) entry: String,
    pub(super) asked_at: u64,
    pub(super) look_at: u64,
    pub(super) last_number: u64,
    /// When it came, among all.
    pub(crate) order: u64,
    /// It was granted the lock, and has not heard of it.
    pub(crate) unheard: bool,
    /// Whether its order is known: an entry that expires may lose its place, or keep it.
    pub(crate) is_sure: bool,
}

impl Waiting {
    pub(crate) fn lasts_until(&self) -> u64 {
        self.asked_at + self.lease
    }

    pub(super) fn request(self) -> Request {
        Request {
            entry_lasts_until: self.lasts_until(),
            owner: self.owner,
            mode: self.mode,
            lease: self.lease,
            waits: true,
            order: if self.is_sure && !self.unheard {
                self.order
            } else {
                0
            },
            is_sure: self.is_sure || self.unheard,
            entry: Some(self.entry),
            gives_up: None,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) owner: String,
    pub(crate) mode: Mode,
    pub(super) lease: u64,
    pub(crate) until: u64,
    pub(super) kept: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum State {
    Idle,
    Waiting(Waiting),
    /// A writer of the .NET library that waits.
    Polling {
        owner: String,
        lease: u64,
    },
    Holding(Holding),
    Upgrading(Upgrading),
}

pub(crate) struct Client {
    pub(super) is_dotnet: bool,
    pub(super) channel: String,
    pub(crate) state: State,
}

/// A request of a client of ours.
pub(super) struct Request {
    pub(super) owner: String,
    pub(super) mode: Mode,
    pub(super) lease: u64,
    pub(super) waits: bool,
    /// When it came, among all; 0 for one that has what it asks for, or may have had it.
    pub(super) order: u64,
    pub(super) is_sure: bool,
    /// The entry that it had in the queue.
    pub(super) entry: Option<String>,
    pub(super) entry_lasts_until: u64,
    pub(super) gives_up: Option<(String, Mode)>,
}

pub(crate) struct World<'a> {
    pub(super) scripts: &'a Scripts,
    pub(super) kind: Kind,
    pub(super) server: MultiplexedConnection,
    pub(super) dotnet: DotNet,
    pub(super) pushed: Arc<Mutex<Vec<String>>>,
    pub(super) keys: Vec<String>,
    pub(super) clients: Vec<Client>,
    pub(super) rng: Rng,
    pub(super) judge: Judge,
    pub(super) numbered: u64,
    pub(super) is_logged: bool,
}

impl<'a> World<'a> {
    pub(crate) async fn new(
        scripts: &'a Scripts,
        kind: Kind,
        url: &str,
        dotnet: usize,
        seed: u64,
    ) -> Self {
        let pushed = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&pushed);
        let hear = move |push: PushInfo| -> Result<(), std::convert::Infallible> {
            if let (PushKind::Message, Some(Value::BulkString(text))) =
                (push.kind, push.data.get(1))
            {
                let text = String::from_utf8(text.clone()).expect("a message of ours");
                heard.lock().unwrap().push(text);
            }
            Ok(())
        };
        let client = redis::Client::open(format!("{url}?protocol=resp3")).expect("a URL");
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_push_sender(hear);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let server = connecting.await.expect("the server answers");
        let keys: &[&str] = match kind {
            Kind::ReadWrite => &[
                "order.writer",
                "{order}:lk1:rw",
                "lk1:fence",
                "order.readers",
                "{order}:lk1:readers",
                "{order}:lk1:upgrader",
            ],
            Kind::Permits => &["order", "{order}:lk1:permits"],
        };
        let mut world = Self {
            scripts,
            kind,
            dotnet: DotNet::new(server.clone(), NAME),
            server,
            pushed,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            clients: Vec::new(),
            rng: Rng::new(seed),
            judge: Judge::default(),
            numbered: 0,
            is_logged: std::env::var_os("LOCK_INTERLEAVINGS_LOG").is_some(),
        };
        for number in 0..7 {
            world.clients.push(Client {
                is_dotnet: number < dotnet,
                channel: String::new(),
                state: State::Idle,
            });
            world.listen(number).await;
        }
        world
    }

    /// Does so many things, then lets everybody come to an end.
    pub(crate) async fn play(mut self, steps: u32) -> Verdict {
        for _ in 0..steps {
            if self.rng.below(4) == 0 {
                tokio::time::sleep(self.rng.millis(1..25)).await;
            }
            let client = self.rng.below(self.clients.len());
            self.act(client).await?;
            self.look().await?;
        }
        self.everybody_is_served().await?;
        self.nothing_is_left().await
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    pub(super) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        let answer = command.query_async(&mut self.server.clone()).await;
        answer.expect("the server answers")
    }

    /// Reads the server's clock in milliseconds.
    pub(super) async fn now(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.ask(&["TIME"]).await;
        seconds * 1_000 + micros / 1_000
    }

    /// Has a client listen to a channel of its own.
    pub(super) async fn listen(&mut self, client: usize) {
        let channel = format!("lk1:grants:{}", self.number());
        self.server.subscribe(&channel).await.expect("subscribed");
        self.clients[client].channel = channel;
    }

    pub(super) fn mode(&mut self) -> Mode {
        match self.kind {
            Kind::ReadWrite => match self.rng.below(6) {
                0..2 => Mode::Write,
                2 => Mode::Upgradeable,
                _ => Mode::Read,
            },
            Kind::Permits => {
                let limit = self.rng.within(2..u64::from(HIGHEST_LIMIT) + 1) as u32;
                let take = self.rng.within(1..u64::from(limit) + 1) as u32;
                Mode::Permits { limit, take }
            }
        }
    }

    /// Shows what happens, for a seed that breaks something.
    pub(super) fn log(&self, what: impl Fn() -> String) {
        if self.is_logged {
            println!("{}", what());
        }
    }

    /// Runs a script that both kinds of lock have.
    pub(super) async fn script(&self, name: &str, args: &[&str]) -> Value {
        let kind = match self.kind {
            Kind::ReadWrite => "READ_WRITE",
            Kind::Permits => "PERMITS",
        };
        self.run(&format!("{kind}_{name}"), args).await
    }

    pub(super) async fn run(&self, name: &str, args: &[&str]) -> Value {
        let answer = self.scripts.run(&self.server, name, &self.keys, args).await;
        self.log(|| format!("{name} {args:?}: {answer:?}"));
        answer
    }

    /// Takes note of what was published in a step, and of the answer to it, if that is a grant.
    pub(super) async fn settle(&mut self, answered: Option<(usize, Request, u64, u64)>) -> Verdict {
        let () = self.ask(&["PING"]).await;
        let now = self.now().await;
        let pushed = std::mem::take(&mut *self.pushed.lock().unwrap());
        let mut grants = Vec::new();
        for message in pushed {
            self.log(|| format!("published: {message}"));
            let mut parts = message.split('|');
            let owner = parts.next().unwrap();
            let first: u64 = parts.next().unwrap().parse().unwrap();
            let is_grant = parts.next() != Some("0");
            let upgrades = self
                .clients
                .iter_mut()
                .find_map(|client| match &mut client.state {
                    State::Upgrading(upgrading) if upgrading.writer == owner => Some(upgrading),
                    _ => None,
                });
            if let Some(upgrading) = upgrades {
                upgrading.look_at = 0;
                continue;
            }
            let found = self.clients.iter().position(
                |client| matches!(&client.state, State::Waiting(waiting) if waiting.owner == owner),
            );
            let Some(client) = found else { continue };
            let State::Waiting(waiting) = &mut self.clients[client].state else {
                continue;
            };
            if !is_grant {
                waiting.look_at = 0;
                continue;
            }
            let is_lost = self.rng.below(10) == 0;
            let in_time = waiting.asked_at + waiting.lease / 2 > now;
            if is_lost || !in_time || first <= waiting.last_number {
                waiting.unheard = true;
                continue;
            }
            let asked_at = waiting.asked_at;
            grants.push((client, waiting.clone().request(), asked_at, first));
        }
        grants.extend(answered);
        // The order of the queue, in which they were made.
        grants.sort_by_key(|(_, request, ..)| request.order);
        let mut orders = Vec::new();
        for (client, request, asked_at, first) in grants {
            let (until, is_new) = (asked_at + request.lease, request.order > 0);
            orders.push(request.order);
            let Request {
                owner, mode, lease, ..
            } = request;
            self.granted(client, owner, mode, lease, until, Some(first), is_new)
                .await?;
        }
        self.judge.in_order(&self.clients, &orders, now)
    }

    #[expect(clippy::too_many_arguments, reason = "what a grant is")]
    pub(super) async fn granted(
        &mut self,
        client: usize,
        owner: String,
        mode: Mode,
        lease: u64,
        until: u64,
        token: Option<u64>,
        is_new: bool,
    ) -> Verdict {
        let now = self.now().await;
        let holding = Holding {
            owner,
            mode,
            lease,
            until,
            kept: false,
        };
        self.clients[client].state = State::Idle;
        self.judge
            .grant(&self.clients, &holding, token, is_new, now)?;
        self.clients[client].state = State::Holding(holding);
        Ok(())
    }
}
