//! Whether more readers of this process may join a read grant that it has.

use super::error::{lock_error, unanswered};
use super::held::Held;
use super::queue::a_writer_waits_behind;
use crate::LockError;
use crate::providers::kit::error::unavailable;

/// Asks the server whether a writer queues behind the grant. Does not wait for a connection, since
/// whoever asks can ask for a grant of its own, which does.
pub(super) async fn may_share(held: &Held) -> Result<bool, LockError> {
    if let Some(loss) = held.loss() {
        return Err(loss);
    }
    let (node, pool) = (&held.node, &held.node.pool);
    if !node.session.is_connected() {
        return Err(pool.about(unavailable("there is no connection to ask on")));
    }
    let listing = node.session.client.list_children(node.lock.node());
    match tokio::time::timeout(pool.settings.common.response_timeout, listing).await {
        Ok(Ok(children)) => Ok(!a_writer_waits_behind(&children, &held.created.names)),
        Ok(Err(error)) => {
            node.session.note(&error);
            Err(pool.about(lock_error(error)))
        }
        Err(_) => Err(pool.about(unanswered())),
    }
}
