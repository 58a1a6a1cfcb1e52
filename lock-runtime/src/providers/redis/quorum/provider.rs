//! What the core asks of a quorum of servers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::connection_manager::ConnectionManager;
use super::super::keys::Naming;
use super::super::settings::Settings;
use super::acquire::acquire;
use super::inspect::inspect;
use super::members::Members;
use super::release::release;
use super::renew::renew;
use crate::background::run_here;
use crate::clock::Timestamp;
use crate::provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockKind, LockProvider, LockSpace, LockState,
    describe,
};
use crate::providers::kit::error::{invalid, unsupported};
use crate::{LockError, LockName};

/// Locks on a majority of several independent Redis servers, 6.2 or newer, or Valkey.
///
/// Each server has the lock as [`RedisProvider`](crate::RedisProvider) keeps it: the string key
/// `key_prefix` + `name`, set with `SET NX PX`. Whoever has set it on more than half of the servers
/// holds the lock. That is Redlock, as Redis's documentation and the .NET `DistributedLock` library
/// have it, so its clients and these exclude each other.
///
/// * **Faults.** The lock outlives the loss of any minority of the servers: one of three, two of
///   five. Without a majority, whoever asks gets
///   [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable).
/// * **Restarts.** A server that has restarted may have forgotten who holds what. It gives no vote
///   for [`restart_delay`](super::RedisQuorumProviderBuilder::restart_delay). A held lock is put back
///   on it by its renewals.
/// * **Lease.** It counts from before the first request was sent, on this process's clock.
/// * **Waiting.** Waiters queue on one server, the first that can be reached, and are told when their
///   turn comes. When processes reach different servers, only the order suffers.
/// * **Fencing tokens.** They grow with every grant of any majority. Over servers that lose their
///   data they do so if the servers' clocks agree better than `restart_delay`.
///
/// Reader–writer locks and semaphores are not supported.
///
/// All clients must name the same servers. These must not be replicas of each other, nor members of a
/// cluster. An even number of servers bears no more losses than one server less.
///
/// # Rights
///
/// On every server the rights that [`RedisProvider`](crate::RedisProvider) needs for mutexes, and
/// `+info` unless `restart_delay` is zero.
///
/// # Examples
///
/// ```no_run
/// use lock_runtime::RedisQuorumProvider;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let servers = ["redis://10.0.0.1", "redis://10.0.0.2", "redis://10.0.0.3"];
/// let provider = RedisQuorumProvider::builder(servers).key_prefix("MyApp1:");
/// lock_runtime::register(provider.connect().await?)?;
/// # Ok(())
/// # }
/// ```
///
/// The same by a URL: `redis-quorum://10.0.0.1,10.0.0.2,10.0.0.3?key_prefix=MyApp1:`.
#[derive(Clone)]
pub struct RedisQuorumProvider {
    members: Arc<Members>,
    /// What the locks belong to.
    space: Arc<()>,
    terms: Terms,
}

/// How long a start with a majority waits for the other servers too.
const FOR_THE_OTHERS: Duration = Duration::from_millis(100);
const LOOKS_EVERY: Duration = Duration::from_millis(2);

/// What concerns no single server.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) longest_lease: Duration,
    pub(super) failover_timeout: Duration,
}

impl RedisQuorumProvider {
    pub(super) async fn open(servers: Vec<Settings>, terms: Terms) -> Result<Self, LockError> {
        let limit = servers[0].common.connect_timeout;
        let namings = servers.iter();
        let namings: Vec<_> = namings
            .map(|server| Naming::new(&server.common.key_prefix))
            .collect::<Result<_, _>>()?;
        run_here(async move {
            let space = Arc::new(());
            let managers = servers.into_iter().zip(namings);
            let managers = managers.map(|(settings, naming)| {
                let manager = ConnectionManager::new(settings, naming);
                Arc::new(manager.in_space(LockSpace::at(&space)))
            });
            let members = Members::new(managers.collect());
            members.keep_connected();
            reach(&members, limit).await?;
            refuse_duplicates(&members).await?;
            for member in members.all() {
                if let Some(connection) = member.manager.current() {
                    member.manager.warn_of_eviction(&connection).await;
                }
            }
            Ok(Self {
                members: Arc::new(members),
                space,
                terms,
            })
        })
        .await?
    }
}

