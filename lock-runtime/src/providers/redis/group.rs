//! Groups: acquisitions and releases of many locks in one request.
//!
//! The request is for mutexes. Calls of other modes are made beside it, each by itself.
//!
//! Each is answered by itself. What one request does not settle, such as a wait for another holder,
//! goes on in a task of its own, as it does for a call that was made alone.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value};

use super::acquire::acquire;
use super::acquire_reply::{Answer, read};
use super::acquisition::{Acquisition, Asked, settle};
use super::cleanup::Cleanup;
use super::connection::{Connection, Releasing};
use super::connection_manager::ConnectionManager;
use super::error::{fault, given_up, is_forgotten};
use super::modes::{Claim, check};
use super::numbers::milliseconds;
use super::release::{self, Release};
use super::residue::Residue;
use super::script::{By, GROUP as SCRIPT};
use super::waiting::Waiting;
use crate::background::spawn_beside;
use crate::clock::Timestamp;
use crate::future::join_all;
use crate::provider::{AcquireCall, Call, Grant, LockKind, LockMode, ReleaseCall};
use crate::providers::kit::fault::Fault;
use crate::sending::{is_watched, unsent};
use crate::{LockError, LockErrorKind};

/// How many calls go together at most. With more, the server gains little, and others wait longer.
pub(super) const GROUP: usize = 64;

/// About how long an owner is.
const OWNER: usize = 64;

/// Makes the calls in one request.
pub(super) async fn call_all(manager: &Arc<ConnectionManager>, calls: Vec<Call>) {
    let mut group = Group::default();
    let mut others = Vec::new();
    for call in calls {
        // The script for many locks is for mutexes. What else there is goes beside it.
        match mode(&call) {
            LockMode::Exclusive => group.add(call),
            _ => {
                let mut other = Group::default();
                other.add(call);
                others.push(other);
            }
        }
    }
    if others.is_empty() {
        return group.make(manager).await;
    }
    others.push(group);
    let groups = others.into_iter();
    join_all(
        groups
            .map(|group| Box::pin(group.make(manager)) as _)
            .collect(),
    )
    .await;
}

fn mode(call: &Call) -> LockMode {
    match call {
        Call::Release(call) => call.grant().mode(),
        Call::Acquire(call) => call.request().mode(),
    }
}

/// The calls of one request, in the order of its script.
#[derive(Default)]
struct Group {
    releases: Vec<ReleaseCall>,
    takes: Vec<(AcquireCall, Form)>,
    passes: Vec<(AcquireCall, Form)>,
}

/// What several acquisitions ask for alike.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Form {
    lease: Duration,
    tokens: NonZeroU32,
    waits: bool,
}

impl Form {
    fn of(call: &AcquireCall) -> Self {
        let request = call.request();
        Self {
            lease: request.lease(),
            tokens: request.tokens_wanted(),
            waits: request.waits(),
        }
    }
}

impl Group {
    fn acquisitions(&self) -> impl Iterator<Item = &(AcquireCall, Form)> {
        self.takes.iter().chain(&self.passes)
    }

    fn len(&self) -> usize {
        self.releases.len() + self.takes.len() + self.passes.len()
    }

    fn add(&mut self, call: Call) {
        match call {
            Call::Release(call) => self.releases.push(call),
            Call::Acquire(call) if call.gives_up().is_none() && call.request().is_abandoned() => {
                call.answer(Err(LockErrorKind::Contended.into()));
            }
            Call::Acquire(call) => {
                let form = Form::of(&call);
                match call.gives_up() {
                    None => self.takes.push((call, form)),
                    Some(_) => self.passes.push((call, form)),
                }
            }
        }
    }

    /// Makes the calls, in one request if there is a connection that may grant locks.
    async fn make(self, manager: &Arc<ConnectionManager>) {
        if self.len() == 0 {
            return;
        }
        let can_be_asked = self
            .acquisitions()
            .all(|(call, _)| check(call.request().mode()).is_ok());
        let current = manager.current();
        match current.filter(|connection| connection.grants_after().is_none()) {
            Some(connection) if can_be_asked => self.run(manager, connection).await,
            _ => self.go_on_alone(manager, false),
        }
    }

