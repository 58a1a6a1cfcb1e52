//! Renewing, many grants in one go.

use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, RedisError, RedisResult, Value};

use super::connection::Connection;
use super::connection_manager::ConnectionManager;
use super::error::{fault, given_up, is_forgotten, is_wrong_type, lock_error};
use super::modes::{Claim, renewal};
use super::numbers::milliseconds;
use super::script::By;
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::{Grant, LockMode};
use crate::providers::kit::error::{lost, unavailable};
use crate::providers::kit::fault::Fault;

/// Renewals sent in one go. Requests of other locks wait no longer than these take.
const TOGETHER: usize = 200;

/// Renews the grants, each for its own lease, and returns an answer for each, in order.
pub(super) async fn renew_all(
    manager: &Arc<ConnectionManager>,
    grants: &[&Grant],
) -> Vec<Result<Timestamp, LockError>> {
    // A frozen connection must be found out while there is time for another one, for all of them.
    let leases = grants.iter().map(|grant| grant.lease());
    let common = &manager.settings.common;
    let patience = common.patience(leases.min().unwrap_or_default());
    let mut answers = Vec::with_capacity(grants.len());
    for some in grants.chunks(TOGETHER) {
        let connection = match manager.connection().await {
            Ok(connection) => connection,
            Err(error) => {
                // The rest would wait for one attempt after another.
                answers.resize_with(grants.len(), || Err(error.clone()));
                break;
            }
        };
        match renew_some(manager, &connection, some, patience).await {
            Ok(renewed) => answers.extend(renewed),
            Err(error) => answers.extend(some.iter().map(|_| Err(error.clone()))),
        }
    }
    answers
}

async fn renew_some(
    manager: &Arc<ConnectionManager>,
    connection: &Arc<Connection>,
    grants: &[&Grant],
    patience: Duration,
) -> Result<Vec<Result<Timestamp, LockError>>, LockError> {
    match tokio::time::timeout(patience, send(manager, connection, grants)).await {
        // Another server may be the one to ask by now; it neither confirms nor denies this.
        Ok(Ok(_)) if connection.has_ended() => Err(lock_error(given_up())),
        Ok(Ok((sent_at, answers))) => {
            let broken = |error: &RedisError| fault(error) == Fault::Interrupted;
            if answers
                .iter()
                .any(|answer| answer.as_ref().is_err_and(broken))
            {
                manager.retire(connection);
            }
            Ok(answers
                .into_iter()
                .zip(grants)
                .map(|(answer, grant)| read(grant.mode(), answer, sent_at))
                .collect())
        }
        Ok(Err(error)) => {
            manager.note(connection, &error);
            Err(lock_error(error))
        }
        Err(_) => {
            manager.retire(connection);
            Err(unavailable(format!(
                "the server did not answer a renewal within {patience:?}"
            )))
        }
    }
}

async fn send(
    manager: &Arc<ConnectionManager>,
    connection: &Connection,
    grants: &[&Grant],
) -> RedisResult<(Timestamp, Vec<RedisResult<Value>>)> {
    let mut sent_at = Timestamp::now();
    let mut answers = connection
        .query_all(commands(manager, grants, By::Hash))
        .await?;
    let forgotten = |answer: &RedisResult<Value>| answer.as_ref().is_err_and(is_forgotten);
    if answers.iter().any(forgotten) {
        // Renewing again what was renewed does no harm.
        sent_at = Timestamp::now();
        answers = connection
            .query_all(commands(manager, grants, By::Text))
            .await?;
    }
    Ok((sent_at, answers))
}

/// Makes the commands. `first` says how each script is named first; that makes the server know it.
fn commands(manager: &ConnectionManager, grants: &[&Grant], first: By) -> Pipeline {
    let mut commands = Pipeline::with_capacity(grants.len());
    let mut named = Vec::with_capacity(3);
    for grant in grants {
        let mode = grant.mode();
        let keys = manager.naming.keys(grant.name(), mode.kind());
        let claim = Claim::of(&manager.naming, grant);
        let lease = milliseconds(grant.lease());
        let script = renewal(mode);
        let by = match named.iter().any(|known| std::ptr::eq(*known, script)) {
            true => By::Hash,
            false => {
                named.push(script);
                first
            }
        };
        commands.add_command(match mode {
            LockMode::Exclusive | LockMode::Write => {
                script.command(by, &[&keys.lock], &[&claim.owner, &lease])
            }
            LockMode::Read | LockMode::Upgradeable | LockMode::Permits { .. } => {
                let keys = manager.naming.of_script(&keys);
                script.command(by, keys.as_slice(), &[&claim.owner, &lease, &claim.mode])
            }
        });
    }
    commands
}

fn read(
    mode: LockMode,
    answer: RedisResult<Value>,
    sent_at: Timestamp,
) -> Result<Timestamp, LockError> {
    Err(match answer {
        Ok(Value::Int(1)) => return Ok(sent_at),
        Ok(Value::Int(0)) if matches!(mode, LockMode::Read | LockMode::Upgradeable) => {
            lost("the server has ended it")
        }
        Ok(Value::Int(0)) if matches!(mode, LockMode::Permits { .. }) => {
            lost("the server has ended it, or a part of it")
        }
        Ok(Value::Int(0)) => lost("its key is gone from the server"),
        Ok(Value::Int(-2)) => lost("its key on the server holds a value that never expires"),
        Ok(_) => lost("another owner holds it on the server"),
        Err(error) if is_wrong_type(&error) => {
            lost("its key on the server holds a value of another type")
        }
        Err(error) => lock_error(error),
    })
}
