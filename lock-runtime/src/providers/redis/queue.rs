//! Acquiring: try, queue, wait for the grant or the moment to look again, and take back whatever
//! is left of it if it fails.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;

use super::connection::{Connection, given_up, is_forgotten};
use super::error::{Fault, fault, is_wrong_type, lock_error, no_lock};
use super::floor::Tokens;
use super::grants::{Expected, Letter};
use super::keys::Keys;
use super::link::Link;
use super::numbers::{decimal, milliseconds};
use super::outage::Outage;
use super::script::{ACQUIRE, By, LEAVE, PASS_ON};
use super::standing::{Answer, read};
use super::undo::{Strays, Undo};
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant};
use crate::providers::pause::jittered;
use crate::race::{First, first_of};
use crate::token::FencingToken;
use crate::{LockError, LockErrorKind};

/// How long to leave a server alone that cannot do it now.
const PAUSE_WHEN_BUSY: Duration = Duration::from_millis(200);
/// Whether more tokens are wanted than the entry says is looked at after this time, then after
/// twice that, and so on.
const FIRST_COUNT: Duration = Duration::from_millis(4);
/// How often in a row something is put right that ought to be so, such as a lock that this process
/// has left behind itself.
const MOST_REPEATED: u32 = 4;

/// One acquisition under way.
pub(super) struct Acquisition<'a> {
    link: &'a Arc<Link>,
    request: &'a AcquireRequest,
    keys: Keys,
    owner: String,
    /// The owner that gives the lock up in the same step.
    gives_up: Option<String>,
    lease: String,
}

/// A request that was answered, or was not.
struct Asked {
    connection: Arc<Connection>,
    sent_at: Timestamp,
    wanted: NonZeroU32,
    answer: RedisResult<Answer>,
}

/// Why a wait ended.
enum Woken {
    Granted { first: u64, count: NonZeroU32 },
    Abandoned,
    LookAgain,
}

impl<'a> Acquisition<'a> {
    pub(super) fn new(
        link: &'a Arc<Link>,
        request: &'a AcquireRequest,
        gives_up: Option<String>,
    ) -> Self {
        Self {
            link,
            request,
            keys: link.naming.keys(request.name()),
            owner: link.naming.owner(request.owner()),
            gives_up,
            lease: milliseconds(request.lease()),
        }
    }

    pub(super) async fn run(self) -> Result<Grant, LockError> {
        // Nearly always one request is all there is, so what it needs is kept small.
        let current = self.link.current();
        let granting = current.filter(|connection| connection.grants_after().is_none());
        let Some(connection) = granting else {
            return Box::pin(self.go_on(None)).await;
        };
        let asked = self.ask(connection, None).await;
        match asked.answer {
            Ok(Answer::Granted(first, count)) if first > self.link.settings.tokens.none_up_to => {
                Ok(self.grant(asked.sent_at, first, count, None))
            }
            Ok(Answer::Held(holder)) if holder.residue().is_none() => {
                Err(holder.refusal(&self.keys.lock))
            }
            _ => Box::pin(self.go_on(Some(asked))).await,
        }
    }

