//! What the clients of ours do.

use redis::Value;

use super::judge::Verdict;
use super::world::{Holding, Kind, LEASES, Mode, Request, State, Waiting, World};

impl World<'_> {
    pub(super) async fn act(&mut self, client: usize) -> Verdict {
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
            State::Upgrading(upgrading) => self.wait_to_upgrade(client, upgrading).await,
        }
    }

    pub(super) async fn wait(&mut self, client: usize, waiting: Waiting) -> Verdict {
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

    pub(super) async fn hold(&mut self, client: usize, holding: Holding) -> Verdict {
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
                    Mode::Read | Mode::Upgradeable => "READ_RENEW",
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
            13..15 if holding.mode != Mode::Upgradeable || is_over => {
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
            9..16 if holding.mode == Mode::Upgradeable && !is_over => {
                self.begin_upgrade(client, holding).await
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
            18 if !matches!(holding.mode, Mode::Read | Mode::Upgradeable) && !is_over => {
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

    pub(super) fn request(
        &mut self,
        lease: u64,
        waits: bool,
        gives_up: Option<(String, Mode)>,
    ) -> Request {
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

    pub(super) async fn ask_again(&mut self, client: usize) -> Verdict {
        let State::Waiting(waiting) = self.clients[client].state.clone() else {
            return Ok(());
        };
        let request = waiting.request();
        self.enter(client, request).await
    }

    pub(super) async fn enter(&mut self, client: usize, mut request: Request) -> Verdict {
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
    pub(super) async fn look(&mut self) -> Verdict {
        let now = self.now().await;
        for client in 0..self.clients.len() {
            if matches!(&self.clients[client].state, State::Waiting(it) if it.look_at <= now) {
                self.ask_again(client).await?;
            }
            if let State::Upgrading(upgrading) = &self.clients[client].state
                && upgrading.look_at <= now
            {
                let upgrading = upgrading.clone();
                self.ask_to_upgrade(client, upgrading, false).await?;
            }
        }
        Ok(())
    }
}
