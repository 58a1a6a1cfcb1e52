//! What the readers of ours do that may become the writer.

use redis::Value;

use super::judge::Verdict;
use super::world::{Holding, Mode, State, World};

/// A reader that waits to become the writer.
#[derive(Debug, Clone)]
pub(crate) struct Upgrading {
    pub(crate) reader: Holding,
    pub(crate) writer: String,
    number: u64,
    waits: bool,
    pub(crate) asked_at: u64,
    pub(crate) look_at: u64,
}

impl Upgrading {
    /// Tells whether it is sure to hold everybody back at this moment.
    pub(crate) fn holds_back(&self, now: u64) -> bool {
        self.waits && self.asked_at + self.reader.lease > now && self.reader.until > now
    }
}

impl World<'_> {
    pub(super) async fn begin_upgrade(&mut self, client: usize, reader: Holding) -> Verdict {
        let upgrading = Upgrading {
            reader,
            writer: format!("lk1:host:1:{:032x}", self.number()),
            number: self.number(),
            waits: self.rng.below(4) > 0,
            asked_at: 0,
            look_at: u64::MAX,
        };
        self.ask_to_upgrade(client, upgrading, false).await
    }

    /// Asks, and may not hear the answer.
    pub(super) async fn ask_to_upgrade(
        &mut self,
        client: usize,
        mut upgrading: Upgrading,
        unheard: bool,
    ) -> Verdict {
        let before = self.now().await;
        let answer = self.request_upgrade(client, &upgrading).await;
        let now = self.now().await;
        let reader = upgrading.reader.clone();
        let parts = match answer {
            Value::Int(0) if reader.until > now => {
                return Err(format!("{reader:?} was lost before its time"));
            }
            Value::Int(0) => {
                self.clients[client].state = State::Idle;
                return self.settle(None).await;
            }
            Value::Array(parts) => parts,
            answer => return Err(format!("an upgrade is answered {answer:?}")),
        };
        let (lease, mode) = (reader.lease, Mode::Write);
        match parts.len() {
            2 if unheard => {
                // It is the writer, and does not know.
                upgrading.look_at = u64::MAX;
                self.clients[client].state = State::Upgrading(upgrading);
                self.settle(None).await
            }
            2 => {
                let (first, _): (u64, u32) = redis::from_redis_value(Value::Array(parts)).unwrap();
                let until = before + lease;
                let owner = upgrading.writer;
                self.granted(client, owner, mode, lease, until, Some(first), true)
                    .await?;
                self.settle(None).await
            }
            3 => {
                self.clients[client].state = State::Holding(reader);
                self.settle(None).await
            }
            _ => {
                let (left, _, holder, ..): (i64, u64, String, u64, String) =
                    redis::from_redis_value(Value::Array(parts)).unwrap();
                let refresh = lease / 3;
                let look = match left {
                    _ if !holder.starts_with("lk1:") => 25,
                    0.. => left as u64 + 1,
                    _ => refresh,
                };
                upgrading.asked_at = before;
                upgrading.look_at = before + look.min(refresh);
                self.clients[client].state = State::Upgrading(upgrading);
                self.settle(None).await
            }
        }
    }

    async fn request_upgrade(&mut self, client: usize, upgrading: &Upgrading) -> Value {
        let channel = match upgrading.waits {
            true => self.clients[client].channel.clone(),
            false => String::new(),
        };
        let (lease, number) = (
            upgrading.reader.lease.to_string(),
            upgrading.number.to_string(),
        );
        let args = [
            upgrading.writer.as_str(),
            &lease,
            "1",
            &channel,
            &upgrading.reader.owner,
            &number,
        ];
        self.run("UPGRADE", &args).await
    }

    pub(super) async fn wait_to_upgrade(&mut self, client: usize, waits: Upgrading) -> Verdict {
        match self.rng.below(20) {
            0..6 => Ok(()),
            6..10 => self.ask_to_upgrade(client, waits, false).await,
            10..12 => self.ask_to_upgrade(client, waits, true).await,
            12..16 => self.withdraw(client, waits).await,
            16..19 => {
                let reader = waits.reader.clone();
                let before = self.now().await;
                let lease = reader.lease.to_string();
                let args = [reader.owner.as_str(), &lease, "u"];
                if self.run("READ_RENEW", &args).await == Value::Int(1) {
                    let until = before + reader.lease;
                    let reader = Holding { until, ..reader };
                    self.clients[client].state = State::Upgrading(Upgrading { reader, ..waits });
                }
                // Else it may be the writer, and has not heard of that.
                self.settle(None).await
            }
            // It crashes.
            _ => {
                self.clients[client].state = State::Idle;
                self.listen(client).await;
                Ok(())
            }
        }
    }

    /// Takes the upgrade back: it is a reader as before, whatever had been done.
    pub(super) async fn withdraw(&mut self, client: usize, upgrading: Upgrading) -> Verdict {
        let Upgrading {
            reader,
            writer,
            number,
            ..
        } = upgrading.clone();
        let (lease, number) = (reader.lease.to_string(), number.to_string());
        let args = [writer.as_str(), &reader.owner, &number, &lease];
        self.run("UPGRADE_WITHDRAW", &args).await;
        self.clients[client].state = match reader.until > self.now().await {
            true => State::Holding(reader.clone()),
            false => State::Idle,
        };
        self.settle(None).await?;
        // A request of it comes late.
        if self.rng.below(3) == 0 {
            let answer = self.request_upgrade(client, &upgrading).await;
            self.settle(None).await?;
            if answer != Value::Int(0) {
                return Err(format!("{upgrading:?} is begun again: {answer:?}"));
            }
        }
        // It is still a reader that may upgrade, and the server says so.
        let args = [reader.owner.as_str(), &lease, "u"];
        let is_reader = self.run("READ_RENEW", &args).await == Value::Int(1);
        if !is_reader && reader.until > self.now().await {
            return Err(format!("{reader:?} was ended by an upgrade that failed"));
        }
        self.settle(None).await
    }
}
