//! An acquisition that has come to more than one request: queue, wait for the grant or the moment
//! to look again, and take back whatever is left of it if it fails.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;

use super::acquire_reply::{Answer, HeldBy, QueuePosition};
use super::acquisition::{Acquisition, Asked};
use super::cleanup::Unconfirmed;
use super::connection::Connection;
use super::error::{is_wrong_type, lock_error, no_lock};
use super::notifications::{Inbox, Notification};
use super::reach::Reach;
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::provider::{Grant, LockMode};
use crate::providers::kit::backoff::jittered;
use crate::providers::kit::deadline::Deadline;
use crate::providers::kit::error::{lost, unavailable};
use crate::providers::kit::fault::Fault;
use crate::{LockError, LockErrorKind};

/// How long to leave a server alone that cannot do it now.
const PAUSE_WHEN_BUSY: Duration = Duration::from_millis(200);
/// Whether more tokens are wanted than the entry says is looked at after this time, then after
/// twice that, and so on.
const FIRST_COUNT: Duration = Duration::from_millis(4);
/// How often in a row something is put right that should not have been wrong, such as a lock that
/// this process has left behind itself.
const MOST_REPEATED: u32 = 4;
/// Where an acquisition stands.
pub(super) struct Waiting<'a> {
    acquisition: Acquisition<'a>,
    deadline: Deadline,
    /// Where a grant arrives, if the request waits.
    inbox: Option<Inbox>,
    reach: Reach<'a>,
    /// When the last request was sent, and where.
    last_used: Option<(Timestamp, Arc<Connection>)>,
    /// Requests without an answer before that, elsewhere.
    unconfirmed: Option<Unconfirmed>,
    /// The entry in the queue; empty if there may be one.
    entry: Option<String>,
    /// When the entry was refreshed, and the last token at that time.
    refreshed: Option<(Timestamp, u64)>,
    polls: u32,
    count_after: Duration,
    /// How often in a row a lock that this process had left was taken back.
    cleared: u32,
    /// How often the counter of tokens was raised.
    raised: u32,
}

/// What is to be done next.
enum Next {
    Ask,
    WaitUntil(Timestamp),
    Return(Grant),
}

/// Why a wait ended.
enum Woken {
    Granted { first: u64, count: NonZeroU32 },
    Abandoned,
    LookAgain,
}

impl<'a> Waiting<'a> {
    /// Begins to wait. `began` is when the first request was sent, or is about to be.
    pub(super) fn new(acquisition: Acquisition<'a>, began: Timestamp) -> Self {
        let Acquisition {
            manager, request, ..
        } = acquisition;
        let inbox = request
            .waits()
            .then(|| manager.notifications.subscribe(&acquisition.claim.owner));
        let limit = manager.settings.common.response_timeout;
        Self {
            acquisition,
            deadline: Deadline::new(request, began, limit),
            inbox,
            reach: Reach::new(manager, request),
            last_used: None,
            unconfirmed: None,
            entry: None,
            refreshed: None,
            polls: 0,
            count_after: FIRST_COUNT,
            cleared: 0,
            raised: 0,
        }
    }

    /// Goes on with what was asked already, if something was.
    pub(super) async fn run(mut self, mut asked: Option<Asked>) -> Result<Grant, LockError> {
        loop {
            let asked = match asked.take() {
                Some(asked) => asked,
                None => match self.ask().await? {
                    Some(asked) => asked,
                    None => continue,
                },
            };
            let (connection, sent_at) = (asked.connection, asked.sent_at);
            let last_used = self.last_used.replace((sent_at, Arc::clone(&connection)));
            let next = match asked.answer {
                Ok(answer) => self.on_answer(&connection, sent_at, answer).await?,
                Err(error) => {
                    let is_first = last_used.is_none();
                    self.on_error(&connection, sent_at, error, is_first).await?
                }
            };
            let granted = match next {
                Next::Return(grant) => return Ok(grant),
                Next::Ask => continue,
                Next::WaitUntil(until) => self.wait(&connection, asked.wanted, until).await?,
            };
            if let Some(grant) = granted {
                return Ok(grant);
            }
        }
    }

    /// Asks for the lock, on the connection in use or a new one; `None` if none was to be had.
    async fn ask(&mut self) -> Result<Option<Asked>, LockError> {
        let (request, deadline) = (self.acquisition.request, self.deadline);
        let connecting = select(self.reach.connection(), request.abandoned());
        let connection = match deadline.keep(connecting).await {
            Ok(First::Left(Ok(connection))) => connection,
            Ok(First::Left(Err(error))) if self.reach.tolerates(&error) => {
                return Ok(None);
            }
            Ok(First::Left(Err(error))) => return Err(self.fail(error)),
            Ok(First::Right(())) => return Err(self.fail(LockErrorKind::Contended.into())),
            Err(late) => {
                let why = self.acquisition.manager.why_not_connected();
                return Err(self.fail(why.unwrap_or(late)));
            }
        };
        let used = Arc::clone(&connection);
        let asking = self.acquisition.ask(connection, self.entry.as_deref());
        match deadline.keep(asking).await {
            Ok(asked) => Ok(Some(asked)),
            Err(late) => {
                request.report_unanswered(false);
                self.last_used = Some((Timestamp::now(), used));
                Err(self.fail(late))
            }
        }
    }

