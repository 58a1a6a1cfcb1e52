//! Who holds a lock, as its nodes say.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use zookeeper_client::{Client, Error};

use super::error::{lock_error, unanswered};
use super::held::ACQUIRED;
use super::path::LockPath;
use super::queue::{is_writer, sequence};
use super::session_pool::SessionPool;
use crate::provider::{Holder, LockKind, LockMode, LockState};
use crate::{LockError, LockName};

/// A node that queues, as far as this client may read it.
#[derive(Default)]
struct Seen {
    name: String,
    data: Vec<u8>,
    session: i64,
    czxid: i64,
}

/// Asks the ensemble who holds the lock, and how many wait for it there.
pub(super) async fn inspect(
    pool: &Arc<SessionPool>,
    name: &LockName,
    kind: LockKind,
) -> Result<LockState, LockError> {
    let lock = pool.path(name, some_mode(kind));
    let room = pool.room(&lock).await?;
    let looking = look(&room.session().client, &lock, kind);
    match tokio::time::timeout(pool.settings.common.response_timeout, looking).await {
        Ok(Ok(seen)) => Ok(state(pool, kind, &seen)),
        Ok(Err(error)) => {
            room.session().note(&error);
            Err(pool.about(lock_error(error)))
        }
        Err(_) => Err(pool.about(unanswered())),
    }
}

/// Returns a mode of this kind of lock.
fn some_mode(kind: LockKind) -> LockMode {
    match kind {
        LockKind::Mutex => LockMode::Exclusive,
        LockKind::RwLock => LockMode::Read,
        LockKind::Semaphore => LockMode::Permits {
            limit: NonZeroU32::MIN,
            take: NonZeroU32::MIN,
        },
    }
}

/// Reads all nodes that queue for the lock, in their order.
async fn look(client: &Client, lock: &LockPath, kind: LockKind) -> Result<Vec<Seen>, Error> {
    let synced = client.sync(lock.node());
    let children = client.list_children(lock.node());
    synced.await?;
    let children = match children.await {
        Ok(children) => children,
        Err(Error::NoNode) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let numbered = children.into_iter().filter_map(|name| {
        let number = sequence(kind, &name)?;
        Some((number, name))
    });
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort_unstable();
    let asked = numbered.into_iter().map(|(_, name)| {
        let data = client.get_data(&lock.child(&name));
        (name, data)
    });
    let asked: Vec<_> = asked.collect();
    let mut seen = Vec::with_capacity(asked.len());
    for (name, data) in asked {
        match data.await {
            Ok((data, stat)) => seen.push(Seen {
                name,
                data,
                session: stat.ephemeral_owner,
                czxid: stat.czxid,
            }),
            Err(Error::NoNode) => {}
            // It is there, and whose it is, is hidden.
            Err(Error::NoAuth) => seen.push(Seen {
                name,
                ..Seen::default()
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}

fn state(pool: &SessionPool, kind: LockKind, seen: &[Seen]) -> LockState {
    if kind == LockKind::Semaphore {
        return of_permits(pool, seen);
    }
    let readers = seen.iter().take_while(|seen| !is_writer(&seen.name));
    let (holding, mode) = match (kind, readers.count()) {
        (LockKind::Mutex, _) => (1, LockMode::Exclusive),
        (_, 0) => (1, LockMode::Write),
        (_, readers) => (readers, LockMode::Read),
    };
    let (holders, waiters) = seen.split_at(holding.min(seen.len()));
    let holders = holders.iter().map(|seen| {
        let owner = std::str::from_utf8(&seen.data).unwrap_or_default();
        pool.holder(owner).with_mode(mode)
    });
    LockState::new(holders.collect()).with_waiters(waiters.len())
}

/// Tells who has permits. Their nodes do not say whose they are, but the sessions do. All nodes of
/// one transaction are one grant, or one wait.
fn of_permits(pool: &SessionPool, seen: &[Seen]) -> LockState {
    let mut grants: BTreeMap<(i64, i64), (u32, bool)> = BTreeMap::new();
    for seen in seen {
        let grant = grants.entry((seen.czxid, seen.session)).or_default();
        grant.0 += 1;
        // This process knows of its own permits before that is written.
        grant.1 |= seen.data == ACQUIRED || pool.is_own(seen.session) && pool.is_held(seen.czxid);
    }
    let waiters = grants.values().filter(|(_, holds)| !holds).count();
    let holders = grants.into_iter().filter(|(_, (_, holds))| *holds);
    let holders = holders.map(|((_, session), (permits, _))| {
        let holder = match pool.is_own(session) {
            true => Holder::here(),
            false => Holder::new(format!("session {session:#x}")),
        };
        holder.with_permits(permits)
    });
    LockState::new(holders.collect()).with_waiters(waiters)
}
