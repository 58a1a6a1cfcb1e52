//! Whether more readers of this process may join a read grant that it has.

use std::sync::Arc;

use redis::Value;

use super::connection_manager::ConnectionManager;
use super::error::{given_up, lock_error};
use super::script::MAY_SHARE;
use crate::LockError;
use crate::provider::Grant;
use crate::providers::kit::error::unavailable;

/// Asks the server whether anybody waits for the lock, or writes. Does not wait for a connection,
/// since whoever asks can ask for a grant of its own, which does.
pub(super) async fn may_share(
    manager: &Arc<ConnectionManager>,
    grant: &Grant,
) -> Result<bool, LockError> {
    let current = manager.current();
    let Some(connection) = current.filter(|connection| connection.grants_after().is_none()) else {
        return Err(unavailable("there is no connection that grants locks now"));
    };
    let keys = manager.naming.keys(grant.name(), grant.mode().kind());
    let keys = manager.naming.of_script(&keys);
    match connection.run(&MAY_SHARE, keys.as_slice(), &[]).await {
        // Another server may be the one to ask by now.
        Ok(_) if connection.has_ended() => Err(lock_error(given_up())),
        Ok(answer) => Ok(answer == Value::Int(1)),
        Err(error) => {
            manager.note(&connection, &error);
            Err(lock_error(error))
        }
    }
}
