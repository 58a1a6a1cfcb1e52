//! Taking back what a request may have done whose outcome is not known.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, RedisResult};

use super::connection::Connection;
use super::error::{Fault, fault};
use super::keys::Keys;
use super::link::Link;
use super::residue::Residue;
use super::script::LEAVE;
use crate::clock::Timestamp;
use crate::keeper;
use crate::provider::Grant;
use crate::race::first_of;

/// Pauses between one try and the next, doubled from one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Once the server has answered, it is asked again after this part of the time that has passed, if
/// that is more: after an outage there may be much to undo, for as long as a lease, which may be a day.
const PART_OF_ELAPSED: u32 = 8;
const LONGEST_PAUSE_IN_THE_END: Duration = Duration::from_secs(60);

/// Releases the lock and leaves the queue for owners that nobody is any more.
pub(super) struct Undo {
    link: Arc<Link>,
    keys: Keys,
    owners: Vec<String>,
    /// When what is undone ends by itself.
    until: Timestamp,
    lease: Duration,
    connection: Option<Arc<Connection>>,
    strays: Option<Strays>,
    /// The request to undo was refused, so that there is probably nothing.
    refused: bool,
    /// That of the first owner in the queue, or nothing.
    entry: String,
    /// While it is undone.
    residue: Option<Residue>,
}

/// Requests that were not answered on connections other than the last: they may still come to the
/// server. Kept with the grant, since they are harmless until it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strays {
    /// When what they may do has ended by itself.
    pub(super) until: Timestamp,
}

impl Undo {
    pub(super) fn new(link: &Arc<Link>, keys: &Keys, owners: Vec<String>, lease: Duration) -> Self {
        Self {
            link: Arc::clone(link),
            keys: keys.clone(),
            residue: None,
            owners,
            until: Timestamp::now() + lease,
            lease,
            connection: None,
            strays: None,
            refused: false,
            entry: String::new(),
        }
    }

    /// The request to undo was sent at that moment, on this connection.
    pub(super) fn after(mut self, sent_at: Timestamp, connection: Arc<Connection>) -> Self {
        self.until = sent_at + self.lease;
        self.connection = Some(connection);
        self
    }

    /// And so were others before it.
    pub(super) fn and(mut self, strays: Option<Strays>) -> Self {
        self.strays = strays;
        self
    }

    /// The request to undo was answered with a refusal; what it did before that, if anything, is all
    /// there is.
    pub(super) fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    /// The first owner has, or had, this entry in the queue.
    pub(super) fn of(mut self, entry: String) -> Self {
        self.entry = entry;
        self
    }

    /// What is left to undo when a grant has ended of which there are strays.
    pub(super) fn strays_of(link: &Arc<Link>, grant: &Grant) {
        if let Some(strays) = grant.state::<Strays>() {
            let keys = link.naming.keys(grant.name());
            let owners = vec![link.naming.owner(grant.owner())];
            let mut undo = Self::new(link, &keys, owners, grant.lease());
            undo.until = strays.until;
            undo.in_the_background();
        }
    }

    /// Undoes it where it was done: the server carries out what comes on one connection in order,
    /// so this is certain if it is answered and there are no strays.
    pub(super) async fn on_the_same_connection(mut self) -> Result<(), Self> {
        self.residue
            .get_or_insert_with(|| Residue::new(&self.owners));
        let Some(connection) = self.connection.take() else {
            return Err(self);
        };
        match self.leave(&connection).await {
            Ok(()) => match self.strays {
                Some(strays) => {
                    self.until = strays.until;
                    Err(self)
                }
                None => Ok(()),
            },
            Err(error) => {
                if fault(&error).is_the_connections() {
                    self.link.retire(&connection);
                }
                if self.is_pointless_after(&error) {
                    return Ok(());
                }
                Err(self)
            }
        }
    }

    /// Whether to leave it at that. What is refused is refused the same next time; but where a
    /// request has done something, or may still come to do it, the lock is worth another try.
    fn is_pointless_after(&self, error: &RedisError) -> bool {
        self.refused && self.strays.is_none() && fault(error) == Fault::Refused
    }

    /// Undoes it without keeping anybody waiting: on the same connection; or else, since the lost
    /// request may still be on its way, on others until a lease has passed. Until the server has
    /// answered once, a shutdown waits for it.
    pub(super) fn in_the_background(mut self) {
        self.residue
            .get_or_insert_with(|| Residue::new(&self.owners));
        let undoing = async move {
            let Err(undo) = self.on_the_same_connection().await else {
                return;
            };
            let mut pause = FIRST_PAUSE.min(undo.lease / 8);
            while !undo.elsewhere().await && !undo.until.has_passed() {
                tokio::time::sleep(pause.min(undo.until.remaining())).await;
                pause = undo.longer(pause);
            }
            tokio::spawn(undo.watch());
        };
        // Without the keeper there is no connection either.
        let _ = keeper::run(undoing);
    }

    /// Undoes it again and again, and as soon as a request that is late gets the lock.
    async fn watch(self) {
        let granted = self.link.grants.expect(&self.owners[0]);
        let mut pause = FIRST_PAUSE.min(self.lease / 8);
        while !self.until.has_passed() {
            let pausing = tokio::time::sleep(pause.min(self.until.remaining()));
            first_of(granted.arrives(), pausing).await;
            self.elsewhere().await;
            let elapsed = self.lease.saturating_sub(self.until.remaining());
            let part = (elapsed / PART_OF_ELAPSED).min(LONGEST_PAUSE_IN_THE_END);
            pause = self.longer(pause).max(part);
        }
    }

    fn longer(&self, pause: Duration) -> Duration {
        (pause * 2).min(self.lease / 4).min(LONGEST_PAUSE)
    }

    /// Whether the server answered.
    async fn elsewhere(&self) -> bool {
        let Ok(connection) = self.link.connection().await else {
            return false;
        };
        let Err(error) = self.leave(&connection).await else {
            return true;
        };
        let fault = fault(&error);
        if fault.is_the_connections() {
            self.link.retire(&connection);
        }
        // A refusal is an answer: nobody is to wait for a better one.
        fault == Fault::Refused
    }

    async fn leave(&self, connection: &Connection) -> RedisResult<()> {
        let keys = [
            self.keys.lock.as_str(),
            &self.keys.waiters,
            &self.link.naming.fence,
        ];
        let mut entry = Some(self.entry.as_str()).filter(|entry| !entry.is_empty());
        for owner in &self.owners {
            let args = [owner.as_str(), entry.unwrap_or_default()];
            let args = &args[..1 + usize::from(entry.is_some())];
            connection.run_by_text(&LEAVE, &keys, args).await?;
            entry = None;
        }
        Ok(())
    }
}
