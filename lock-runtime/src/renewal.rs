//! Renewals: what is due, a provider at a time, and what follows from the answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::call::{Panicked, measured, of_grant};
use crate::clock::Timestamp;
use crate::hold::Hold;
use crate::keeper;
use crate::meter;
use crate::observe;
use crate::{LockError, LockErrorKind};

/// After a renewal that failed, the next try comes after this part of the lease.
const RETRY_PART: u32 = 30;
const SHORTEST_RETRY: Duration = Duration::from_millis(10);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Renews these holds, on the keeper's runtime: those of one provider together, whose leases differ
/// by less than a factor of two, since a short lease is not to make others impatient.
pub(crate) fn start(due: Vec<Arc<Hold>>) {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for hold in due {
        let class = hold.grant().lease().as_millis().checked_ilog2();
        groups
            .entry((hold.source().kind(), class))
            .or_default()
            .push(hold);
    }
    for together in groups.into_values() {
        keeper::spawn(renew(together));
    }
}

async fn renew(holds: Vec<Arc<Hold>>) {
    // A call that hangs must not keep the next try from coming.
    let patience = holds.iter().map(|hold| hold.renewal_interval()).min();
    let patience = patience.unwrap_or_default();
    match ask(&holds, patience).await {
        Ok(answers) => settle_all(&holds, answers),
        Err(Panicked) if holds.len() == 1 => settle_all(&holds, vec![Err(Panicked.into())]),
        // One of them is to blame; the others are not to be lost with it.
        Err(Panicked) => {
            for hold in holds {
                tokio::spawn(async move {
                    let alone = [hold];
                    let answers = ask(&alone, patience).await;
                    settle_all(
                        &alone,
                        answers.unwrap_or_else(|_| vec![Err(Panicked.into())]),
                    );
                });
            }
        }
    }
}

async fn ask(
    holds: &[Arc<Hold>],
    patience: Duration,
) -> Result<Vec<Result<Timestamp, LockError>>, Panicked> {
    let source = holds[0].source();
    let grants: Vec<_> = holds.iter().map(|hold| hold.shared_grant()).collect();
    let call = async { source.provider.renew_all(&grants).await };
    let call = measured(source.name(), "renew", call);
    match tokio::time::timeout(patience, call).await {
        Ok(answers) => answers,
        Err(_) => Ok(holds.iter().map(|_| Err(unanswered())).collect()),
    }
}

fn settle_all(holds: &[Arc<Hold>], answers: Vec<Result<Timestamp, LockError>>) {
    let mut answers = answers.into_iter();
    for hold in holds {
        let answer = answers.next().unwrap_or_else(|| Err(unanswered()));
        settle(hold, answer.map_err(of_grant));
    }
}

fn settle(hold: &Arc<Hold>, answer: Result<Timestamp, LockError>) {
    if hold.has_ended() {
        return;
    }
    meter::renewed(
        hold.source().name(),
        answer.as_ref().err().map(LockError::kind),
    );
    let pause = (hold.grant().lease() / RETRY_PART).clamp(SHORTEST_RETRY, LONGEST_RETRY);
    let soonest = Timestamp::now() + pause;
    match answer {
        Ok(sent_at) => {
            hold.extend(sent_at);
            hold.renewal_failed(false);
            // A session confirmed a while ago is confirmed again no sooner than it can be.
            let next = sent_at.min(Timestamp::now()) + hold.renewal_interval();
            let at = if next < soonest {
                hold.plan_retry(soonest)
            } else {
                hold.plan_renewal(next)
            };
            keeper::watch(hold, at);
        }
        Err(error) if error.kind() == LockErrorKind::Lost => hold.lose_to(error),
        Err(error) => {
            let first = hold.renewal_failed(true);
            let error = error.with_name(hold.grant().name().clone());
            observe::renewal_failed(&error, hold.source().name(), hold.deadline(), first);
            keeper::watch(hold, hold.plan_retry(soonest));
        }
    }
}

fn unanswered() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the provider did not answer a renewal in time")
}
