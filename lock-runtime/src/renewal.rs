//! Renewals: what is due, a provider at a time, and what follows from the answers.

use std::sync::Arc;
use std::time::Duration;

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

/// Renews these holds, on the keeper's runtime.
pub(crate) fn start(mut due: Vec<Arc<Hold>>) {
    while let Some(first) = due.first() {
        // A short lease is not to make others impatient.
        let (space, lease) = (first.provider().lock_space(), first.grant().lease());
        let (together, others) = due.into_iter().partition(|hold| {
            hold.provider().lock_space() == space && hold.grant().lease() == lease
        });
        due = others;
        tokio::spawn(renew(together));
    }
}

async fn renew(holds: Vec<Arc<Hold>>) {
    let provider = Arc::clone(holds[0].provider());
    let grants: Vec<_> = holds.iter().map(|hold| hold.shared_grant()).collect();
    // A call that hangs must not keep the next try from coming.
    let patience = holds[0].renewal_interval();
    let call = keeper::caught(async { Ok(provider.renew_all(&grants).await) });
    let answers = match tokio::time::timeout(patience, call).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(error)) => holds.iter().map(|_| Err(error.clone())).collect(),
        Err(_) => holds.iter().map(|_| Err(unanswered())).collect(),
    };
    let mut answers = answers.into_iter();
    for hold in &holds {
        settle(hold, answers.next().unwrap_or_else(|| Err(unanswered())));
    }
}

fn settle(hold: &Arc<Hold>, answer: Result<Timestamp, LockError>) {
    if hold.has_ended() {
        return;
    }
    meter::renewed(
        &**hold.provider(),
        answer.as_ref().err().map(LockError::kind),
    );
    let pause = (hold.grant().lease() / RETRY_PART).clamp(SHORTEST_RETRY, LONGEST_RETRY);
    let soonest = Timestamp::now() + pause;
    match answer {
        Ok(sent_at) => {
            hold.extend(sent_at);
            // A session confirmed a while ago is confirmed again no sooner than it can be.
            let next = sent_at + hold.renewal_interval();
            let at = if next < soonest {
                hold.plan_retry(soonest)
            } else {
                hold.plan_renewal(next)
            };
            keeper::watch(hold, at);
        }
        Err(error) if error.kind() == LockErrorKind::Lost => hold.lose_to(error),
        Err(error) => {
            observe::renewal_failed(&error.with_name(hold.grant().name().clone()));
            keeper::watch(hold, hold.plan_retry(soonest));
        }
    }
}

fn unanswered() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the provider did not answer a renewal in time")
}
