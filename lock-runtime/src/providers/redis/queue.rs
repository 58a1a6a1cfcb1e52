//! Acquiring: try, queue, wait for the grant or the moment to look again, and take back whatever
//! is left of it if it fails.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisResult, Value};

use super::connection::Connection;
use super::error::{Fault, fault, lock_error};
use super::grants::{Expected, Letter};
use super::keys::Keys;
use super::link::Link;
use super::script::{ACQUIRE, PASS_ON};
use super::undo::Undo;
use crate::clock::Timestamp;
use crate::guard::FencingToken;
use crate::provider::{AcquireRequest, Grant};
use crate::race::{First, first_of};
use crate::{LockError, LockErrorKind};

/// A foreign holder hands nothing over: the head of the queue looks this often, a little apart
/// from others who do, at first and later.
const FIRST_POLL: Duration = Duration::from_millis(25);
const LATER_POLLS: Duration = Duration::from_millis(100);
/// Where a holder crashed, the head of the queue looks as soon as its lease ends; each one behind
/// it looks this much later, in case those before are dead too.
const APART: Duration = Duration::from_millis(20);
/// How long to leave a server alone that cannot do it now.
const PAUSE_WHEN_BUSY: Duration = Duration::from_millis(200);
/// Whether more tokens are wanted than the entry says is looked at after this time, then after
/// twice that, and so on.
const FIRST_COUNT: Duration = Duration::from_millis(4);

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

/// What the server answered.
enum Answer {
    Granted(u64),
    Held,
    Queued(Standing),
}