    async fn on_answer(
        &mut self,
        connection: &Connection,
        sent_at: Timestamp,
        answer: Answer,
    ) -> Result<Next, LockError> {
        let none_up_to = self.acquisition.none_up_to();
        match answer {
            Answer::Granted(first, count) if first > none_up_to => {
                Ok(Next::Return(self.grant(sent_at, first, count)))
            }
            Answer::Granted(..) => self.raise_tokens(connection).await,
            Answer::Held(holder) => self.on_holder(connection, holder).await,
            Answer::NoReader => Err(lost("the server has ended it")),
            Answer::Queued(position) => Ok(self.on_queued(connection, sent_at, position).await),
        }
    }

    /// Raises the counter, which was lost. The next answer to the same owner then has a token that
    /// is high enough.
    async fn raise_tokens(&mut self, connection: &Connection) -> Result<Next, LockError> {
        let manager = self.acquisition.manager;
        let raising = connection.raise_tokens(&manager.naming.fence, manager.settings.tokens.ahead);
        let error = match self.deadline.keep(raising).await {
            Ok(Ok(_)) if self.raised < MOST_REPEATED => {
                self.raised += 1;
                return Ok(Next::Ask);
            }
            Ok(Ok(_)) => too_low(),
            Ok(Err(error)) => lock_error(error),
            Err(late) => late,
        };
        Err(self.fail(error))
    }

    /// Gives up, unless the holder is what this process has left behind.
    async fn on_holder(
        &mut self,
        connection: &Connection,
        holder: HeldBy,
    ) -> Result<Next, LockError> {
        let mut error = None;
        if let Some(residue) = holder.residue() {
            self.cleared += 1;
            let clearing = self.acquisition.clear(connection, &residue);
            match self.deadline.keep(clearing).await {
                Ok(()) if self.cleared <= MOST_REPEATED => return Ok(Next::Ask),
                Ok(()) => error = Some(not_cleared()),
                Err(late) => error = Some(late),
            }
        }
        if self.unconfirmed.is_some() || self.entry.is_some() {
            self.clean_up();
        }
        let Acquisition { manager, keys, .. } = &self.acquisition;
        Err(error.unwrap_or_else(|| holder.refusal(&manager.naming, &keys.lock)))
    }

    async fn on_queued(
        &mut self,
        connection: &Connection,
        sent_at: Timestamp,
        position: QueuePosition,
    ) -> Next {
        let request = self.acquisition.request;
        self.reach.answered();
        if let Some(residue) = position.holder.residue() {
            self.cleared += 1;
            if self.cleared <= MOST_REPEATED {
                self.entry = Some(position.entry);
                self.acquisition.clear(connection, &residue).await;
                return Next::Ask;
            }
        } else {
            self.cleared = 0;
            let naming = &self.acquisition.manager.naming;
            request.report_holder(position.holder.holder(naming));
        }
        self.refreshed = Some((sent_at, position.last_token));
        let look_again = position.look_again_after(request.lease(), &mut self.polls);
        self.entry = Some(position.entry);
        Next::WaitUntil(sent_at + look_again)
    }

    /// Says whether to ask again after an error, and when.
    async fn on_error(
        &mut self,
        connection: &Arc<Connection>,
        sent_at: Timestamp,
        error: RedisError,
        is_first: bool,
    ) -> Result<Next, LockError> {
        let request = self.acquisition.request;
        let fault = self.acquisition.manager.note(connection, &error);
        // A mutex has only one other key that may be wrong.
        let error = match is_wrong_type(&error) && request.mode() == LockMode::Exclusive {
            true => no_lock(&self.acquisition.keys.waiters, "a value that is no queue"),
            false => lock_error(error),
        };
        // A connection that was idle may be found dead only now: the script may be sent twice,
        // since it knows its own owner.
        let again = match fault {
            Fault::Interrupted if !request.waits() => is_first,
            Fault::Refused => false,
            _ => self.reach.tolerates(&error),
        };
        if !again && self.acquisition.is_upgrade() {
            return Err(error);
        }
        if !again {
            let gives_up = &self.acquisition.gives_up;
            if fault != Fault::Refused || self.entry.is_some() || gives_up.is_some() {
                return Err(self.fail(error));
            }
            // Without an entry, and with nothing to give up, the server has nothing of this owner's
            // but what the refused request did.
            self.acquisition
                .cleanup(sent_at, Arc::clone(connection))
                .and(self.unconfirmed)
                .refused()
                .in_the_background();
            return Err(error);
        }
        if fault.is_uncertain() {
            let until = sent_at + request.lease();
            self.unconfirmed = Some(Unconfirmed { until });
            // It may have been refreshed, or not.
            self.entry = Some(String::new());
        }
        if fault == Fault::Busy {
            return Ok(Next::WaitUntil(
                Timestamp::now() + jittered(PAUSE_WHEN_BUSY),
            ));
        }
        self.reach.pause().await;
        Ok(Next::Ask)
    }