    async fn go_on(self, mut asked: Option<Asked>) -> Result<Grant, LockError> {
        let expected = self
            .request
            .waits()
            .then(|| self.link.grants.expect(&self.owner));
        let mut polls = 0;
        let mut count_after = FIRST_COUNT;
        let mut outage = Outage::new(self.link, self.request);
        let mut refreshed = None;
        let mut last_used: Option<(Timestamp, Arc<Connection>)> = None;
        let mut strays = None;
        // That in the queue; empty if there may be one.
        let mut entry: Option<String> = None;
        let (mut cleared, mut lifted) = (0, 0);
        let Tokens { ahead, none_up_to } = self.link.settings.tokens;
        let began = asked.as_ref().map(|asked| asked.sent_at);
        let mut overdue = pin!(self.overdue(began.unwrap_or_else(Timestamp::now)));
        loop {
            let Asked {
                connection,
                sent_at,
                wanted,
                answer,
            } = match asked.take() {
                Some(asked) => asked,
                None => {
                    let ended = first_of(self.request.abandoned(), overdue.as_mut());
                    let connected = first_of(outage.connection(), ended).await;
                    let connection = match connected {
                        First::Left(Ok(connection)) => connection,
                        First::Left(Err(error)) if outage.tolerates(&error) => continue,
                        First::Left(Err(error)) => {
                            self.undo(last_used, strays);
                            return Err(error);
                        }
                        First::Right(First::Left(())) => {
                            self.undo(last_used, strays);
                            return Err(LockErrorKind::Contended.into());
                        }
                        First::Right(First::Right(error)) => {
                            self.undo(last_used, strays);
                            return Err(self.link.why_not_connected().unwrap_or(error));
                        }
                    };
                    let used = Arc::clone(&connection);
                    let asking = self.ask(connection, entry.as_deref());
                    match first_of(asking, overdue.as_mut()).await {
                        First::Left(asked) => asked,
                        First::Right(error) => {
                            self.request.report_unanswered(false);
                            self.undo(Some((Timestamp::now(), used)), strays);
                            return Err(error);
                        }
                    }
                }
            };
            let first_try = last_used.is_none();
            last_used = Some((sent_at, Arc::clone(&connection)));
            let until = match answer {
                Ok(Answer::Granted(first, count)) if first > none_up_to => {
                    return Ok(self.grant(sent_at, first, count, strays));
                }
                Ok(Answer::Granted(..)) => {
                    // The counter was lost. Once it is raised, the next answer to the same owner
                    // has a token that is high enough.
                    let raising = connection.raise_tokens(&self.link.naming.fence, ahead);
                    let error = match first_of(raising, overdue.as_mut()).await {
                        First::Left(Ok(_)) if lifted < MOST_REPEATED => {
                            lifted += 1;
                            continue;
                        }
                        First::Left(Ok(_)) => too_low(),
                        First::Left(Err(error)) => lock_error(error),
                        First::Right(late) => late,
                    };
                    self.undo(last_used, strays);
                    return Err(error);
                }
                Ok(Answer::Held(holder)) => {
                    let mut error = None;
                    if let Some(residue) = holder.residue() {
                        cleared += 1;
                        let clearing = self.clear(&connection, &residue);
                        match first_of(clearing, overdue.as_mut()).await {
                            First::Left(()) if cleared <= MOST_REPEATED => continue,
                            First::Left(()) => error = Some(not_cleared()),
                            First::Right(late) => error = Some(late),
                        }
                    }
                    if strays.is_some() || entry.is_some() {
                        self.undo(last_used, strays);
                    }
                    return Err(error.unwrap_or_else(|| holder.refusal(&self.keys.lock)));
                }
                Ok(Answer::Queued(standing)) => {
                    outage.is_over();
                    if let Some(residue) = standing.holder.residue() {
                        cleared += 1;
                        if cleared <= MOST_REPEATED {
                            entry = Some(standing.entry);
                            self.clear(&connection, &residue).await;
                            continue;
                        }
                    } else {
                        cleared = 0;
                        self.request.report_contention();
                    }
                    refreshed = Some((sent_at, standing.last_token));
                    let look_again = standing.look_again_after(self.request.lease(), &mut polls);
                    entry = Some(standing.entry);
                    sent_at + look_again
                }
                Err(error) => {
                    let fault = fault(&error);
                    if fault.is_the_connections() {
                        self.link.retire(&connection);
                    }
                    let error = match is_wrong_type(&error) {
                        true => no_lock(&self.keys.waiters, "a value that is no queue"),
                        false => lock_error(error),
                    };
                    // A connection that was idle may be found dead only now: the script may be
                    // sent twice, since it knows its own owner.
                    let again = match fault {
                        Fault::Broken if !self.request.waits() => first_try,
                        Fault::Refused => false,
                        _ => outage.tolerates(&error),
                    };
                    if !again {
                        // Without an entry, and with nothing to give up, the server has nothing
                        // of this owner's but what the refused request did.
                        if fault == Fault::Refused && entry.is_none() && self.gives_up.is_none() {
                            let undo = self.undoing(sent_at, connection).and(strays).refused();
                            undo.in_the_background();
                        } else {
                            self.undo(last_used, strays);
                        }
                        return Err(error);
                    }
                    if fault.is_the_connections() {
                        let until = sent_at + self.request.lease();
                        strays = Some(Strays { until });
                        // It may have been refreshed, or not.
                        entry = Some(String::new());
                    }
                    if fault != Fault::Busy {
                        outage.pause().await;
                        continue;
                    }
                    Timestamp::now() + jittered(PAUSE_WHEN_BUSY)
                }
            };
            let Some(expected) = &expected else {
                return Err(LockErrorKind::Contended.into());
            };
            match self
                .wait(&connection, expected, wanted, until, &mut count_after)
                .await
            {
                // A grant that is later than the request that refreshed the entry lasts at least
                // a lease from there. If too little is left of that, or if the grant is an
                // earlier one, which was long on its way and may be over, ask once more.
                Woken::Granted { first, count } => match refreshed {
                    Some((at, last_token))
                        if first > last_token.max(none_up_to)
                            && at + self.request.lease() / 2 > Timestamp::now() =>
                    {
                        return Ok(self.grant(at, first, count, strays));
                    }
                    _ => {}
                },
                Woken::LookAgain => {}
                Woken::Abandoned => {
                    let entry = entry.unwrap_or_default();
                    self.leave(sent_at, connection, strays, entry).await;
                    return Err(LockErrorKind::Contended.into());
                }
            }
        }
    }