    async fn run(self, manager: &Arc<ConnectionManager>, connection: Arc<Connection>) {
        // What is asked for on the connection after a release is carried out after it. If the
        // connection ends before, the lock that is still there is nobody's.
        let followed = !self.releases.is_empty() && is_watched();
        let _residue = followed.then(|| {
            let owners = self.releases.iter().map(|call| owner_of(manager, call));
            Residue::new(&owners.collect::<Vec<_>>())
        });
        if self.len() == 1 {
            // The script for one lock does less.
            return self.run_one(manager, connection, followed).await;
        }
        let command = self.command(manager, By::Hash);
        let sent_at = Timestamp::now();
        for (call, _) in self.acquisitions() {
            call.request().report_unanswered_since(Some(sent_at));
        }
        let unsent = (!connection.knows(Releasing::Several)).then(unsent);
        let answer = match connection.query(command).await {
            Err(error) if is_forgotten(&error) => {
                let command = self.command(manager, By::Text);
                Box::pin(connection.query(command)).await
            }
            answer => answer,
        };
        drop(unsent);
        if answer.is_ok() {
            connection.has_learnt(Releasing::Several);
        }
        for (call, _) in self.acquisitions() {
            call.request().report_unanswered_since(None);
        }
        if let Err(error) = &answer
            && fault(error) == Fault::Refused
        {
            // What the user may not do with one key, the server refuses for all, and does nothing.
            return self.go_on_alone(manager, followed);
        }
        let made = Made {
            manager,
            connection,
            sent_at,
            followed,
        };
        let mut answers = Answers::new(answer);
        for call in self.releases {
            made.release(call, release::read(answers.next()));
        }
        for (call, form) in self.takes.into_iter().chain(self.passes) {
            let answer = answers.next_acquisition();
            made.acquire(call, form, answer);
        }
    }

    async fn run_one(
        self,
        manager: &Arc<ConnectionManager>,
        connection: Arc<Connection>,
        followed: bool,
    ) {
        for call in self.releases {
            let sent_at = Timestamp::now();
            let answer = Release::new(manager, call.grant()).ask(&connection).await;
            let connection = Arc::clone(&connection);
            let made = Made {
                manager,
                connection,
                sent_at,
                followed,
            };
            made.release(call, answer);
        }
        for (call, _) in self.takes.into_iter().chain(self.passes) {
            let old = gives_up(manager, &call);
            let acquisition = Acquisition::new(manager, call.request(), old);
            let asked = acquisition.ask(Arc::clone(&connection), None).await;
            go_on(manager, call, asked);
        }
    }

    /// Makes the request. It names keys and owners in the order that the script wants.
    fn command(&self, manager: &ConnectionManager, by: By) -> Cmd {
        let naming = &manager.naming;
        let mut forms: Vec<Form> = Vec::new();
        for (_, form) in self.acquisitions() {
            if !forms.contains(form) {
                forms.push(*form);
            }
        }
        let names = self.releases.iter().map(|call| call.grant().name());
        let names = names.chain(self.acquisitions().map(|(call, _)| call.request().name()));
        let all_keys: Vec<_> = names
            .map(|name| naming.keys(name, LockKind::Mutex))
            .collect();
        let count = all_keys.len();
        let keys = all_keys.iter();
        let bytes = keys.map(|keys| keys.lock.len() + keys.waiters.len() + OWNER);
        let args = 4 + 3 * forms.len() + 3 * count;
        let mut command = SCRIPT.begin(by, 1 + 2 * count, args, bytes.sum());
        command.arg(&naming.fence);
        for keys in &all_keys {
            command.arg(&keys.lock);
        }
        for keys in &all_keys {
            command.arg(&keys.waiters);
        }
        command
            .arg(self.releases.len())
            .arg(self.takes.len())
            .arg(self.passes.len())
            .arg(forms.len());
        for form in &forms {
            let channel = match form.waits {
                true => naming.channel.as_str(),
                false => "",
            };
            command
                .arg(milliseconds(form.lease))
                .arg(form.tokens.get())
                .arg(channel);
        }
        for call in &self.releases {
            command.arg(naming.owner(call.grant().owner()));
        }
        for (call, form) in self.acquisitions() {
            let number = forms.iter().position(|it| it == form).unwrap_or_default() + 1;
            command
                .arg(naming.owner(call.request().owner()))
                .arg(number);
            if let Some(grant) = call.gives_up() {
                command.arg(naming.owner(grant.owner()));
            }
        }
        command
    }

    /// Makes each call by itself: there is no connection now that may grant locks, or the server
    /// has refused the request as a whole.
    fn go_on_alone(self, manager: &Arc<ConnectionManager>, followed: bool) {
        for call in self.releases {
            let manager = Arc::clone(manager);
            // Whoever has followed it may find the lock held, and takes it back then.
            let residue = followed.then(|| Residue::new(&[owner_of(&manager, &call)]));
            spawn_beside(async move {
                let released = Release::new(&manager, call.grant()).run().await;
                answer_release(&manager, call, released, followed);
                drop(residue);
            });
        }
        for (call, _) in self.takes.into_iter().chain(self.passes) {
            let manager = Arc::clone(manager);
            spawn_beside(async move {
                let old = gives_up(&manager, &call);
                let acquired = acquire(&manager, call.request(), old).await;
                answer(&manager, call, acquired);
            });
        }
    }
}

