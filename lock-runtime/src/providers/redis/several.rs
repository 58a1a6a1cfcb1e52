//! Several mutexes in one request: as many as are free, up to the first that is held.

use std::sync::Arc;

use redis::{Cmd, RedisResult, Value};

use super::acquire::acquire;
use super::acquire_reply::read;
use super::acquisition::{Acquisition, Asked, settle};
use super::connection::Connection;
use super::connection_manager::ConnectionManager;
use super::error::{given_up, is_forgotten};
use super::numbers::milliseconds;
use super::script::{By, SEVERAL};
use super::waiting::Waiting;
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant, LockKind, LockMode};
use crate::{LockError, LockErrorKind};

/// Returns a connection on which these locks can be taken together. Other kinds of locks are taken
/// one by one, and so are mutexes while there is no connection that may grant locks.
pub(super) fn connection_for(
    manager: &Arc<ConnectionManager>,
    requests: &[AcquireRequest],
) -> Option<Arc<Connection>> {
    let are_mutexes = requests
        .iter()
        .all(|request| request.mode() == LockMode::Exclusive);
    let current = manager.current().filter(|_| are_mutexes);
    current.filter(|connection| connection.grants_after().is_none())
}

/// Takes these locks in one request, and settles the answers one after another.
pub(super) async fn acquire_several(
    manager: &Arc<ConnectionManager>,
    connection: Arc<Connection>,
    requests: &[AcquireRequest],
) -> Vec<Result<Grant, LockError>> {
    let sent_at = Timestamp::now();
    for request in requests {
        request.report_unanswered_since(Some(sent_at));
    }
    let answer = match connection.query(command(manager, requests, By::Hash)).await {
        Err(error) if is_forgotten(&error) => {
            connection.query(command(manager, requests, By::Text)).await
        }
        answer => answer,
    };
    for request in requests {
        request.report_unanswered_since(None);
    }
    let mut answers = Answers::new(answer);
    let mut outcomes = Vec::with_capacity(requests.len());
    for request in requests {
        let is_over = outcomes.last().is_some_and(Result::is_err);
        let acquisition = || Acquisition::new(manager, request, None);
        let Some(answer) = answers.next() else {
            // The script has stopped before this lock. If the one before it is held all the same,
            // which took more than one request, then so does this one.
            outcomes.push(match is_over {
                true => Err(LockErrorKind::Contended.into()),
                false => acquire(manager, request, None).await,
            });
            continue;
        };
        if is_over {
            // A lock before it is not held, so this one is not wanted, whatever has become of it.
            acquisition()
                .cleanup(sent_at, Arc::clone(&connection))
                .in_the_background();
            outcomes.push(Err(LockErrorKind::Contended.into()));
            continue;
        }
        let wanted = request.tokens_wanted();
        let answer = answer.and_then(read);
        let asked = Asked::new(Arc::clone(&connection), sent_at, wanted, answer);
        outcomes.push(match settle(manager, request, asked) {
            Ok(outcome) => outcome,
            // What is left to do is what one lock needs.
            Err(asked) => {
                let waiting = Waiting::new(acquisition(), sent_at);
                Box::pin(waiting.run(Some(asked))).await
            }
        });
    }
    outcomes
}

fn command(manager: &ConnectionManager, requests: &[AcquireRequest], by: By) -> Cmd {
    let naming = &manager.naming;
    let keys: Vec<_> = requests
        .iter()
        .map(|request| naming.keys(request.name(), LockKind::Mutex))
        .collect();
    let bytes = keys.iter().map(|keys| keys.lock.len() + keys.waiters.len());
    let count = requests.len();
    let mut command = SEVERAL.begin(
        by,
        1 + 2 * count,
        3 * count,
        bytes.sum::<usize>() + 80 * count,
    );
    command.arg(&naming.fence);
    for keys in &keys {
        command.arg(&keys.lock);
    }
    for keys in &keys {
        command.arg(&keys.waiters);
    }
    for request in requests {
        command
            .arg(naming.owner(request.owner()))
            .arg(milliseconds(request.lease()))
            .arg(request.tokens_wanted().get());
    }
    command
}

/// The answers to one request, in its order.
enum Answers {
    Each(std::vec::IntoIter<Value>),
    /// The answer to all, since nobody knows what the server has done.
    Failed(redis::RedisError),
}

impl Answers {
    fn new(answer: RedisResult<Value>) -> Self {
        match answer {
            Ok(Value::Array(each)) if !each.is_empty() => Self::Each(each.into_iter()),
            Ok(_) => Self::Failed(given_up()),
            Err(error) => Self::Failed(error),
        }
    }

    /// Returns the answer for the next lock; `None` if the script has not come to it.
    fn next(&mut self) -> Option<RedisResult<Value>> {
        match self {
            Self::Each(each) => each.next().map(Value::extract_error),
            Self::Failed(error) => Some(Err(error.clone())),
        }
    }
}