/// Waits for connections to a majority, be it too young to vote, and a moment for the others.
///
/// # Errors
///
/// At once if a server refuses what is set here; after `limit` if there is no majority.
async fn reach(members: &Members, limit: Duration) -> Result<(), LockError> {
    let until = Timestamp::now() + limit;
    let mut enough = None;
    loop {
        let errors = members.all().iter();
        let errors = errors.filter_map(|member| member.manager.why_not_connected());
        let errors: Vec<_> = errors.collect();
        if let Some(error) = errors.iter().find(|error| !error.is_retryable()) {
            return Err(error.clone());
        }
        let connected = members.all().iter();
        let connected = connected.filter(|member| member.manager.current().is_some());
        let count = connected.count();
        let others = *enough.get_or_insert_with(|| Timestamp::now() + FOR_THE_OTHERS);
        if count < members.majority() {
            enough = None;
        }
        let is_enough = count >= members.majority() && others.has_passed();
        if count == members.all().len() || is_enough {
            return Ok(());
        }
        if until.has_passed() && count < members.majority() {
            return members.check_majority();
        }
        tokio::time::sleep(LOOKS_EVERY).await;
    }
}

/// Refuses two addresses of one server, whose votes would count twice. A server that does not tell
/// who it is is taken for one of its own.
async fn refuse_duplicates(members: &Members) -> Result<(), LockError> {
    let mut known = Vec::new();
    for member in members.all() {
        let Some(connection) = member.manager.current() else {
            continue;
        };
        let command = redis::cmd("INFO").arg("server").to_owned();
        let Ok(answer) = connection.query(command).await else {
            continue;
        };
        let text = redis::from_redis_value::<String>(answer).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("run_id:"));
        let Some(id) = id.map(str::to_owned) else {
            continue;
        };
        if known.contains(&id) {
            return Err(invalid(
                "two of the addresses lead to one server: expected independent ones",
            ));
        }
        known.push(id);
    }
    Ok(())
}

impl LockProvider for RedisQuorumProvider {
    fn capabilities(&self) -> Capabilities {
        let common = self.members.common();
        Capabilities::new("redis-quorum")
            .with_lease(common.lease)
            .with_fencing_tokens()
            .with_local_hand_over()
            .with_fairness()
            .with_contention_reports()
            .with_holders()
            // The servers are asked in two or three rounds.
            .with_response_timeout(common.response_timeout * 3)
    }

    fn describe(&self) -> String {
        let common = self.members.common();
        let servers = self.servers();
        describe(
            "redis-quorum",
            &servers,
            &common.key_prefix,
            Some(common.lease),
        )
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            let longest = self.terms.longest_lease;
            if request.lease() > longest {
                return Err(unsupported(format!(
                    "expected a lease of at most {longest:?}, which is set by `longest_lease`, got \
                     {:?}",
                    request.lease()
                )));
            }
            acquire(&self.members, request, self.terms.failover_timeout).await
        })
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        Box::pin(renew(&self.members, grant))
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(release(&self.members, grant))
    }

    fn inspect<'a>(
        &'a self,
        name: &'a LockName,
        kind: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        Box::pin(inspect(&self.members, name, kind))
    }

    fn lock_space(&self) -> LockSpace {
        LockSpace::at(&self.space)
    }

    fn clone_of(&self) -> Option<LockSpace> {
        Some(self.lock_space())
    }
}

impl RedisQuorumProvider {
    fn servers(&self) -> String {
        let all = self.members.all().iter();
        let all = all.map(|member| member.manager.settings.resolver.describe());
        all.collect::<Vec<_>>().join(",")
    }
}

impl fmt::Debug for RedisQuorumProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let common = self.members.common();
        f.debug_struct("RedisQuorumProvider")
            .field("servers", &self.servers())
            .field("key_prefix", &common.key_prefix)
            .field("lease", &common.lease)
            .finish_non_exhaustive()
    }
}
