//! Whether more readers may join a read grant.

use std::sync::Arc;

use super::held::{HeldLock, NOT_HELD, lost};
use super::pool::Pool;
use super::traits::LockSession;
use crate::LockError;
use crate::provider::Grant;

/// Says whether nobody waits for the lock of this read grant who wants it alone. The session that
/// shares the lock cannot tell: the server would let it in again. So another one tries. False if
/// there is no other one.
pub(super) async fn may_share<S: LockSession>(
    pool: &Arc<Pool<S>>,
    grant: &Grant,
) -> Result<bool, LockError> {
    let Some(held) = grant.state::<HeldLock<S>>() else {
        return Err(lost(NOT_HELD));
    };
    let key = pool.key(grant.name());
    if let Some(why) = held.session.liveness().why_ended() {
        return Err(lost(why));
    }
    let sharing = pool.reservations.sessions_of(&key);
    let Some(session) = pool.shared_but(grant.lease(), &sharing).await? else {
        return Ok(false);
    };
    let patience = pool.settings.patience(grant.lease());
    session.within(patience, session.is_shareable(key)).await
}