    /// Waits for a grant; `None` if the server is to be asked again.
    async fn wait(
        &mut self,
        connection: &Connection,
        wanted: NonZeroU32,
        until: Timestamp,
    ) -> Result<Option<Grant>, LockError> {
        let none_up_to = self.acquisition.none_up_to();
        match self.woken(connection, wanted, until).await {
            // What came just before the connection was given up may be somebody else's by now.
            Woken::Granted { .. } if connection.has_ended() => Ok(None),
            // A grant that is later than the request that refreshed the entry lasts at least a
            // lease from there. If too little is left of that, or if the grant is an earlier one,
            // which was long on its way and may be over, ask once more.
            Woken::Granted { first, count } => Ok(match self.refreshed {
                Some((at, last_token))
                    if first > last_token.max(none_up_to)
                        && at + self.acquisition.request.lease() / 2 > Timestamp::now() =>
                {
                    Some(self.grant(at, first, count))
                }
                _ => None,
            }),
            Woken::LookAgain => Ok(None),
            Woken::Abandoned => {
                self.leave_queue().await;
                Err(LockErrorKind::Contended.into())
            }
        }
    }

    async fn woken(
        &mut self,
        connection: &Connection,
        wanted: NonZeroU32,
        until: Timestamp,
    ) -> Woken {
        let acquisition = &self.acquisition;
        let request = acquisition.request;
        let Some(inbox) = &mut self.inbox else {
            return Woken::Abandoned;
        };
        loop {
            let remaining = until.remaining();
            let pause = remaining.min(self.count_after);
            let interrupted = select(request.abandoned(), connection.ended());
            let pause_over = tokio::time::sleep(pause);
            match select(inbox.recv(), select(interrupted, pause_over)).await {
                First::Left(Notification::Granted { first, count }) => {
                    return Woken::Granted { first, count };
                }
                First::Left(Notification::Look) => return Woken::LookAgain,
                First::Right(First::Left(First::Left(()))) => return Woken::Abandoned,
                First::Right(First::Left(First::Right(()))) => return Woken::LookAgain,
                First::Right(First::Right(())) => {
                    self.count_after = self.count_after.saturating_mul(2);
                    if pause == remaining || acquisition.tokens_wanted() > wanted {
                        return Woken::LookAgain;
                    }
                }
            }
        }
    }

    /// Takes the entry back, and a grant that has come meanwhile, before anybody is told.
    async fn leave_queue(&mut self) {
        if self.acquisition.is_upgrade() {
            return;
        }
        if let Some((sent_at, connection)) = self.last_used.take() {
            let cleanup = self.acquisition.cleanup(sent_at, connection);
            let entry = self.entry.take().unwrap_or_default();
            let cleanup = cleanup.and(self.unconfirmed).of(entry);
            if let Err(cleanup) = cleanup.on_the_same_connection().await {
                cleanup.in_the_background();
            }
        }
    }

    /// Returns the error, after it has seen to what is left.
    fn fail(&mut self, error: LockError) -> LockError {
        self.clean_up();
        error
    }

    /// Takes back in the background what was asked for, and what was to be given up. Without a
    /// request there is nothing else.
    fn clean_up(&mut self) {
        if self.acquisition.is_upgrade() {
            return;
        }
        match self.last_used.take() {
            Some((sent_at, connection)) => self
                .acquisition
                .cleanup(sent_at, connection)
                .and(self.unconfirmed)
                .in_the_background(),
            None => self.acquisition.release_given_up(),
        }
    }

    fn grant(&self, sent_at: Timestamp, first: u64, count: NonZeroU32) -> Grant {
        self.acquisition
            .grant(sent_at, first, count, self.unconfirmed)
    }
}

fn too_low() -> LockError {
    unavailable("the server's counter of fencing tokens does not stay above `token_floor`")
}

fn not_cleared() -> LockError {
    unavailable("the server does not take back what this process has left behind")
}
