//! Releasing.

use zookeeper_client::Error;

use super::error::{lock_error, unanswered};
use super::held::{Held, REMOVED};
use super::session::ENDED;
use crate::LockError;
use crate::providers::kit::error::lost;
use crate::providers::kit::fault::Fault;
use crate::sending::unsent;

/// Removes the nodes of a lock that is held.
pub(super) async fn release(held: &Held) -> Result<(), LockError> {
    // By a second release of one grant, somebody else's nodes may have these names.
    let mut asked = !held.let_go();
    if let Some(loss) = held.loss() {
        return Err(loss);
    }
    let (node, pool) = (&held.node, &held.node.pool);
    let common = &pool.settings.common;
    // In an outage others wait for this in turn.
    let unsent = unsent();
    if !node
        .session
        .connects_within(common.connect_timeout / 2)
        .await
    {
        if let Some(loss) = held.loss() {
            return Err(loss);
        }
        held.release_unconfirmed_later();
        return Err(pool.about(lock_error(Error::ConnectionLoss)));
    }
    drop(unsent);
    let removing = async {
        loop {
            match node.remove(&held.created, &mut asked).await {
                // It was carried out, or never will be.
                Err(error) if node.session.note(&error).is_uncertain() => {}
                removed => return removed,
            }
        }
    };
    let error = match tokio::time::timeout(common.response_timeout, removing).await {
        Ok(Ok(true)) => return Ok(()),
        Ok(Ok(false)) => return Err(lost(REMOVED)),
        Ok(Err(error)) => match node.session.note(&error) {
            Fault::Ended => return Err(lost(ENDED)),
            _ => pool.about(lock_error(error)),
        },
        Err(_) => pool.about(unanswered()),
    };
    held.release_unconfirmed_later();
    Err(error)
}
