//! Taking back what a request may have done whose outcome is not known.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, RedisResult};

use super::connection::Connection;
use super::connection_manager::ConnectionManager;
use super::error::fault;
use super::keys::Keys;
use super::modes::{Claim, scripts};
use super::residue::Residue;
use crate::background;
use crate::clock::Timestamp;
use crate::future::select;
use crate::provider::Grant;
use crate::providers::kit::backoff::Pauses;
use crate::providers::kit::cleanup::{Attempt, repeat};
use crate::providers::kit::fault::Fault;

/// The pauses between one try and the next, doubled from one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Once the server has answered, it is asked again after this part of the time that has passed, if
/// that is more. After an outage there may be much to take back, for as long as a lease, which may
/// be a day.
const PART_OF_ELAPSED: u32 = 8;
const LONGEST_PAUSE_IN_THE_END: Duration = Duration::from_secs(60);

/// Releases the lock and leaves the queue for owners that nobody is any more.
pub(super) struct Cleanup {
    manager: Arc<ConnectionManager>,
    keys: Keys,
    claims: Vec<Claim>,
    /// When what is taken back ends by itself.
    until: Timestamp,
    lease: Duration,
    connection: Option<Arc<Connection>>,
    unconfirmed: Option<Unconfirmed>,
    /// The request to take back was refused, so that there is probably nothing.
    refused: bool,
    /// The entry of the first owner in the queue, or nothing.
    entry: String,
    /// Says to others, while this is under way, that the owners are nobody any more.
    residue: Option<Residue>,
}

/// Requests that were not answered on connections other than the last: they may still come to the
/// server. They are kept with the grant, since they are harmless until it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unconfirmed {
    /// When what they may do has ended by itself.
    pub(super) until: Timestamp,
}

impl Cleanup {
    pub(super) fn new(
        manager: &Arc<ConnectionManager>,
        keys: &Keys,
        claims: Vec<Claim>,
        lease: Duration,
    ) -> Self {
        Self {
            manager: Arc::clone(manager),
            keys: keys.clone(),
            residue: None,
            claims,
            until: Timestamp::now() + lease,
            lease,
            connection: None,
            unconfirmed: None,
            refused: false,
            entry: String::new(),
        }
    }

    /// Says that the request to take back was sent at that moment, on this connection.
    pub(super) fn after(mut self, sent_at: Timestamp, connection: Arc<Connection>) -> Self {
        self.until = sent_at + self.lease;
        self.connection = Some(connection);
        self
    }

    /// Says when what is taken back ends by itself.
    pub(super) fn until(mut self, until: Timestamp) -> Self {
        self.until = until;
        self
    }

    /// Says that others were sent before it, on other connections.
    pub(super) fn and(mut self, unconfirmed: Option<Unconfirmed>) -> Self {
        self.unconfirmed = unconfirmed;
        self
    }

    /// Says that the request to take back was answered with a refusal. What it did before that, if
    /// anything, is all there is.
    pub(super) fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    /// Says which entry in the queue the first owner has, or had.
    pub(super) fn of(mut self, entry: String) -> Self {
        self.entry = entry;
        self
    }

    /// Takes back what is left when a grant has ended that has unconfirmed requests.
    pub(super) fn of_grant(manager: &Arc<ConnectionManager>, grant: &Grant) {
        if let Some(unconfirmed) = grant.state::<Unconfirmed>() {
            let keys = manager.naming.keys(grant.name(), grant.mode().kind());
            let claims = vec![Claim::of(&manager.naming, grant)];
            let mut cleanup = Self::new(manager, &keys, claims, grant.lease());
            cleanup.until = unconfirmed.until;
            cleanup.in_the_background();
        }
    }

    /// Says to others from now on that the owners are nobody any more.
    pub(super) fn announced(mut self) -> Self {
        self.residue
            .get_or_insert_with(|| Residue::new(self.claims.iter().map(|claim| &claim.owner)));
        self
    }

