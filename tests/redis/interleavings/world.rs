//! Clients that do things in random order, by the real scripts, and what each of them believes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_tests::rng::Rng;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};

use super::judge::{HIGHEST_LIMIT, Judge, Verdict};
use super::scripts::Scripts;
use crate::dotnet::{DotNet, MARK};

/// The name of the lock.
const NAME: &str = "order";
/// Leases in ms. They end by themselves in the midst of a run.
const LEASES: [u64; 3] = [90, 150, 240];
/// How long everybody may take to be served when nobody comes any more.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ReadWrite,
    Permits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
    Permits { limit: u32, take: u32 },
}

impl Mode {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Read => "r".to_owned(),
            Self::Write => "w".to_owned(),
            Self::Permits { limit, take } => format!("{limit},{take}"),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) owner: String,
    mode: Mode,
    lease: u64,
    entry: String,
    asked_at: u64,
    look_at: u64,
    last_number: u64,
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

    fn request(self) -> Request {
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
    lease: u64,
    pub(crate) until: u64,
    kept: bool,
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
}

pub(crate) struct Client {
    is_dotnet: bool,
    channel: String,
    pub(crate) state: State,
}

/// A request of a client of ours.
struct Request {
    owner: String,
    mode: Mode,
    lease: u64,
    waits: bool,
    /// When it came, among all; 0 for one that has what it asks for, or may have had it.
    order: u64,
    is_sure: bool,
    /// The entry that it had in the queue.
    entry: Option<String>,
    entry_lasts_until: u64,
    gives_up: Option<(String, Mode)>,
}

