//! Renewing, on all servers.

use redis::Value;

use super::super::error::lock_error;
use super::super::numbers::milliseconds;
use super::super::script::QUORUM_RENEW;
use super::held::Held;
use super::members::Members;
use super::round::Round;
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::{Grant, LockKind};
use crate::providers::kit::error::{lost, unavailable};

/// Extends the lease if a majority agrees. A server that has no owner for the lock, as it has
/// restarted or was out of reach, votes for this one.
pub(super) async fn renew(members: &Members, grant: &Grant) -> Result<Timestamp, LockError> {
    let Some(held) = grant.state::<Held>() else {
        return Err(lost("it was granted by another provider"));
    };
    let naming = &members.all()[0].manager.naming;
    let keys = naming.keys(grant.name(), LockKind::Mutex);
    let keys = naming.of_script(&keys);
    let last = grant
        .token()
        .map_or(0, |token| token.get() + u64::from(grant.tokens().get()) - 1);
    let patience = members.common().patience(grant.lease());
    let sent_at = Timestamp::now();
    let mut round = Round::default();
    for (number, member) in members.all().iter().enumerate() {
        let Some(connection) = member.manager.current() else {
            continue;
        };
        let may_vote = connection.grants_after().is_none();
        let args = vec![
            held.owner.clone(),
            milliseconds(grant.lease()),
            last.to_string(),
            u8::from(may_vote).to_string(),
        ];
        let of_script = keys.as_slice().iter().map(|key| (*key).to_owned());
        let what = (of_script.collect(), args);
        let to = (&member.manager, &connection);
        round.ask(number, to, &QUORUM_RENEW, what, patience);
        held.sent()[number].note(sent_at, &connection, grant.lease());
    }
    let (mut renewed, mut others, mut answered, mut error) = (0, 0, 0, None);
    let (count, majority) = (members.all().len(), members.majority());
    while let Some((_, answer)) = round.next().await {
        match answer {
            Ok(answer) => {
                answered += 1;
                renewed += usize::from(answer == Value::Int(1));
                others += usize::from(answer == Value::Int(-1));
            }
            Err(it) => error = Some(it),
        }
        if renewed >= majority {
            return Ok(sent_at);
        }
        if count - others < majority {
            return Err(lost("other owners hold it on a majority of the servers"));
        }
    }
    let why = error.map_or(String::new(), |error| format!(" ({})", lock_error(error)));
    Err(unavailable(format!(
        "{renewed} of {count} servers have renewed it, and {} did not answer{why}",
        count - answered
    )))
}