    /// Why a try ends that has got no answer in time; who waits has more.
    async fn overdue(&self, began: Timestamp) -> LockError {
        if self.request.waits() {
            return std::future::pending().await;
        }
        let limit = self.link.settings.response_timeout;
        tokio::time::sleep((began + limit).remaining()).await;
        LockError::new(LockErrorKind::ProviderUnavailable)
            .with_detail(format!("the server did not answer within {limit:?}"))
    }

    /// Takes back what this process has left behind, for the next look at the lock.
    async fn clear(&self, connection: &Connection, owner: &str) {
        let keys = [
            self.keys.lock.as_str(),
            &self.keys.waiters,
            &self.link.naming.fence,
        ];
        // Whoever left it tries again if this fails.
        let _ = connection.run_by_text(&LEAVE, &keys, &[owner]).await;
    }

    /// Asks for the lock; once in the queue, with the entry there.
    async fn ask(&self, connection: Arc<Connection>, entry: Option<&str>) -> Asked {
        let wanted = self.request.tokens_wanted();
        let Keys { lock, waiters } = &self.keys;
        let keys = [lock.as_str(), waiters, &self.link.naming.fence];
        let mut digits = [0; 10];
        let channel = if self.request.waits() {
            self.link.naming.channel.as_str()
        } else {
            ""
        };
        let tokens = decimal(wanted.get(), &mut digits);
        let mut args = [self.owner.as_str(), &self.lease, tokens, channel, "", ""];
        let mut count = 4;
        let script = match &self.gives_up {
            // Once in the queue it has nothing to give up any more.
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
        let answer = match answer.and_then(read) {
            // Another server may be asked by now, and may have granted it to somebody else.
            Ok(Answer::Granted(..)) if connection.has_ended() => Err(given_up()),
            answer => answer,
        };
        Asked {
            connection,
            sent_at,
            wanted,
            answer,
        }
    }

    async fn wait(
        &self,
        connection: &Connection,
        expected: &Expected,
        asked: NonZeroU32,
        until: Timestamp,
        count_after: &mut Duration,
    ) -> Woken {
        loop {
            let remaining = until.remaining();
            let pause = remaining.min(*count_after);
            let interrupted = first_of(self.request.abandoned(), connection.ended());
            let pause_over = tokio::time::sleep(pause);
            match first_of(expected.arrives(), first_of(interrupted, pause_over)).await {
                First::Left(Letter::Granted { first, count }) => {
                    return Woken::Granted { first, count };
                }
                First::Left(Letter::Look) => return Woken::LookAgain,
                First::Right(First::Left(First::Left(()))) => return Woken::Abandoned,
                First::Right(First::Left(First::Right(()))) => return Woken::LookAgain,
                First::Right(First::Right(())) => {
                    *count_after = count_after.saturating_mul(2);
                    if pause == remaining || self.request.tokens_wanted() > asked {
                        return Woken::LookAgain;
                    }
                }
            }
        }
    }

    /// Takes the entry back, and a grant that has come meanwhile.
    async fn leave(
        &self,
        sent_at: Timestamp,
        connection: Arc<Connection>,
        strays: Option<Strays>,
        entry: String,
    ) {
        let undo = self.undoing(sent_at, connection).and(strays).of(entry);
        if let Err(undo) = undo.on_the_same_connection().await {
            undo.in_the_background();
        }
    }

    fn undo(&self, last_used: Option<(Timestamp, Arc<Connection>)>, strays: Option<Strays>) {
        // Without a request there is nothing to undo, except what was to be given up.
        match (last_used, &self.gives_up) {
            (Some((sent_at, connection)), _) => {
                let undo = self.undoing(sent_at, connection).and(strays);
                undo.in_the_background();
            }
            (None, Some(old)) => {
                let owners = vec![old.clone()];
                Undo::new(self.link, &self.keys, owners, self.request.lease()).in_the_background();
            }
            (None, None) => {}
        }
    }

    fn undoing(&self, sent_at: Timestamp, connection: Arc<Connection>) -> Undo {
        let owners = std::iter::once(&self.owner)
            .chain(&self.gives_up)
            .cloned()
            .collect();
        Undo::new(self.link, &self.keys, owners, self.request.lease()).after(sent_at, connection)
    }

    fn grant(
        &self,
        sent_at: Timestamp,
        first: u64,
        count: NonZeroU32,
        strays: Option<Strays>,
    ) -> Grant {
        let grant = Grant::new(self.request, sent_at).with_tokens(FencingToken::new(first), count);
        match strays {
            Some(strays) => grant.with_state(strays),
            None => grant,
        }
    }
}

fn too_low() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the server's counter of fencing tokens does not stay above `token_floor`")
}

fn not_cleared() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the server does not take back what this process has left behind")
}
