//! Who holds a lock, as a majority of the servers says.

use std::time::Duration;

use redis::{RedisResult, Value};

use super::super::error::lock_error;
use super::super::script::INSPECT;
use super::members::Members;
use super::round::Round;
use crate::provider::{LockKind, LockState};
use crate::providers::kit::error::{unavailable, unsupported};
use crate::{LockError, LockName};

/// What one server says: how many wait there, and the holder's value with its remaining time in
/// milliseconds.
type Said = (usize, Option<(Vec<u8>, i64)>);

/// Asks all servers. A value that no majority has is no holder's.
pub(super) async fn inspect(
    members: &Members,
    name: &LockName,
    kind: LockKind,
) -> Result<LockState, LockError> {
    if kind != LockKind::Mutex {
        return Err(unsupported("a quorum of Redis servers has mutexes alone"));
    }
    let naming = &members.all()[0].manager.naming;
    let keys = naming.keys(name, kind);
    let keys = naming.of_script(&keys);
    let mut round = Round::default();
    for (number, member) in members.all().iter().enumerate() {
        if let Some(connection) = member.manager.current() {
            let keys = keys.as_slice().iter().map(|key| (*key).to_owned());
            let what = (keys.collect(), vec!["mutex".to_owned()]);
            let patience = members.common().response_timeout;
            let to = (&member.manager, &connection);
            round.ask(number, to, &INSPECT, what, patience);
        }
    }
    let (mut all, mut error) = (Vec::new(), None);
    // All are waited for, since those who wait may be known to one of them alone.
    while let Some((_, answer)) = round.next().await {
        match answer.and_then(read) {
            Ok(said) => all.push(said),
            Err(it) => error = Some(it),
        }
    }
    let count = members.all().len();
    if all.len() < members.majority() {
        let why = error.map_or(String::new(), |error| format!(" ({})", lock_error(error)));
        let away = count - all.len();
        return Err(unavailable(format!(
            "{away} of {count} servers did not answer{why}"
        )));
    }
    let waiters = all.iter().map(|(waiters, _)| waiters).sum();
    let holder = held(&all, members.majority()).map(|(value, left)| {
        let holder = naming.holder(value);
        match u64::try_from(left) {
            Ok(left) => holder.with_expires_in(Duration::from_millis(left)),
            Err(_) => holder,
        }
    });
    Ok(LockState::new(holder.into_iter().collect()).with_waiters(waiters))
}

/// Returns the value that a majority has, and for how long a majority will have it.
fn held(all: &[Said], majority: usize) -> Option<(&[u8], i64)> {
    let values = || all.iter().filter_map(|(_, holder)| holder.as_ref());
    values().find_map(|(value, _)| {
        let same = values().filter(|(other, _)| other == value);
        let mut left: Vec<_> = same.map(|(_, left)| *left).collect();
        left.sort_unstable_by(|one, other| other.cmp(one));
        Some((value.as_slice(), *left.get(majority - 1)?))
    })
}

fn read(answer: Value) -> RedisResult<Said> {
    let Value::Array(mut parts) = answer else {
        // What stands there is no lock.
        return Ok((0, None));
    };
    let holders = parts.split_off(parts.len().min(1));
    let waiters = redis::from_redis_value(parts.pop().unwrap_or(Value::Int(0)))?;
    let holders: Vec<(Vec<u8>, i64, String)> = redis::from_redis_value(Value::Array(holders))?;
    let holder = holders.into_iter().next();
    Ok((waiters, holder.map(|(value, left, _)| (value, left))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_whom_a_majority_names() {
        let said = |value: &str, left| (0, Some((value.as_bytes().to_vec(), left)));
        let all = [said("a", 30), said("b", 90), said("a", 50), (2, None)];
        assert_eq!(held(&all, 2), Some((b"a".as_slice(), 30)));
        assert_eq!(held(&all, 3), None);
        assert_eq!(held(&[(1, None)], 1), None);
    }
}