/// A request that was made.
struct Made<'a> {
    manager: &'a Arc<ConnectionManager>,
    connection: Arc<Connection>,
    sent_at: Timestamp,
    /// Whether the locks may have been asked for again since.
    followed: bool,
}

impl Made<'_> {
    /// Answers a release, or goes on with it.
    fn release(&self, call: ReleaseCall, answer: RedisResult<bool>) {
        let (manager, sent_at) = (self.manager, self.sent_at);
        let answer = match manager.has_left(&self.connection) {
            // Its successor may have the lock still.
            true => answer.and_then(|_| Err(given_up())),
            false => answer,
        };
        match release::settle(answer) {
            Ok(outcome) => {
                // Whoever followed it did so on another connection then.
                let may_be_gone = self.followed && self.connection.has_ended();
                answer_release(manager, call, outcome, may_be_gone);
            }
            Err(error) => {
                let (manager, connection) = (Arc::clone(manager), Arc::clone(&self.connection));
                let residue = Residue::new(&[owner_of(&manager, &call)]);
                spawn_beside(async move {
                    let release = Release::new(&manager, call.grant());
                    let released = release.go_on(Some((sent_at, connection, error))).await;
                    answer_release(&manager, call, released, false);
                    drop(residue);
                });
            }
        }
    }

    /// Answers an acquisition, or goes on with it.
    fn acquire(&self, call: AcquireCall, form: Form, answer: RedisResult<Answer>) {
        let connection = Arc::clone(&self.connection);
        let asked = Asked::new(connection, self.sent_at, form.tokens, answer);
        go_on(self.manager, call, asked);
    }
}

/// Answers an acquisition, or goes on with it in a task of its own.
fn go_on(manager: &Arc<ConnectionManager>, call: AcquireCall, asked: Asked) {
    let asked = match settle(manager, call.request(), asked) {
        Ok(outcome) => return answer(manager, call, outcome),
        Err(asked) => asked,
    };
    let manager = Arc::clone(manager);
    spawn_beside(async move {
        let old = gives_up(&manager, &call);
        let acquisition = Acquisition::new(&manager, call.request(), old);
        let waiting = Waiting::new(acquisition, asked.sent_at);
        let acquired = waiting.run(Some(asked)).await;
        answer(&manager, call, acquired);
    });
}

fn owner_of(manager: &ConnectionManager, call: &ReleaseCall) -> String {
    manager.naming.owner(call.grant().owner())
}

/// Returns the owner that gives the lock up in the same step, if there is one.
fn gives_up(manager: &ConnectionManager, call: &AcquireCall) -> Option<Claim> {
    let grant = call.gives_up()?;
    Some(Claim::of(&manager.naming, grant))
}

fn answer(manager: &Arc<ConnectionManager>, call: AcquireCall, answer: Result<Grant, LockError>) {
    if let Some(grant) = call.gives_up() {
        Cleanup::of_grant(manager, grant);
    }
    call.answer(answer);
}

/// Answers a release. `may_be_gone` says that somebody of this process may have taken the lock back
/// before; then it is no loss.
fn answer_release(
    manager: &Arc<ConnectionManager>,
    call: ReleaseCall,
    released: Result<(), LockError>,
    may_be_gone: bool,
) {
    Cleanup::of_grant(manager, call.grant());
    call.answer(match released {
        Err(error) if may_be_gone && error.kind() == LockErrorKind::Lost => Ok(()),
        released => released,
    });
}

/// The answers to one request, in its order.
struct Answers {
    /// The first token of the locks that were taken at once.
    first: u64,
    each: vec::IntoIter<Value>,
    /// The answer to all calls, if they have none of their own.
    failed: Option<RedisError>,
}

impl Answers {
    fn new(answer: RedisResult<Value>) -> Self {
        let (each, failed) = match answer {
            Ok(Value::Array(each)) => (each, None),
            Ok(_) => (Vec::new(), None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut each = each.into_iter();
        let first = each.next().map(redis::from_redis_value::<Option<u64>>);
        Self {
            first: first.and_then(Result::ok).flatten().unwrap_or(0),
            each,
            failed,
        }
    }

    fn next(&mut self) -> RedisResult<Value> {
        match (self.each.next(), &self.failed) {
            (Some(answer), _) => answer.extract_error(),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err((
                ErrorKind::UnexpectedReturnType,
                "an answer of another length",
            )
                .into()),
        }
    }

    fn next_acquisition(&mut self) -> RedisResult<Answer> {
        match self.next()? {
            Value::Int(index) => {
                let before = u64::try_from(index - 1).unwrap_or(0);
                Ok(Answer::Granted(self.first + before, NonZeroU32::MIN))
            }
            answer => read(answer),
        }
    }
}
