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
use super::modes::{Claim, Scripts, has_tokens, scripts, takes_blocks};
use super::numbers::{decimal, milliseconds};
use super::script::{By, UPGRADE};
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant};
use crate::token::FencingToken;

pub(super) struct Acquisition<'a> {
    pub(super) manager: &'a Arc<ConnectionManager>,
    pub(super) request: &'a AcquireRequest,
    pub(super) keys: Keys,
    pub(super) claim: Claim,
    /// The owner that gives the lock up in the same step.
    pub(super) gives_up: Option<Claim>,
    /// The reader that is to become the writer.
    upgrading: Option<Upgrading>,
    scripts: &'static Scripts,
    lease: String,
}

/// A reader that is to become the writer.
pub(super) struct Upgrading {
    pub(super) owner: String,
    /// Tells this upgrade from the reader's earlier ones, which may still come to the server.
    pub(super) number: String,
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
        gives_up: Option<Claim>,
    ) -> Self {
        let kind = request.mode().kind();
        Self {
            manager,
            request,
            keys: manager.naming.keys(request.name(), kind),
            claim: Claim::new(&manager.naming, request.owner(), request.mode()),
            gives_up,
            upgrading: None,
            scripts: scripts(kind),
            lease: milliseconds(request.lease()),
        }
    }

    /// Makes an upgrade of it. Whoever upgrades takes back what that leaves behind.
    pub(super) fn upgrading(self, reader: Upgrading) -> Self {
        Self {
            upgrading: Some(reader),
            ..self
        }
    }

    pub(super) fn is_upgrade(&self) -> bool {
        self.upgrading.is_some()
    }

    /// Returns how many fencing tokens the grant should carry.
    pub(super) fn tokens_wanted(&self) -> NonZeroU32 {
        match takes_blocks(self.request.mode()) {
            true => self.request.tokens_wanted(),
            false => NonZeroU32::MIN,
        }
    }

    /// Returns up to which number the tokens of a grant are none.
    pub(super) fn none_up_to(&self) -> u64 {
        none_up_to(self.manager, self.request)
    }

    /// Asks for the lock. An acquisition that is in the queue already names its entry there.
    pub(super) async fn ask(&self, connection: Arc<Connection>, entry: Option<&str>) -> Asked {
        let wanted = self.tokens_wanted();
        let naming = &self.manager.naming;
        let keys = naming.of_script(&self.keys);
        let mut digits = [0; 10];
        let channel = if self.request.waits() {
            naming.channel.as_str()
        } else {
            ""
        };
        let tokens = decimal(wanted.get(), &mut digits);
        let mut args = Args::of([self.claim.owner.as_str(), &self.lease, tokens, channel]);
        if let Some(reader) = &self.upgrading {
            args.push(&reader.owner);
            args.push(&reader.number);
        } else {
            args.push_mode(&self.claim);
        }
        let script = match &self.gives_up {
            _ if self.is_upgrade() => &UPGRADE,
            // An acquisition that is in the queue has nothing to give up any more.
            Some(old) if entry.is_none_or(str::is_empty) => {
                args.push(&old.owner);
                args.push_mode(old);
                self.scripts.pass_on
            }
            _ => self.scripts.acquire,
        };
        if let Some(entry) = entry.filter(|_| !self.is_upgrade()) {
            args.push(entry);
        }
        let (keys, args) = (keys.as_slice(), args.as_slice());
        let command = script.command(By::Hash, keys, args);
        self.request.report_unanswered(true);
        let sent_at = Timestamp::now();
        let answer = match connection.query(command).await {
            Err(error) if is_forgotten(&error) => {
                let command = script.command(By::Text, keys, args);
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
        let cleanup = self.scripts.cleanup;
        let _ = connection
            .run_by_text(cleanup, keys.as_slice(), &[owner])
            .await;
    }

    /// Prepares to take back a request that was sent at that moment, on this connection.
    pub(super) fn cleanup(&self, sent_at: Timestamp, connection: Arc<Connection>) -> Cleanup {
        let claims = std::iter::once(&self.claim)
            .chain(&self.gives_up)
            .cloned()
            .collect();
        Cleanup::new(self.manager, &self.keys, claims, self.request.lease())
            .after(sent_at, connection)
    }

    /// Ends the lock that was to be given up, where nothing has been asked for yet.
    pub(super) fn release_given_up(&self) {
        if let Some(old) = &self.gives_up {
            let claims = vec![old.clone()];
            let lease = self.request.lease();
            Cleanup::new(self.manager, &self.keys, claims, lease).in_the_background();
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
        Ok(Answer::Granted(first, count)) if *first > none_up_to(manager, request) => {
            Ok(Ok(granted(request, asked.sent_at, *first, *count)))
        }
        Ok(Answer::Held(holder)) if holder.residue().is_none() => {
            let keys = manager.naming.keys(request.name(), request.mode().kind());
            Ok(Err(holder.refusal(&manager.naming, &keys.lock)))
        }
        _ => Err(asked),
    }
}

/// Returns the grant with these tokens, if its mode has any.
fn granted(request: &AcquireRequest, sent_at: Timestamp, first: u64, count: NonZeroU32) -> Grant {
    let grant = Grant::new(request, sent_at);
    match has_tokens(request.mode()) {
        true => grant.with_tokens(FencingToken::new(first), count),
        false => grant,
    }
}

fn none_up_to(manager: &ConnectionManager, request: &AcquireRequest) -> u64 {
    match has_tokens(request.mode()) {
        true => manager.settings.tokens.none_up_to,
        // It only tells a new grant from an old one.
        false => 0,
    }
}

/// The arguments of a script, of which there are eight at most.
struct Args<'a> {
    all: [&'a str; 8],
    count: usize,
}

impl<'a> Args<'a> {
    fn of(first: [&'a str; 4]) -> Self {
        let mut all = [""; 8];
        all[..4].copy_from_slice(&first);
        Self { all, count: 4 }
    }

    fn push(&mut self, argument: &'a str) {
        self.all[self.count] = argument;
        self.count += 1;
    }

    /// A mutex has one mode, which no script needs to be told.
    fn push_mode(&mut self, claim: &'a Claim) {
        if !claim.mode.is_empty() {
            self.push(&claim.mode);
        }
    }

    fn as_slice(&self) -> &[&'a str] {
        &self.all[..self.count]
    }
}
