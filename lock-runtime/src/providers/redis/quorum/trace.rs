//! What an acquisition has left on each server, and taking it back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::cleanup::{Cleanup, Unconfirmed};
use super::super::connection::Connection;
use super::super::keys::Keys;
use super::super::modes::Claim;
use super::held::Sent;
use super::members::Members;
use crate::background;
use crate::clock::Timestamp;
use crate::future::{BoxFuture, join_all};
use crate::provider::{AcquireRequest, LockKind};

/// How long an acquisition that has failed waits for its leftovers to be taken back.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

pub(super) struct Trace<'a> {
    members: &'a Members,
    pub(super) keys: Keys,
    /// All owners that it has had.
    claims: Vec<Claim>,
    lease: Duration,
    pub(super) sent: Vec<Sent>,
}

impl<'a> Trace<'a> {
    pub(super) fn new(members: &'a Members, request: &AcquireRequest) -> Self {
        let naming = &members.all()[0].manager.naming;
        Self {
            members,
            keys: naming.keys(request.name(), LockKind::Mutex),
            claims: vec![Claim::new(naming, request.owner(), request.mode())],
            lease: request.lease(),
            sent: vec![Sent::default(); members.all().len()],
        }
    }

    /// Returns the owner under which it stands in a queue.
    pub(super) fn first_owner(&self) -> &str {
        &self.claims[0].owner
    }

    /// Returns an owner of its own for one more attempt. What takes an attempt back may be late, and
    /// must not take the next one back.
    pub(super) fn new_owner(&mut self) -> String {
        let owner = format!("{}#{}", self.first_owner(), self.claims.len());
        let mode = self.claims[0].mode.clone();
        self.claims.push(Claim {
            owner: owner.clone(),
            mode,
        });
        owner
    }

    pub(super) fn note(&mut self, number: usize, at: Timestamp, connection: &Arc<Connection>) {
        self.sent[number].note(at, connection, self.lease);
    }

    /// Takes back what is on all servers but this one, if it names one. What takes longer than a
    /// moment goes on in the background.
    pub(super) async fn take_back(&self, but: Option<usize>) {
        let all = self.members.all().iter().zip(&self.sent).enumerate();
        let all = all.filter(|(number, _)| Some(*number) != but);
        let jobs = all.filter_map(|(_, (member, sent))| {
            let (at, connection) = sent.last()?;
            let until = sent.stray_until(Some(connection), self.lease);
            let unconfirmed = until.map(|until| Unconfirmed { until });
            let claims = self.claims.clone();
            let cleanup = Cleanup::new(&member.manager, &self.keys, claims, self.lease);
            let cleanup = cleanup.after(*at, Arc::clone(connection)).and(unconfirmed);
            let (done, is_done) = oneshot::channel();
            // Without the background thread there is no connection either.
            let _ = background::run(async {
                if let Err(left) = cleanup.on_the_same_connection().await {
                    left.in_the_background();
                }
                // Nobody may wait any more.
                let _ = done.send(());
            });
            let done: BoxFuture<'static, ()> = Box::pin(async { drop(is_done.await) });
            Some(done)
        });
        let jobs = join_all(jobs.collect());
        let _ = tokio::time::timeout(LONGEST_WAIT, jobs).await;
    }

    /// Takes back a place in this server's queue, whose connection is not known.
    pub(super) fn leave_queue_of(&self, number: usize) {
        let manager = &self.members.all()[number].manager;
        Cleanup::new(manager, &self.keys, self.claims.clone(), self.lease).in_the_background();
    }
}
