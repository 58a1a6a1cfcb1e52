//! Releasing, on all servers.

use std::time::Duration;

use redis::Value;

use super::super::cleanup::Cleanup;
use super::super::connection::Releasing;
use super::super::error::{is_wrong_type, lock_error};
use super::super::keys::Keys;
use super::super::modes::Claim;
use super::super::script::RELEASE;
use super::held::Held;
use super::members::Members;
use super::round::Round;
use crate::LockError;
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::provider::{Grant, LockKind};
use crate::providers::kit::error::{lost, unavailable};
use crate::sending::unsent;

/// How much longer than a majority the others may take before a release counts as done. It lets the
/// next client find the lock free on all of them.
const LONGER: Duration = Duration::from_millis(10);

/// Releases the lock on every server. Where a server does not answer, that goes on in the
/// background.
pub(super) async fn release(members: &Members, grant: &Grant) -> Result<(), LockError> {
    let Some(held) = grant.state::<Held>() else {
        return Err(lost("it was granted by another provider"));
    };
    let naming = &members.all()[0].manager.naming;
    let keys = naming.keys(grant.name(), LockKind::Mutex);
    let of_script = naming.of_script(&keys);
    let of_script: Vec<_> = of_script
        .as_slice()
        .iter()
        .map(|key| (*key).to_owned())
        .collect();
    let sent_at = Timestamp::now();
    let mut round = Round::default();
    let mut used = Vec::new();
    let mut unknown = false;
    // The first one, whose queue is used, hands over. By then the others are to be free.
    for (number, member) in members.all().iter().enumerate().rev() {
        let connection = member.manager.current();
        let until = held.sent()[number].stray_until(connection.as_ref(), grant.lease());
        if let Some(until) = until {
            let cleanup = cleanup(members, number, &keys, held, grant.lease());
            cleanup.until(until).in_the_background();
        }
        // Where there is none, nothing was asked for that has not ended or is taken back.
        if let Some(connection) = connection {
            unknown |= !connection.knows(Releasing::One);
            let what = (of_script.clone(), vec![held.owner.clone()]);
            let patience = members.common().response_timeout;
            let to = (&member.manager, &connection);
            round.ask(number, to, &RELEASE, what, patience);
            used.push((number, connection));
        }
    }
    // A server that does not know the script yet is asked twice.
    let unsent = unknown.then(unsent);
    let (mut released, mut gone, mut error) = (0, 0, None);
    let mut silent: Vec<_> = used.iter().map(|(number, _)| *number).collect();
    let majority = members.majority();
    let mut rest = None;
    loop {
        let next = match rest {
            None => round.next().await,
            Some(until) => {
                let pause = tokio::time::sleep(Timestamp::remaining(until));
                match select(round.next(), pause).await {
                    First::Left(next) => next,
                    First::Right(()) => None,
                }
            }
        };
        let Some((number, answer)) = next else {
            break;
        };
        let connection = used.iter().find(|(it, _)| *it == number);
        silent.retain(|it| *it != number);
        match answer {
            Ok(answer) => {
                if let Some((_, connection)) = connection {
                    connection.has_learnt(Releasing::One);
                }
                match answer == Value::Int(1) {
                    true => released += 1,
                    false => gone += 1,
                }
            }
            Err(wrong) if is_wrong_type(&wrong) => gone += 1,
            Err(failed) => {
                if let Some((_, connection)) = connection {
                    cleanup(members, number, &keys, held, grant.lease())
                        .after(sent_at, connection.clone())
                        .in_the_background();
                }
                error = Some(failed);
            }
        }
        if released >= majority && rest.is_none() {
            rest = Some(Timestamp::now() + LONGER);
        }
    }
    drop(unsent);
    for (number, connection) in used {
        if silent.contains(&number) {
            let cleanup = cleanup(members, number, &keys, held, grant.lease());
            cleanup.after(sent_at, connection).in_the_background();
        }
    }
    let count = members.all().len();
    match released {
        _ if released >= majority => Ok(()),
        _ if count - gone < majority => Err(lost("a majority of the servers had given it up")),
        _ => Err(error.map_or_else(
            || unavailable(format!("{released} of {count} servers could be asked")),
            lock_error,
        )),
    }
}

fn cleanup(members: &Members, number: usize, keys: &Keys, held: &Held, lease: Duration) -> Cleanup {
    let manager = &members.all()[number].manager;
    let claim = Claim {
        owner: held.owner.clone(),
        mode: "".into(),
    };
    Cleanup::new(manager, keys, vec![claim], lease)
}
