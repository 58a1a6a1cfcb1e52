//! Releasing.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisResult, Value};

use super::cleanup::Cleanup;
use super::connection::{Connection, Releasing};
use super::connection_manager::ConnectionManager;
use super::error::{is_wrong_type, lock_error};
use super::keys::{Keys, Naming};
use super::numbers::milliseconds;
use super::script::{RELEASE, RELEASE_LATER};
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::Grant;
use crate::providers::kit::error::lost;
use crate::providers::kit::fault::Fault;
use crate::sending::unsent;

const GIVEN_UP: &str = "the server had given the lock up before its holder did";

/// The shortest life that a key can be given.
const SHORTEST: Duration = Duration::from_millis(1);

/// One release under way.
pub(super) struct Release<'a> {
    manager: &'a Arc<ConnectionManager>,
    grant: &'a Grant,
    keys: Keys,
    owner: String,
}

/// A try that failed: when, where and how.
pub(super) type Failed = (Timestamp, Arc<Connection>, redis::RedisError);

impl<'a> Release<'a> {
    pub(super) fn new(manager: &'a Arc<ConnectionManager>, grant: &'a Grant) -> Self {
        let naming = &manager.naming;
        let (keys, owner) = (naming.keys(grant.name()), naming.owner(grant.owner()));
        Self {
            manager,
            grant,
            keys,
            owner,
        }
    }

    pub(super) async fn run(self) -> Result<(), LockError> {
        let Some(connection) = self.manager.current() else {
            return Box::pin(self.go_on(None)).await;
        };
        let sent_at = Timestamp::now();
        match settle(self.ask(&connection).await) {
            Ok(outcome) => outcome,
            Err(error) => Box::pin(self.go_on(Some((sent_at, connection, error)))).await,
        }
    }

    /// Tries a second time where the connection was dead, and takes back what is not known.
    pub(super) async fn go_on(self, failed: Option<Failed>) -> Result<(), LockError> {
        let unsent = unsent();
        let owners = vec![self.owner.clone()];
        let cleanup = Cleanup::new(self.manager, &self.keys, owners, self.grant.lease());
        let second_try = failed.is_some();
        if let Some((sent_at, connection, error)) = failed
            && self.manager.note(&connection, &error) != Fault::Interrupted
        {
            cleanup.after(sent_at, connection).in_the_background();
            return Err(lock_error(error));
        }
        let connection = match self.manager.connection().await {
            Ok(connection) => connection,
            Err(error) => {
                cleanup.in_the_background();
                return Err(error);
            }
        };
        let sent_at = Timestamp::now();
        drop(unsent);
        match self.ask(&connection).await {
            Ok(true) => Ok(()),
            // It may be gone by the first try, whose answer was lost.
            Ok(false) if second_try => Ok(()),
            Ok(false) => Err(lost(GIVEN_UP)),
            Err(error) => {
                self.manager.note(&connection, &error);
                cleanup.after(sent_at, connection).in_the_background();
                Err(lock_error(error))
            }
        }
    }

    /// Has the server end the lock then, and not before. Tries a second time where the connection
    /// was dead. When this has succeeded, the owner holds the lock no more.
    pub(super) async fn run_later(self, until: Timestamp) -> Result<(), LockError> {
        let kept = Naming::kept(&self.owner);
        let keys = [self.keys.lock.as_str(), &self.keys.waiters];
        let mut again = true;
        loop {
            let unsent = unsent();
            let connection = self.manager.connection().await?;
            drop(unsent);
            let left = milliseconds(until.remaining().max(SHORTEST));
            let args = [self.owner.as_str(), &left, &kept];
            // It is sent as text, since it is rare and the process may be about to end.
            match connection.run_by_text(&RELEASE_LATER, &keys, &args).await {
                Ok(Value::Int(1)) => return Ok(()),
                Ok(_) => return Err(lost(GIVEN_UP)),
                Err(error) if is_wrong_type(&error) => return Err(lost(GIVEN_UP)),
                Err(error) => {
                    let fault = self.manager.note(&connection, &error);
                    if !fault.is_uncertain() || !std::mem::take(&mut again) {
                        return Err(lock_error(error));
                    }
                }
            }
        }
    }

    pub(super) async fn ask(&self, connection: &Connection) -> RedisResult<bool> {
        let keys = self.manager.naming.of_script(&self.keys);
        // A server that does not know the script yet refuses the first request, and is asked again.
        let unsent = (!connection.knows(Releasing::One)).then(unsent);
        let answer = connection.run(&RELEASE, &keys, &[&self.owner]).await;
        drop(unsent);
        if answer.is_ok() {
            connection.has_learnt(Releasing::One);
        }
        read(answer)
    }
}

/// Returns whether the owner held the lock until the release.
pub(super) fn read(answer: RedisResult<Value>) -> RedisResult<bool> {
    match answer {
        Ok(answer) => Ok(answer == Value::Int(1)),
        // Somebody has put something else there.
        Err(error) if is_wrong_type(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns what the first answer settles. An error does not settle it.
pub(super) fn settle(released: RedisResult<bool>) -> RedisResult<Result<(), LockError>> {
    released.map(|held| match held {
        true => Ok(()),
        false => Err(lost(GIVEN_UP)),
    })
}