    /// Takes it back where it was done. The server carries out what comes on one connection in
    /// order, so this is certain if it is answered and there are no unconfirmed requests elsewhere.
    pub(super) async fn on_the_same_connection(self) -> Result<(), Self> {
        let mut this = self.announced();
        let Some(connection) = this.connection.take() else {
            return Err(this);
        };
        match this.release_unconfirmed(&connection).await {
            // What it did may have reached another server, which is the primary now.
            Ok(()) if this.manager.has_left(&connection) => Err(this),
            Ok(()) => match this.unconfirmed {
                Some(unconfirmed) => {
                    this.until = unconfirmed.until;
                    Err(this)
                }
                None => Ok(()),
            },
            Err(error) => {
                this.manager.note(&connection, &error);
                match this.is_pointless_after(&error) {
                    true => Ok(()),
                    false => Err(this),
                }
            }
        }
    }

    /// Says whether to leave it at that. What is refused is refused the same next time; but where a
    /// request has done something, or may still come to do it, the lock is worth another try.
    fn is_pointless_after(&self, error: &RedisError) -> bool {
        self.refused && self.unconfirmed.is_none() && fault(error) == Fault::Refused
    }

    /// Takes it back without keeping anybody waiting: on the same connection, if that answers. Else
    /// the lost request may still be on its way, so it is taken back on others until a lease has
    /// passed. Until the server has answered once, a shutdown waits for it.
    pub(super) fn in_the_background(self) {
        let announced = self.announced();
        let cleaning = async move {
            let Err(cleanup) = announced.on_the_same_connection().await else {
                return;
            };
            let attempt = || async {
                match cleanup.elsewhere().await {
                    true => Attempt::Done,
                    false => Attempt::Failed,
                }
            };
            repeat(cleanup.pauses(), cleanup.until, attempt).await;
            background::spawn_beside(cleanup.watch());
        };
        // Without the background thread there is no connection either.
        let _ = background::run(cleaning);
    }

    /// Takes it back again and again, and as soon as a request that is late gets the lock.
    async fn watch(self) {
        let mut inbox = self.manager.notifications.subscribe(&self.claims[0].owner);
        let mut pauses = self.pauses();
        while !self.until.has_passed() {
            let pausing = tokio::time::sleep(pauses.advance().min(self.until.remaining()));
            select(inbox.recv(), pausing).await;
            self.elsewhere().await;
            let elapsed = self.lease.saturating_sub(self.until.remaining());
            pauses.at_least((elapsed / PART_OF_ELAPSED).min(LONGEST_PAUSE_IN_THE_END));
        }
    }

    fn pauses(&self) -> Pauses {
        let first = FIRST_PAUSE.min(self.lease / 8);
        Pauses::new(first, LONGEST_PAUSE.min(self.lease / 4))
    }

    /// Takes it back on the connection in use, and says whether the server answered.
    async fn elsewhere(&self) -> bool {
        let Ok(connection) = self.manager.connection().await else {
            return false;
        };
        match self.release_unconfirmed(&connection).await {
            Ok(()) => true,
            // A refusal is an answer: nobody is to wait for a better one.
            Err(error) => self.manager.note(&connection, &error) == Fault::Refused,
        }
    }

    async fn release_unconfirmed(&self, connection: &Connection) -> RedisResult<()> {
        let keys = self.manager.naming.of_script(&self.keys);
        let mut entry = Some(self.entry.as_str()).filter(|entry| !entry.is_empty());
        let script = scripts(self.keys.kind()).cleanup;
        for claim in &self.claims {
            let mut args = vec![claim.owner.as_str()];
            args.extend(Some(&*claim.mode).filter(|mode| !mode.is_empty()));
            args.extend(entry.take());
            let keys = keys.as_slice();
            connection.run_by_text(script, keys, &args).await?;
        }
        Ok(())
    }
}
