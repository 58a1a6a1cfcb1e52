//! The provider's call that gives a lock back, alone or together with others.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::release_answer::Answers;
use super::slot::SlotRef;
use crate::background::Done;
use crate::call::{Panicked, measured, of_grant};
use crate::call_queue::{DueCall, Watch, Watcher};
use crate::error::{LockError, LockErrorKind};
use crate::future::{First, select};
use crate::lease::Lease;
use crate::provider::{Call, ReleaseCall, ReleaseCaller};
use crate::sending::watched;
use crate::wake;

impl SlotRef {
    /// Makes a call of the release, which goes together with others.
    pub(super) fn grouped_release(
        self,
        lease: Arc<Lease>,
        answers: Answers,
        done: Done,
    ) -> DueCall {
        let source = self.source();
        let (provider, name) = (Arc::clone(&source.provider), source.name());
        let (grant, end) = (lease.shared_grant(), lease.server_deadline());
        let tells_sent = answers.wait_for_sent();
        let caller = Arc::new(Caller {
            was_lost: lease.is_lost(),
            slot: self,
            awaited: Mutex::new(Some(Awaited {
                lease,
                answers,
                gone_on: false,
            })),
            _done: done,
        });
        let watching = Arc::downgrade(&caller);
        DueCall {
            provider,
            name,
            call: Call::Release(ReleaseCall::new(grant, caller)),
            watch: Some(Watch {
                caller: watching,
                until: end,
                tells_sent,
            }),
        }
    }

    /// Has the provider release the lease, and waits for the answer.
    ///
    /// Waiters go on when the answer has come, or when the server's lease has ended. In the second
    /// case the call goes on beside them.
    pub(super) async fn finish_releasing(
        &self,
        lease: Arc<Lease>,
        pause: Option<Duration>,
        mut answers: Answers,
    ) {
        let source = self.source();
        let was_lost = lease.is_lost();
        let end = lease.server_deadline();
        let result = {
            let release = async { source.provider.release(lease.grant()).await };
            let release = measured(source.name(), "release", release);
            let mut release = pin!(watched(release, answers.sent().map(|sent| |_| sent.tell())));
            match select(release.as_mut(), tokio::time::sleep(end.remaining())).await {
                First::Left(released) => released,
                First::Right(()) => {
                    self.released();
                    self.answer(answers, Err(unanswered()), was_lost);
                    let _ = release.await;
                    return;
                }
            }
        };
        wake::survive(|| drop(lease));
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        self.released();
        let result = result.unwrap_or_else(|panicked| Err(panicked.into()));
        self.answer(answers, result.map_err(of_grant), was_lost);
    }

    /// Sends the answer to the caller that waits for the release.
    fn answer(&self, answers: Answers, result: Result<(), LockError>, was_lost: bool) {
        // After a loss the release is a precaution, which may find nothing left to release.
        answers.give(match result {
            Err(error) if !was_lost => Err(error.with_name(self.name.clone())),
            _ => Ok(()),
        });
    }
}

/// Who gets the answer to a release that went together with others.
struct Caller {
    slot: SlotRef,
    was_lost: bool,
    /// Taken by the answer, or when the server's lease has ended.
    awaited: Mutex<Option<Awaited>>,
    _done: Done,
}

/// What waits for an answer to a release.
struct Awaited {
    lease: Arc<Lease>,
    answers: Answers,
    /// Whether the next caller's turn has come already.
    gone_on: bool,
}

impl Caller {
    fn awaited(&self) -> MutexGuard<'_, Option<Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets waiters go on, and sends the answer. Only the first one counts.
    fn answer(&self, result: Result<(), LockError>) {
        let awaited = self.awaited().take();
        let Some(Awaited {
            lease,
            answers,
            gone_on,
        }) = awaited
        else {
            return;
        };
        wake::survive(|| drop(lease));
        if !gone_on {
            self.slot.released();
        }
        self.slot.answer(answers, result, self.was_lost);
    }
}

impl ReleaseCaller for Caller {
    fn answered(&self, answer: Option<Result<(), LockError>>) {
        let answer = answer.unwrap_or_else(|| Err(Panicked.into()));
        self.answer(answer.map_err(of_grant));
    }
}

impl Watcher for Caller {
    fn overdue(&self) {
        self.answer(Err(unanswered()));
    }

    /// Lets waiters go on too, if what they ask for comes to the server after the release.
    fn sent(&self, exactly: bool) {
        let mut awaited = self.awaited();
        let Some(waits) = &mut *awaited else { return };
        let sent = waits.answers.sent();
        let goes_on = exactly && !std::mem::replace(&mut waits.gone_on, true);
        drop(awaited);
        if goes_on {
            self.slot.released();
        }
        if let Some(sent) = sent {
            sent.tell();
        }
    }
}

fn unanswered() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the release was not answered before the server's lease ended")
}
