//! Renews the leases that are due, in one call for each provider, and acts on the answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Lease;
use super::schedule::watch;
use crate::background;
use crate::call::{Panicked, measured, of_grant};
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::telemetry::{metrics, spans};

/// After a renewal that failed, the next try comes after this part of the lease, within the bounds
/// below.
const RETRY_PART: u32 = 30;
const SHORTEST_RETRY: Duration = Duration::from_millis(10);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Renews these leases on the background thread. Leases of one provider are renewed together if
/// their lengths differ by less than a factor of two: a short lease bounds how long the call may
/// take.
pub(super) fn start(due: Vec<Arc<Lease>>) {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for lease in due {
        let class = lease.grant().lease().as_millis().checked_ilog2();
        groups
            .entry((lease.source().kind(), class))
            .or_default()
            .push(lease);
    }
    for together in groups.into_values() {
        background::spawn(renew(together));
    }
}

/// Renews these leases in one call, and acts on the answers.
async fn renew(leases: Vec<Arc<Lease>>) {
    // A call that hangs must not hold up the next try.
    let patience = leases.iter().map(|lease| lease.renewal_interval()).min();
    let patience = patience.unwrap_or_default();
    match ask(&leases, patience).await {
        Ok(answers) => settle_all(&leases, answers),
        Err(Panicked) if leases.len() == 1 => settle_all(&leases, vec![Err(Panicked.into())]),
        // One lease made the provider panic. The others must not be lost with it.
        Err(Panicked) => {
            for lease in leases {
                background::spawn_beside(async move {
                    let alone = [lease];
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

/// Asks the provider to renew these leases. Gives up after `patience`.
async fn ask(
    leases: &[Arc<Lease>],
    patience: Duration,
) -> Result<Vec<Result<Timestamp, LockError>>, Panicked> {
    let source = leases[0].source();
    let grants: Vec<_> = leases.iter().map(|lease| lease.shared_grant()).collect();
    let call = async { source.provider.renew_all(&grants).await };
    let call = measured(source.name(), "renew", call);
    match tokio::time::timeout(patience, call).await {
        Ok(answers) => answers,
        Err(_) => Ok(leases.iter().map(|_| Err(unanswered())).collect()),
    }
}

fn settle_all(leases: &[Arc<Lease>], answers: Vec<Result<Timestamp, LockError>>) {
    let mut answers = answers.into_iter();
    for lease in leases {
        let answer = answers.next().unwrap_or_else(|| Err(unanswered()));
        settle(lease, answer.map_err(of_grant));
    }
}

/// Extends or loses the lease, or plans another try.
fn settle(lease: &Arc<Lease>, answer: Result<Timestamp, LockError>) {
    if lease.has_ended() {
        return;
    }
    metrics::renewed(
        lease.source().name(),
        answer.as_ref().err().map(LockError::kind),
    );
    let pause = (lease.grant().lease() / RETRY_PART).clamp(SHORTEST_RETRY, LONGEST_RETRY);
    let soonest = Timestamp::now() + pause;
    match answer {
        Ok(sent_at) => {
            lease.extend(sent_at);
            lease.renewal_failed(false);
            // A provider may answer with a session that it confirmed a while ago. The next renewal
            // then is due earlier, but no earlier than after the pause.
            let next = sent_at.min(Timestamp::now()) + lease.renewal_interval();
            let at = if next < soonest {
                lease.plan_retry(soonest)
            } else {
                lease.plan_renewal(next)
            };
            watch(lease, at);
        }
        // While it is being upgraded, its owner may be gone because another one has its place.
        Err(error) if error.kind() == LockErrorKind::Lost && !lease.is_upgrading() => {
            lease.lose_with(error);
        }
        Err(error) => {
            let first = lease.renewal_failed(true);
            let error = error.with_name(lease.grant().name().clone());
            spans::renewal_failed(&error, lease.source().name(), lease.deadline(), first);
            watch(lease, lease.plan_retry(soonest));
        }
    }
}

fn unanswered() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("the provider did not answer a renewal in time")
}
