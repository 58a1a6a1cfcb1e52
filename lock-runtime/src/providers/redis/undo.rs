//! Taking back what a request may have done whose outcome is not known.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;

use super::connection::Connection;
use super::error::fault;
use super::keys::Keys;
use super::link::Link;
use super::script::LEAVE;
use crate::clock::Timestamp;

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Releases the lock and leaves the queue for owners that nobody is any more.
pub(super) struct Undo {
    link: Arc<Link>,
    keys: Keys,
    owners: Vec<String>,
    /// When what is undone ends by itself.
    until: Timestamp,
    lease: Duration,
    connection: Option<Arc<Connection>>,
}

impl Undo {
    pub(super) fn new(link: &Arc<Link>, keys: &Keys, owners: Vec<String>, lease: Duration) -> Self {
        Self {
            link: Arc::clone(link),
            keys: keys.clone(),
            owners,
            until: Timestamp::now() + lease,
            lease,
            connection: None,
        }
    }

    /// The request to undo was sent at that moment, on this connection.
    pub(super) fn after(mut self, sent_at: Timestamp, connection: Arc<Connection>) -> Self {
        self.until = sent_at + self.lease;
        self.connection = Some(connection);
        self
    }

    /// Undoes it where it was done: the server carries out what comes on one connection in order,
    /// so this is certain if it is answered.
    pub(super) async fn on_the_same_connection(mut self) -> Result<(), Self> {
        let Some(connection) = self.connection.take() else {
            return Err(self);
        };
        match self.leave(&connection).await {
            Ok(()) => Ok(()),
            Err(error) => {
                if fault(&error).is_the_connections() {
                    self.link.retire(&connection);
                }
                Err(self)
            }
        }
    }

    /// Undoes it without keeping anybody waiting: on the same connection; or else, since the lost
    /// request may still be on its way, on others until a lease has passed.
    pub(super) fn in_the_background(self) {
        tokio::spawn(async move {
            if let Err(undo) = self.on_the_same_connection().await {
                undo.repeatedly().await;
            }
        });
    }

    async fn repeatedly(self) {
        let mut pause = FIRST_PAUSE.min(self.lease / 8);
        loop {
            if let Ok(connection) = self.link.connection().await
                && let Err(error) = self.leave(&connection).await
                && fault(&error).is_the_connections()
            {
                self.link.retire(&connection);
            }
            let remaining = self.until.remaining();
            if remaining.is_zero() {
                return;
            }
            tokio::time::sleep(pause.min(remaining)).await;
            pause = (pause * 2).min(self.lease / 4);
        }
    }

    async fn leave(&self, connection: &Connection) -> RedisResult<()> {
        let keys = [
            self.keys.lock.as_str(),
            &self.keys.waiters,
            &self.link.naming.fence,
        ];
        for owner in &self.owners {
            connection.run_by_text(&LEAVE, &keys, &[owner]).await?;
        }
        Ok(())
    }
}