pub(crate) struct World<'a> {
    scripts: &'a Scripts,
    kind: Kind,
    server: MultiplexedConnection,
    dotnet: DotNet,
    pushed: Arc<Mutex<Vec<String>>>,
    keys: Vec<String>,
    clients: Vec<Client>,
    rng: Rng,
    judge: Judge,
    numbered: u64,
    is_logged: bool,
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

    /// Shows what happens, for a seed that breaks something.
    fn log(&self, what: impl Fn() -> String) {
        if self.is_logged {
            println!("{}", what());
        }
    }

    fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        let answer = command.query_async(&mut self.server.clone()).await;
        answer.expect("the server answers")
    }

    /// Reads the server's clock in milliseconds.
    async fn now(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.ask(&["TIME"]).await;
        seconds * 1_000 + micros / 1_000
    }

    /// Has a client listen to a channel of its own.
    async fn listen(&mut self, client: usize) {
        let channel = format!("lk1:grants:{}", self.number());
        self.server.subscribe(&channel).await.expect("subscribed");
        self.clients[client].channel = channel;
    }

    async fn act(&mut self, client: usize) -> Verdict {
        let is_dotnet = self.clients[client].is_dotnet;
        match self.clients[client].state.clone() {
            State::Idle if is_dotnet => self.come_as_dotnet(client).await,
            State::Idle => {
                let lease = self.rng.one_of(&LEASES);
                let waits = self.rng.below(10) < 7;
                let request = self.request(lease, waits, None);
                self.enter(client, request).await
            }
            State::Polling { owner, lease } => self.poll(client, &owner, lease).await,
            State::Waiting(waiting) => self.wait(client, waiting).await,
            State::Holding(holding) if is_dotnet => self.hold_as_dotnet(client, holding).await,
            State::Holding(holding) => self.hold(client, holding).await,
        }
    }

    fn mode(&mut self) -> Mode {
        match self.kind {
            Kind::ReadWrite if self.rng.below(3) == 0 => Mode::Write,
            Kind::ReadWrite => Mode::Read,
            Kind::Permits => {
                let limit = self.rng.within(2..u64::from(HIGHEST_LIMIT) + 1) as u32;
                let take = self.rng.within(1..u64::from(limit) + 1) as u32;
                Mode::Permits { limit, take }
            }
        }
    }

    async fn wait(&mut self, client: usize, waiting: Waiting) -> Verdict {
        match self.rng.below(20) {
            0..8 => Ok(()),
            8..13 => self.ask_again(client).await,
            // Its request was not answered.
            13..15 => {
                let waiting = Waiting {
                    entry: String::new(),
                    ..waiting
                };
                self.clients[client].state = State::Waiting(waiting);
                self.ask_again(client).await
            }
            15..18 => {
                self.clients[client].state = State::Idle;
                let mode = waiting.mode.text();
                let args = [waiting.owner.as_str(), &mode, &waiting.entry];
                let count = 2 + usize::from(self.rng.below(2) == 0);
                self.script("CLEANUP", &args[..count]).await;
                self.settle(None).await
            }
            // It crashes, and the server sees that or does not.
            at => {
                self.clients[client].state = State::Idle;
                if at == 18 {
                    let channel = self.clients[client].channel.clone();
                    self.server.unsubscribe(&channel).await.expect("answered");
                }
                self.listen(client).await;
                Ok(())
            }
        }
    }

    async fn hold(&mut self, client: usize, holding: Holding) -> Verdict {
        let before = self.now().await;
        let is_over = holding.until <= before;
        let (owner, mode) = (holding.owner.clone(), holding.mode.text());
        if holding.kept {
            if is_over {
                self.clients[client].state = State::Idle;
            }
            return Ok(());
        }
        match self.rng.below(20) {
            0..9 => {
                self.clients[client].state = State::Idle;
                let answer = self.script("RELEASE", &[&owner, &mode]).await;
                let is_lost = answer != Value::Int(1);
                if is_lost && holding.until > self.now().await {
                    return Err(format!("{holding:?} was ended before its time"));
                }
                self.settle(None).await
            }
            9..13 if !is_over => {
                let renew = match holding.mode {
                    Mode::Read => "READ_RENEW",
                    Mode::Write => "RENEW",
                    Mode::Permits { .. } => "PERMITS_RENEW",
                };
                let lease = holding.lease.to_string();
                let args = [owner.as_str(), &lease, &mode];
                let answer = self.run(renew, &args).await;
                let after = self.now().await;
                let is_lost = answer != Value::Int(1);
                if is_lost && holding.until > after {
                    return Err(format!("{holding:?} was lost before its time"));
                }
                self.clients[client].state = match is_lost {
                    true => State::Idle,
                    false => State::Holding(Holding {
                        until: before + holding.lease,
                        ..holding
                    }),
                };
                self.settle(None).await
            }
            13..15 => {
                self.clients[client].state = State::Idle;
                let gives_up = Some((owner, holding.mode));
                let request = self.request(holding.lease, true, gives_up);
                self.enter(client, request).await
            }
            15 if holding.mode == Mode::Read && !is_over => {
                let shares = self.run("MAY_SHARE", &[]).await == Value::Int(1);
                let after = self.now().await;
                self.settle(None).await?;
                match shares {
                    true => self.judge.nobody_waits(&self.clients, after),
                    false => Ok(()),
                }
            }
            // The same request once more.
            16..18 if !is_over => {
                self.clients[client].state = State::Idle;
                let request = Request {
                    owner,
                    mode: holding.mode,
                    order: 0,
                    ..self.request(holding.lease, false, None)
                };
                self.enter(client, request).await?;
                let holds = matches!(self.clients[client].state, State::Holding(_));
                match holds || holding.until <= self.now().await {
                    true => Ok(()),
                    false => Err(format!("{holding:?} was refused what it has")),
                }
            }
            18 if holding.mode != Mode::Read && !is_over => {
                let left = self.rng.within(20..80);
                let later = match self.kind {
                    Kind::ReadWrite => "WRITE_RELEASE_LATER",
                    Kind::Permits => "PERMITS_RELEASE_LATER",
                };
                let kept = format!("{owner}:kept");
                let args = [owner.as_str(), &left.to_string(), &kept, &mode];
                if self.run(later, &args).await == Value::Int(1) {
                    self.clients[client].state = State::Holding(Holding {
                        until: before + left,
                        kept: true,
                        ..holding
                    });
                }
                self.settle(None).await
            }
            // It crashes.
            19 => {
                self.clients[client].state = State::Idle;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn come_as_dotnet(&mut self, client: usize) -> Verdict {
        let lease = self.rng.one_of(&LEASES);
        let owner = format!("net_{}", self.number());
        let before = self.now().await;
        let mode = match self.mode() {
            Mode::Permits { limit, .. } => Mode::Permits { limit, take: 1 },
            mode => mode,
        };
        let granted = match mode {
            Mode::Read => self.dotnet.read(&owner, lease).await,
            Mode::Write => self.dotnet.write(&owner, lease).await,
            Mode::Permits { limit, .. } => self.dotnet.permit(&owner, lease, limit).await,
        };
        if granted {
            let until = before + lease;
            return self
                .granted(client, owner, mode, lease, until, None, true)
                .await;
        }
        if mode == Mode::Write && self.rng.below(2) == 0 {
            self.dotnet.mark(&owner, lease).await;
            self.clients[client].state = State::Polling { owner, lease };
        }
        Ok(())
    }

    async fn poll(&mut self, client: usize, owner: &str, lease: u64) -> Verdict {
        match self.rng.below(10) {
            0..8 => self.poll_once(client, owner, lease).await,
            at => {
                if at == 8 {
                    self.dotnet.release_write(&format!("{owner}{MARK}")).await;
                }
                self.clients[client].state = State::Idle;
                Ok(())
            }
        }
    }

    async fn poll_once(&mut self, client: usize, owner: &str, lease: u64) -> Verdict {
        let before = self.now().await;
        if self.dotnet.write(owner, lease).await {
            let (owner, until) = (owner.to_owned(), before + lease);
            return self
                .granted(client, owner, Mode::Write, lease, until, None, true)
                .await;
        }
        self.dotnet.mark(owner, lease).await;
        Ok(())
    }

    async fn hold_as_dotnet(&mut self, client: usize, holding: Holding) -> Verdict {
        let at = self.rng.below(10);
        if at < 5 {
            return Ok(());
        }
        self.clients[client].state = State::Idle;
        if at < 9 {
            match holding.mode {
                Mode::Read => self.dotnet.release_read(&holding.owner).await,
                Mode::Write => self.dotnet.release_write(&holding.owner).await,
                Mode::Permits { .. } => self.dotnet.release_permit(&holding.owner).await,
            }
        }
        Ok(())
    }

    /// Runs a script that both kinds of lock have.
    async fn script(&self, name: &str, args: &[&str]) -> Value {
        let kind = match self.kind {
            Kind::ReadWrite => "READ_WRITE",
            Kind::Permits => "PERMITS",
        };
        self.run(&format!("{kind}_{name}"), args).await
    }

    async fn run(&self, name: &str, args: &[&str]) -> Value {
        let answer = self.scripts.run(&self.server, name, &self.keys, args).await;
        self.log(|| format!("{name} {args:?}: {answer:?}"));
        answer
    }

    fn request(&mut self, lease: u64, waits: bool, gives_up: Option<(String, Mode)>) -> Request {
        Request {
            owner: format!("lk1:host:1:{:032x}", self.number()),
            mode: self.mode(),
            lease,
            waits,
            order: self.number(),
            is_sure: true,
            entry: None,
            entry_lasts_until: u64::MAX,
            gives_up,
        }
    }

    async fn ask_again(&mut self, client: usize) -> Verdict {
        let State::Waiting(waiting) = self.clients[client].state.clone() else {
            return Ok(());
        };
        let request = waiting.request();
        self.enter(client, request).await
    }

    async fn enter(&mut self, client: usize, mut request: Request) -> Verdict {
        let channel = match request.waits {
            true => self.clients[client].channel.clone(),
            false => String::new(),
        };
        let (lease, mode) = (request.lease.to_string(), request.mode.text());
        let mut args = vec![request.owner.as_str(), &lease, "1", &channel, &mode];
        let old = request.gives_up.as_ref();
        let old = old.map(|(owner, mode)| (owner.as_str(), mode.text()));
        if let Some((owner, mode)) = &old {
            args.extend([owner, mode.as_str()]);
        }
        args.extend(request.entry.as_deref());
        let script = if old.is_some() { "PASS_ON" } else { "ACQUIRE" };
        let before = self.now().await;
        let answer = self.script(script, &args).await;
        if request.entry_lasts_until <= self.now().await {
            (request.order, request.is_sure) = (0, false);
        }
        let (left, place, holder, last_number, entry) = match answer {
            Value::BulkString(text) => {
                let first = String::from_utf8(text).unwrap().parse().unwrap();
                return self.settle(Some((client, request, before, first))).await;
            }
            Value::Array(parts) if parts.len() == 2 => {
                let (first, _): (u64, u32) = redis::from_redis_value(Value::Array(parts)).unwrap();
                return self.settle(Some((client, request, before, first))).await;
            }
            Value::Array(parts) if parts.len() == 3 => {
                self.clients[client].state = State::Idle;
                return self.settle(None).await;
            }
            answer => redis::from_redis_value::<(i64, u64, String, u64, String)>(answer).unwrap(),
        };
        if request.order == 0 {
            request.order = self.number();
        }
        let refresh = request.lease / 3;
        let look = match left {
            _ if place == 0 && !holder.starts_with("lk1:") => 25,
            0.. => left as u64 + 1 + 20 * place,
            _ => refresh,
        };
        self.clients[client].state = State::Waiting(Waiting {
            owner: request.owner,
            mode: request.mode,
            lease: request.lease,
            entry,
            asked_at: before,
            look_at: before + look.min(refresh),
            last_number,
            order: request.order,
            unheard: false,
            is_sure: request.is_sure,
        });
        self.settle(None).await
    }

    /// Those look for whom it is time.
    async fn look(&mut self) -> Verdict {
        let now = self.now().await;
        for client in 0..self.clients.len() {
            if matches!(&self.clients[client].state, State::Waiting(it) if it.look_at <= now) {
                self.ask_again(client).await?;
            }
        }
        Ok(())
    }

    /// Takes note of what was published in a step, and of the answer to it, if that is a grant.
    async fn settle(&mut self, answered: Option<(usize, Request, u64, u64)>) -> Verdict {
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
    async fn granted(
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

    async fn everybody_is_served(&mut self) -> Verdict {
        let start = tokio::time::Instant::now();
        loop {
            let mut waits = false;
            for client in 0..self.clients.len() {
                match self.clients[client].state.clone() {
                    State::Idle => {}
                    State::Waiting(_) => waits = true,
                    State::Polling { owner, lease } => {
                        waits = true;
                        self.poll_once(client, &owner, lease).await?;
                    }
                    State::Holding(holding) if self.clients[client].is_dotnet => {
                        self.hold_as_dotnet(client, holding).await?;
                    }
                    State::Holding(holding) => self.hold_until_released(client, holding).await?,
                }
            }
            if !waits {
                return Ok(());
            }
            if start.elapsed() > SERVED_WITHIN {
                return Err("somebody waits for ever".to_owned());
            }
            self.look().await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn hold_until_released(&mut self, client: usize, holding: Holding) -> Verdict {
        if !holding.kept {
            let mode = holding.mode.text();
            self.script("RELEASE", &[&holding.owner, &mode]).await;
        } else if holding.until > self.now().await {
            return Ok(());
        }
        self.clients[client].state = State::Idle;
        self.settle(None).await
    }

    async fn nothing_is_left(&mut self) -> Verdict {
        let start = tokio::time::Instant::now();
        let mode = match self.kind {
            Kind::ReadWrite => Mode::Write,
            Kind::Permits => Mode::Permits { limit: 2, take: 2 },
        };
        loop {
            // What crashed is dropped by whoever comes next.
            let owner = format!("lk1:host:1:{:032x}", self.number());
            let args = [owner.as_str(), "100", "1", "", &mode.text()];
            self.script("ACQUIRE", &args).await;
            self.script("RELEASE", &[&owner, &mode.text()]).await;
            let keys: Vec<String> = self.ask(&["KEYS", "*"]).await;
            let mut left = Vec::new();
            for key in keys.iter().filter(|key| *key != "lk1:fence") {
                let life: i64 = self.ask(&["PTTL", key]).await;
                left.push(format!("{key} for {life} ms"));
                if life == -1 {
                    return Err(format!("{key} lives for ever"));
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() > SERVED_WITHIN {
                return Err(format!("left: {left:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
