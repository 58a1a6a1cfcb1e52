//! Who holds a lock, as the server says.

use std::sync::Arc;

use super::pool::Pool;
use super::traits::{LockSession, Part, Party};
use crate::provider::{Holder, LockKind, LockMode, LockState};
use crate::providers::kit::holder::holder_of_session;
use crate::{LockError, LockName};

/// Asks the server who holds the lock, and how many wait for it there.
pub(super) async fn inspect<S: LockSession>(
    pool: &Arc<Pool<S>>,
    name: &LockName,
    kind: LockKind,
) -> Result<LockState, LockError> {
    let session = pool.shared(pool.settings.lease).await?;
    let patience = pool.settings.patience(pool.settings.lease);
    let name = pool.full_name(name);
    let asked = session.client.parties(&name, kind);
    let parties = session.within(patience, asked).await?;
    let waiters = parties.iter().filter(|party| party.part == Part::Waits);
    let waiters = waiters.count();
    let mut holders: Vec<Found<'_, S>> = Vec::new();
    for party in parties.iter().filter(|party| party.part != Part::Waits) {
        match holders
            .iter_mut()
            .find(|holder| holder.party.pid == party.pid)
        {
            Some(holder) => {
                holder.part = holder.part.max(party.part);
                holder.permits += 1;
            }
            None => holders.push(Found {
                party,
                part: party.part,
                permits: 1,
            }),
        }
    }
    let holders = holders.iter().filter_map(|found| {
        let holder = match pool.roster.serves_us(found.party.pid) {
            true => Holder::here(),
            false => holder_of_session(&found.party.label),
        };
        let mode = match (found.part, kind) {
            (Part::HasPermit, LockKind::Semaphore) => {
                return Some(holder.with_permits(found.permits));
            }
            (Part::HoldsAlone, LockKind::Mutex) => LockMode::Exclusive,
            (Part::HoldsAlone, LockKind::RwLock) => LockMode::Write,
            (Part::Shares, _) => LockMode::Read,
            (Part::MayUpgrade, LockKind::RwLock) => LockMode::Upgradeable,
            _ => return None,
        };
        Some(holder.with_mode(mode))
    });
    Ok(LockState::new(holders.collect()).with_waiters(waiters))
}

/// A session that has something of the lock.
struct Found<'a, S: LockSession> {
    party: &'a Party<S::Pid>,
    part: Part,
    permits: u32,
}
