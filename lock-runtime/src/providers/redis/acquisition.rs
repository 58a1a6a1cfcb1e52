//! One acquisition under way: how the server is asked for the lock, and what is taken back.

use std::num::NonZeroU32;
use std::sync::Arc;

use redis::RedisResult;

use super::acquire_reply::{Answer, read};
use super::cleanup::{Cleanup, Unconfirmed};
use super::connection::Connection;
use super::connection_manager::ConnectionManager;
use super::error::{given_up, is_forgotten};
use super::keys::Keys;
use super::numbers::{decimal, milliseconds};
use super::script::{ACQUIRE, By, CLEANUP, PASS_ON};
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant};
use crate::token::FencingToken;

pub(super) struct Acquisition<'a> {
    pub(super) manager: &'a Arc<ConnectionManager>,
    pub(super) request: &'a AcquireRequest,
    pub(super) keys: Keys,
    pub(super) owner: String,
    /// The owner that gives the lock up in the same step.
    pub(super) gives_up: Option<String>,
    lease: String,
}

/// A request that was answered, or was not.
pub(super) struct Asked {
    pub(super) connection: Arc<Connection>,
    pub(super) sent_at: Timestamp,
    pub(super) wanted: NonZeroU32,
    pub(super) answer: RedisResult<Answer>,
}

impl Asked {
    pub(super) fn new(
        connection: Arc<Connection>,
        sent_at: Timestamp,
        wanted: NonZeroU32,
        answer: RedisResult<Answer>,
    ) -> Self {
        let answer = match answer {
            // Another server may be asked by now, and may have granted it to somebody else.
            Ok(Answer::Granted(..)) if connection.has_ended() => Err(given_up()),
            answer => answer,
        };
        Self {
            connection,
            sent_at,
            wanted,
            answer,
        }
    }
}

impl<'a> Acquisition<'a> {
    pub(super) fn new(
        manager: &'a Arc<ConnectionManager>,
        request: &'a AcquireRequest,
        gives_up: Option<String>,
    ) -> Self {
        Self {
            manager,
            request,
            keys: manager.naming.keys(request.name()),
            owner: manager.naming.owner(request.owner()),
            gives_up,
            lease: milliseconds(request.lease()),
        }
    }

    /// Asks for the lock. An acquisition that is in the queue already names its entry there.
    pub(super) async fn ask(&self, connection: Arc<Connection>, entry: Option<&str>) -> Asked {
        let wanted = self.request.tokens_wanted();
        let naming = &self.manager.naming;
        let keys = naming.of_script(&self.keys);
        let mut digits = [0; 10];
        let channel = if self.request.waits() {
            naming.channel.as_str()
        } else {
            ""
        };
        let tokens = decimal(wanted.get(), &mut digits);
        let mut args = [self.owner.as_str(), &self.lease, tokens, channel, "", ""];
        let mut count = 4;
        let script = match &self.gives_up {
            // An acquisition that is in the queue has nothing to give up any more.
            Some(old) if entry.is_none_or(str::is_empty) => {
                args[count] = old;
                count += 1;
                &PASS_ON
            }
            _ => &ACQUIRE,
        };
        if let Some(entry) = entry {
            args[count] = entry;
            count += 1;
        }
        let args = &args[..count];
        let command = script.command(By::Hash, &keys, args);
        self.request.report_unanswered(true);
        let sent_at = Timestamp::now();
        let answer = match connection.query(command).await {
            Err(error) if is_forgotten(&error) => {
                let command = script.command(By::Text, &keys, args);
                Box::pin(connection.query(command)).await
            }
            answer => answer,
        };
        self.request.report_unanswered(false);
        Asked::new(connection, sent_at, wanted, answer.and_then(read))
    }

    /// Takes back what this process has left behind, for the next look at the lock.
    pub(super) async fn clear(&self, connection: &Connection, owner: &str) {
        let keys = self.manager.naming.of_script(&self.keys);
        // Whoever left it tries again if this fails.
        let _ = connection.run_by_text(&CLEANUP, &keys, &[owner]).await;
    }

    /// Prepares to take back a request that was sent at that moment, on this connection.
    pub(super) fn cleanup(&self, sent_at: Timestamp, connection: Arc<Connection>) -> Cleanup {
        let owners = std::iter::once(&self.owner)
            .chain(&self.gives_up)
            .cloned()
            .collect();
        Cleanup::new(self.manager, &self.keys, owners, self.request.lease())
            .after(sent_at, connection)
    }

    /// Ends the lock that was to be given up, where nothing has been asked for yet.
    pub(super) fn release_given_up(&self) {
        if let Some(old) = &self.gives_up {
            let owners = vec![old.clone()];
            let lease = self.request.lease();
            Cleanup::new(self.manager, &self.keys, owners, lease).in_the_background();
        }
    }

    pub(super) fn grant(
        &self,
        sent_at: Timestamp,
        first: u64,
        count: NonZeroU32,
        unconfirmed: Option<Unconfirmed>,
    ) -> Grant {
        let grant = granted(self.request, sent_at, first, count);
        match unconfirmed {
            Some(unconfirmed) => grant.with_state(unconfirmed),
            None => grant,
        }
    }
}

/// Returns what the first answer settles. Gives back one that does not settle it.
pub(super) fn settle(
    manager: &ConnectionManager,
    request: &AcquireRequest,
    asked: Asked,
) -> Result<Result<Grant, LockError>, Asked> {
    match &asked.answer {
        Ok(Answer::Granted(first, count)) if *first > manager.settings.tokens.none_up_to => {
            Ok(Ok(granted(request, asked.sent_at, *first, *count)))
        }
        Ok(Answer::Held(holder)) if holder.residue().is_none() => Ok(Err(
            holder.refusal(&manager.naming.keys(request.name()).lock)
        )),
        _ => Err(asked),
    }
}

/// Returns the grant with these tokens.
fn granted(request: &AcquireRequest, sent_at: Timestamp, first: u64, count: NonZeroU32) -> Grant {
    Grant::new(request, sent_at).with_tokens(FencingToken::new(first), count)
}