/// A waiter's place.
struct Standing {
    /// What is left of the holder's lease; negative for a foreign holder that has none.
    remaining_ms: i64,
    place: u32,
    foreign: bool,
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
        // Before the first request: its answer and a grant may arrive together.
        let expected = self
            .request
            .waits()
            .then(|| self.link.grants.expect(&self.owner));
        let mut polls = 0;
        let mut count_after = FIRST_COUNT;
        let mut outage = None;
        let mut refreshed_at = None;
        let mut last_used: Option<(Timestamp, Arc<Connection>)> = None;
        loop {
            let connecting = first_of(self.link.connection(), self.request.abandoned()).await;
            let connection = match connecting {
                First::Left(Ok(connection)) => connection,
                First::Left(Err(error)) if self.bears(&mut outage, &error) => continue,
                First::Left(Err(error)) => {
                    self.undo(last_used);
                    return Err(error);
                }
                First::Right(()) => {
                    self.undo(last_used);
                    return Err(LockErrorKind::Contended.into());
                }
            };
            let wanted = self.request.tokens_wanted();
            let sent_at = Timestamp::now();
            let first_try = last_used.is_none();
            last_used = Some((sent_at, Arc::clone(&connection)));
            let until = match self.ask(&connection, wanted).await {
                Ok(Answer::Granted(first)) => return Ok(self.grant(sent_at, first, wanted)),
                Ok(Answer::Held) => return Err(LockErrorKind::Contended.into()),
                Ok(Answer::Queued(standing)) => {
                    outage = None;
                    refreshed_at = Some(sent_at);
                    sent_at + self.look_again_after(&standing, &mut polls)
                }
                Err(error) => {
                    let fault = fault(&error);
                    if fault.is_the_connections() {
                        self.link.retire(&connection);
                    }
                    let error = lock_error(error);
                    // A connection that was idle may be found dead only now: the script may be
                    // sent twice, since it knows its own owner.
                    let again = match fault {
                        Fault::Broken if !self.request.waits() => first_try,
                        Fault::Refused => false,
                        _ => self.bears(&mut outage, &error),
                    };
                    if !again {
                        self.undo(last_used);
                        return Err(error);
                    }
                    if fault != Fault::Busy {
                        continue;
                    }
                    Timestamp::now() + jittered(PAUSE_WHEN_BUSY)
                }
            };
            let Some(expected) = &expected else { return Err(LockErrorKind::Contended.into()) };
            match self.wait(&connection, expected, wanted, until, &mut count_after).await {
                // The grant is later than the request that refreshed the entry, so it lasts at
                // least a lease from there. If too little is left of that, ask once more.
                Woken::Granted { first, count } => match refreshed_at {
                    Some(at) if at + self.request.lease() / 2 > Timestamp::now() => {
                        return Ok(self.grant(at, first, count));
                    }
                    _ => {}
                },
                Woken::LookAgain => {}
                Woken::Abandoned => {
                    self.leave(sent_at, connection).await;
                    return Err(LockErrorKind::Contended.into());
                }
            }
        }
    }

    async fn ask(&self, connection: &Connection, wanted: NonZeroU32) -> RedisResult<Answer> {
        let Keys { lock, waiters } = &self.keys;
        let keys = [lock.as_str(), waiters, &self.link.naming.fence];
        let mut digits = [0; 10];
        let channel = if self.request.waits() {
            self.link.naming.channel.as_str()
        } else {
            ""
        };
        let wanted = decimal(wanted.get(), &mut digits);
        let answer = match &self.gives_up {
            None => {
                let args = [self.owner.as_str(), &self.lease, wanted, channel];
                connection.run(&ACQUIRE, &keys, &args).await?
            }
            Some(old) => {
                let args = [self.owner.as_str(), &self.lease, wanted, channel, old];
                connection.run(&PASS_ON, &keys, &args).await?
            }
        };
        match answer {
            Value::Int(0) => Ok(Answer::Held),
            Value::Int(first) => Ok(Answer::Granted(first.unsigned_abs())),
            answer => {
                let (remaining_ms, place, foreign): (i64, u32, u8) =
                    redis::from_redis_value(answer)?;
                Ok(Answer::Queued(Standing {
                    remaining_ms,
                    place,
                    foreign: foreign == 1,
                }))
            }
        }
    }

    /// Whether to put up with an error: only who waits does, and only for so long.
    fn bears(&self, outage: &mut Option<Timestamp>, error: &LockError) -> bool {
        let since = *outage.get_or_insert_with(Timestamp::now);
        self.request.waits()
            && error.is_retryable()
            && !(since + self.link.settings.connect_timeout).has_passed()
    }

    fn look_again_after(&self, standing: &Standing, polls: &mut u32) -> Duration {
        // Not longer than this, or the entry would expire, and the waiter pass for dead.
        let refresh = self.request.lease() / 3;
        if standing.foreign && standing.place == 0 {
            let poll = FIRST_POLL
                .saturating_mul(1 << (*polls / 4).min(2))
                .min(LATER_POLLS);
            *polls += 1;
            return jittered(poll).min(refresh);
        }
        match u64::try_from(standing.remaining_ms) {
            Ok(remaining) => {
                let ends = Duration::from_millis(remaining + 1);
                (ends + jittered(APART * standing.place)).min(refresh)
            }
            Err(_) => refresh,
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
    async fn leave(&self, sent_at: Timestamp, connection: Arc<Connection>) {
        let undo = self.undoing(sent_at, connection);
        if let Err(undo) = undo.on_the_same_connection().await {
            undo.in_the_background();
        }
    }

    fn undo(&self, last_used: Option<(Timestamp, Arc<Connection>)>) {
        // Without a request there is nothing to undo, except what was to be given up.
        match (last_used, &self.gives_up) {
            (Some((sent_at, connection)), _) => {
                self.undoing(sent_at, connection).in_the_background();
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

    fn grant(&self, sent_at: Timestamp, first: u64, count: NonZeroU32) -> Grant {
        Grant::new(self.request, sent_at).with_tokens(FencingToken::new(first), count)
    }
}

/// Whole milliseconds, rounded up, as the server counts.
pub(super) fn milliseconds(lease: Duration) -> String {
    lease.as_nanos().div_ceil(1_000_000).to_string()
}

/// The span, a quarter shorter or longer. Not random, but different in every process and moment,
/// which is all that is needed for waiters not to look at the same time.
fn jittered(span: Duration) -> Duration {
    let noise = Timestamp::now()
        .as_nanos()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        >> 32;
    let part = noise as f64 / f64::from(u32::MAX);
    span.mul_f64(0.75 + part / 2.0)
}

fn decimal(number: u32, digits: &mut [u8; 10]) -> &str {
    let mut rest = number;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[at..]).unwrap_or("1")
}
