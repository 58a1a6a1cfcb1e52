//! The servers of a quorum: which can be asked, and what their clocks say.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::super::connection::Connection;
use super::super::connection_manager::ConnectionManager;
use super::super::keys::Keys;
use super::super::script::QUORUM_TELL;
use super::round::Round;
use crate::LockError;
use crate::background;
use crate::clock::Timestamp;
use crate::providers::kit::error::unavailable;
use crate::providers::kit::settings::Common;

/// How far a proposal is ahead of the clock that is furthest ahead, in microseconds, beside the time
/// of a round trip, which counts up to a limit: a server may have stood still.
const AHEAD: i64 = 2_000;
const LONGEST_TRIP: i64 = 50_000;
/// Clocks that differ by more are worth a warning, in microseconds.
const FAR: i64 = 1_000_000;
/// The pauses between looks at who can be reached, and between attempts to connect that fail at
/// once.
const LOOKS_EVERY: Duration = Duration::from_millis(5);
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);

pub(super) struct Member {
    pub(super) manager: Arc<ConnectionManager>,
    /// How far its clock is ahead of this process's, in microseconds; `i64::MIN` if not known.
    ahead: AtomicI64,
}

/// All servers, in the order that all clients share.
pub(super) struct Members {
    all: Vec<Member>,
    warned: AtomicBool,
}

impl Members {
    pub(super) fn new(managers: Vec<Arc<ConnectionManager>>) -> Self {
        let members = managers.into_iter().map(|manager| Member {
            manager,
            ahead: AtomicI64::new(i64::MIN),
        });
        Self {
            all: members.collect(),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn all(&self) -> &[Member] {
        &self.all
    }

    pub(super) fn majority(&self) -> usize {
        self.all.len() / 2 + 1
    }

    /// Returns the settings that all servers share.
    pub(super) fn common(&self) -> &Common {
        &self.all[0].manager.settings.common
    }

    /// Keeps a connection to each server, for as long as this is there. To be called on the
    /// background runtime.
    pub(super) fn keep_connected(&self) {
        for member in &self.all {
            background::spawn_beside(keep_connected(Arc::downgrade(&member.manager)));
        }
    }

    /// Returns the first server that may vote, whose queue waiters use.
    pub(super) fn first(&self) -> Option<(usize, &Member)> {
        let mut all = self.all.iter().enumerate();
        all.find(|(_, member)| member.may_vote())
    }

    /// Says why there is no majority now; `Ok` if there is one.
    pub(super) fn check_majority(&self) -> Result<(), LockError> {
        let (mut away, mut young) = (Vec::new(), 0);
        for member in &self.all {
            match member.manager.current() {
                None => away.push(member),
                Some(connection) if connection.grants_after().is_some() => young += 1,
                Some(_) => {}
            }
        }
        let count = self.all.len();
        if count - away.len() - young >= self.majority() {
            return Ok(());
        }
        let mut why = Vec::new();
        if !away.is_empty() {
            let cause = away.iter().find_map(|it| it.manager.why_not_connected());
            let cause = cause.map_or(String::new(), |error| format!(" ({error})"));
            why.push(format!(
                "{} of {count} servers cannot be reached{cause}",
                away.len()
            ));
        }
        if young > 0 {
            why.push(format!(
                "{young} of {count} servers started less than `restart_delay` ago"
            ));
        }
        Err(unavailable(why.join(", ")))
    }

    /// Waits until there is a majority, but no longer than `limit`.
    pub(super) async fn wait_for_majority(&self, limit: Duration) -> Result<(), LockError> {
        let until = Timestamp::now() + limit;
        loop {
            match self.check_majority() {
                Err(_) if !until.has_passed() => tokio::time::sleep(LOOKS_EVERY).await,
                checked => return checked,
            }
        }
    }

    /// Asks all servers for something small.
    ///
    /// # Errors
    ///
    /// If fewer than a majority answer.
    pub(super) async fn check_answers(&self, keys: Keys) -> Result<(), LockError> {
        let mut round = Round::default();
        for (number, member) in self.all.iter().enumerate() {
            if let Some(connection) = member.voting() {
                let keys = member.manager.naming.of_script(&keys);
                let keys = keys.as_slice().iter().map(|key| (*key).to_owned());
                let args = vec![String::new(), "0".to_owned()];
                let to = (&member.manager, &connection);
                let what = (keys.collect(), args);
                round.ask(
                    number,
                    to,
                    &QUORUM_TELL,
                    what,
                    self.common().response_timeout,
                );
            }
        }
        let mut answered = 0;
        while answered < self.majority() {
            match round.next().await {
                Some((_, Ok(_))) => answered += 1,
                Some((_, Err(_))) => {}
                None => {
                    let count = self.all.len();
                    let away = count - answered;
                    return Err(unavailable(format!(
                        "{away} of {count} servers did not answer"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes note of what a server's clock said in an answer that has just come, in microseconds, to
    /// a request that was sent at this moment.
    pub(super) fn note_clock(&self, number: usize, clock: u64, sent_at: Timestamp) {
        let trip = Timestamp::now().since(sent_at).as_micros();
        // The clock is that of the answer's way back, and the next request is on its way for as
        // long as this one was.
        let trip = i64::try_from(trip).map_or(LONGEST_TRIP, |trip| trip.min(LONGEST_TRIP));
        let clock = i64::try_from(clock).unwrap_or(i64::MAX);
        let ahead = clock.saturating_sub(local()).saturating_add(trip);
        self.all[number].ahead.store(ahead, Ordering::Relaxed);
        let known = self.known();
        let differ = known.clone().max().zip(known.min());
        if differ.is_some_and(|(most, least)| most - least > FAR)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "the clocks of the Redis servers differ by more than a second; fencing tokens \
                 survive a server that forgets only if they differ by less than `restart_delay`"
            );
        }
    }

    /// Returns the last token that votes are to give: it is ahead of all clocks, so that all answer
    /// with the same one.
    pub(super) fn proposal(&self) -> u64 {
        let ahead = self.known().max();
        ahead.map_or(0, |ahead| {
            u64::try_from(local() + ahead + AHEAD).unwrap_or(0)
        })
    }

    fn known(&self) -> impl Iterator<Item = i64> + Clone {
        let all = self.all.iter();
        all.map(|member| member.ahead.load(Ordering::Relaxed))
            .filter(|ahead| *ahead != i64::MIN)
    }
}

impl Member {
    pub(super) fn may_vote(&self) -> bool {
        self.voting().is_some()
    }

    /// Returns the connection in use, if the server may vote.
    pub(super) fn voting(&self) -> Option<Arc<Connection>> {
        let current = self.manager.current();
        current.filter(|connection| connection.grants_after().is_none())
    }
}

/// The time of this process, in microseconds.
fn local() -> i64 {
    i64::try_from(Timestamp::now().as_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// Connects again whenever the connection has ended.
async fn keep_connected(manager: Weak<ConnectionManager>) {
    loop {
        let Some(current) = manager.upgrade() else {
            return;
        };
        let connected = current.connection().await;
        drop(current);
        match connected {
            Ok(connection) => {
                let ended = connection.end_signal();
                drop(connection);
                ended.wait().await;
            }
            // The attempt has made its pause.
            Err(error) if error.is_retryable() => {}
            Err(_) => tokio::time::sleep(PAUSE_AFTER_REFUSAL).await,
        }
    }
}
