//! Releasing.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisResult, Value};

use super::cleanup::Cleanup;
use super::connection::Connection;
use super::connection_manager::ConnectionManager;
use super::error::{given_up, is_wrong_type, lock_error};
use super::keys::{Keys, Naming};
use super::modes::{Claim, scripts};
use super::numbers::milliseconds;
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
    claim: Claim,
}

/// A try that failed: when, where and how.
pub(super) type Failed = (Timestamp, Arc<Connection>, redis::RedisError);

impl<'a> Release<'a> {
    pub(super) fn new(manager: &'a Arc<ConnectionManager>, grant: &'a Grant) -> Self {
        let naming = &manager.naming;
        Self {
            manager,
            grant,
            keys: naming.keys(grant.name(), grant.mode().kind()),
            claim: Claim::of(naming, grant),
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
        let claims = vec![self.claim.clone()];
        let cleanup = Cleanup::new(self.manager, &self.keys, claims, self.grant.lease());
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
        let kept = Naming::kept(&self.claim.owner);
        let keys = self.manager.naming.of_script(&self.keys);
        let script = scripts(self.keys.kind()).release_later;
        let mut again = true;
        loop {
            let unsent = unsent();
            let connection = self.manager.connection().await?;
            drop(unsent);
            let left = milliseconds(until.remaining().max(SHORTEST));
            let args = [self.claim.owner.as_str(), &left, &kept, &self.claim.mode];
            let args = &args[..3 + usize::from(!self.claim.mode.is_empty())];
            // It is sent as text, since it is rare and the process may be about to end.
            let answer = connection.run_by_text(script, keys.as_slice(), args).await;
            match self.of_primary(&connection, answer) {
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
        let scripts = scripts(self.keys.kind());
        let args = [self.claim.owner.as_str(), &self.claim.mode];
        // A mutex has one mode, which its script need not be told.
        let args = &args[..1 + usize::from(!self.claim.mode.is_empty())];
        // A server that does not know the script yet refuses the first request, and is asked again.
        let unsent = (!connection.knows(scripts.releasing)).then(unsent);
        let answer = connection.run(scripts.release, keys.as_slice(), args).await;
        drop(unsent);
        if answer.is_ok() {
            connection.has_learnt(scripts.releasing);
        }
        self.of_primary(connection, read(answer))
    }

    /// Makes an error of the answer of a server that is the primary no more: its successor may have
    /// the lock still.
    fn of_primary<T>(&self, connection: &Connection, answer: RedisResult<T>) -> RedisResult<T> {
        match self.manager.has_left(connection) {
            true => answer.and_then(|_| Err(given_up())),
            false => answer,
        }
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
