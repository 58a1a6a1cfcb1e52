//! Who holds a lock, as the server says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, ParsingError, Value};

use super::connection_manager::ConnectionManager;
use super::error::{lock_error, no_lock};
use super::script::INSPECT;
use crate::provider::{Holder, LockKind, LockMode, LockState};
use crate::providers::kit::error::unavailable;
use crate::{LockError, LockName};

/// Asks the server who holds the lock, and how many wait for it there.
pub(super) async fn inspect(
    manager: &Arc<ConnectionManager>,
    name: &LockName,
    kind: LockKind,
) -> Result<LockState, LockError> {
    let connection = manager.connection().await?;
    let keys = manager.naming.keys(name, kind);
    let label = match kind {
        LockKind::Mutex => "mutex",
        LockKind::RwLock => "rw",
        LockKind::Semaphore => "permits",
    };
    let all = manager.naming.of_script(&keys);
    let answer = match connection.run(&INSPECT, all.as_slice(), &[label]).await {
        Ok(answer) => answer,
        Err(error) => {
            manager.note(&connection, &error);
            return Err(lock_error(error));
        }
    };
    let Value::Array(mut parts) = answer else {
        return Err(no_lock(&keys.lock, &format!("something that is no {kind}")));
    };
    let unclear = |_| unavailable("the server answered what this library does not understand");
    let holders = parts.split_off(parts.len().min(1));
    let waiters = parts.pop().unwrap_or(Value::Int(0));
    let waiters = usize::from_redis_value(waiters).map_err(unclear)?;
    let holders: Vec<Described> =
        redis::from_redis_value(Value::Array(holders)).map_err(unclear)?;
    let holders = match kind {
        LockKind::Semaphore => of_permits(manager, &holders),
        _ => holders
            .iter()
            .map(|one| one.holder(manager).with_mode(one.mode(kind)))
            .collect(),
    };
    Ok(LockState::new(holders).with_waiters(waiters))
}

/// A holder as the script describes it: its value, its remaining time, and its side.
type Line = (Vec<u8>, i64, String);

struct Described(Line);

impl FromRedisValue for Described {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        Line::from_redis_value(value).map(Self)
    }
}

impl Described {
    fn holder(&self, manager: &ConnectionManager) -> Holder {
        let holder = manager.naming.holder(&self.0.0);
        match u64::try_from(self.0.1) {
            Ok(left) => holder.with_expires_in(Duration::from_millis(left)),
            Err(_) => holder,
        }
    }

    fn mode(&self, kind: LockKind) -> LockMode {
        match (kind, self.0.2.as_str()) {
            (LockKind::Mutex, _) => LockMode::Exclusive,
            (_, "r") => LockMode::Read,
            (_, "u") => LockMode::Upgradeable,
            _ => LockMode::Write,
        }
    }

    /// Returns whose permit it is. A grant of several has numbered ones.
    fn owner(&self) -> &[u8] {
        let value = &self.0.0;
        let end = value.iter().position(|byte| *byte == b'#');
        &value[..end.unwrap_or(value.len())]
    }
}

/// Makes one holder of all permits of a grant.
fn of_permits(manager: &ConnectionManager, permits: &[Described]) -> Vec<Holder> {
    let mut grants: BTreeMap<&[u8], (&Described, u32)> = BTreeMap::new();
    for permit in permits {
        grants.entry(permit.owner()).or_insert((permit, 0)).1 += 1;
    }
    let holders = grants.into_values();
    holders
        .map(|(first, count)| first.holder(manager).with_permits(count))
        .collect()
}
