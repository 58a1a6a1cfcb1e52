//! What the core asks of Redis: which part of the provider answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::acquire::acquire;
use super::cleanup::Cleanup;
use super::connection_manager::ConnectionManager;
use super::group::{GROUP, call_all};
use super::inspect::inspect;
use super::keys::Naming;
use super::modes::Claim;
use super::release::Release;
use super::renew::renew_all;
use super::settings::Settings;
use super::several::{acquire_several, connection_for};
use super::sharing::may_share;
use super::upgrade::upgrade;

use crate::background::run_here;
use crate::clock::Timestamp;
use crate::provider::{
    AcquireRequest, BoxFuture, Call, Capabilities, Grant, LockKind, LockMode, LockProvider,
    LockSpace, LockState, describe,
};
use crate::providers::kit::error::unsupported;
use crate::{LockError, LockErrorKind, LockName};

/// Locks on one Redis server, 6.2 or newer, or Valkey; or on the primary that sentinels name.
///
/// The lock `name` is the string key `key_prefix` + `name`, set with `SET NX PX` and deleted by
/// whoever set it. That is the recipe of Redis's own documentation and of every Redlock-family
/// client, the .NET `DistributedLock` library among them. So all of them exclude each other. What
/// else an application keeps under that key, a value that never expires or one of another type, is
/// no lock of anybody's: [`InvalidConfig`](LockErrorKind::InvalidConfig), whose remedy is a key
/// prefix.
///
/// * **Lease.** A holder renews its key every third of the lease. One that crashes keeps the lock
///   for at most a lease.
/// * **Waiting.** Processes queue in a list beside the key, and the release hands the lock to the
///   first that is alive, by a published message. Hand-over takes one round trip, and is in arrival
///   order. A holder of another library hands nothing over; the head of the queue looks whether its
///   key is gone every 25 to 100 ms.
/// * **`min_hold`** is the key's life: once the server has agreed, the lock ends then, whatever
///   becomes of the process. A waiter gets it within a few milliseconds.
/// * **Reader–writer locks and semaphores** are on the .NET library's keys, `name.readers` and
///   `name.writer`, and a sorted set under `name`. One queue serves both modes in arrival order. A
///   reader that crashed costs one lease. Of permits, each grant has its own end by the server's
///   clock.
/// * **Fencing tokens** come from one counter for the key prefix, which every grant raises to the
///   server's clock in microseconds. They go on growing over a restart without data and a failover,
///   as long as the clocks of the servers agree. `token_floor` puts them above those of the
///   provider that a service comes from.
/// * **Connections** belong to the library's own thread and are made anew when they break, at once
///   while a lock is held. All locks are then renewed together, so that a holder whose lock the
///   server has lost is told within a round trip. A request whose answer is lost is taken back.
///
/// # What it relies on
///
/// * **One server's data.** A failover may be to a replica that missed the last writes, and a
///   restart may be without data. Then the server has forgotten who holds which lock, and grants it
///   again. A holder learns it as soon as it has a new connection. Where a server may restart
///   without its data, set [`restart_delay`](crate::RedisProviderBuilder::restart_delay) to the
///   longest lease of all clients. Where two holders must do no harm, check the fencing token at
///   the resource.
/// * **Clocks.** The server's wall clock must not jump ahead by more than a part of the lease.
/// * **No eviction.** The server's policy must be `noeviction`; a warning says so at each
///   connection to a server that has another one.
///
/// See *Is Redlock safe?* by Salvatore Sanfilippo and *How to do distributed locking* by Martin
/// Kleppmann, both of 2016.
///
/// # Rights
///
/// With the key prefix `MyApp1:`, an ACL user needs
///
/// ```text
/// user myapp on >secret resetchannels ~MyApp1:* ~{MyApp1:* &MyApp1:lk1:grants:*
///     +hello +eval +evalsha +subscribe +publish +pubsub|numsub +time +get +set +del
///     +exists +pexpire +pttl +lpop +rpush +lpos +lrange +lindex +lset +lrem
///     +sadd +srem +scard +sismember
///     +zadd +zrem +zcard +zscore +zrange +zrangebyscore +zremrangebyscore
/// ```
///
/// The last two lines are for reader–writer locks and semaphores.
///
/// Without `+pubsub|numsub`, a release cannot see which waiters are alive. It then tells the first
/// one to come for the lock, which takes a round trip longer. Optional are `+info`, for a warning
/// of an eviction policy and for `restart_delay`, and `+select`, if the URL names a database other
/// than 0.
///
/// # Examples
///
/// ```no_run
/// use lock_runtime::RedisProvider;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let provider = RedisProvider::builder("redis://127.0.0.1:6379").key_prefix("MyApp1:");
/// lock_runtime::register(provider.connect().await?)?;
/// # Ok(())
/// # }
/// ```
///
/// The same by a URL: `redis://127.0.0.1:6379?key_prefix=MyApp1:&lease=30s`.
#[derive(Clone)]
pub struct RedisProvider {
    manager: Arc<ConnectionManager>,
}

impl RedisProvider {
    pub(super) async fn open(settings: Settings) -> Result<Self, LockError> {
        let naming = Naming::new(&settings.common.key_prefix)?;
        let manager = run_here(async move {
            let manager = Arc::new(ConnectionManager::new(settings, naming));
            let connection = manager.connection().await?;
            manager.follow();
            manager.warn_of_eviction(&connection).await;
            Ok::<_, LockError>(manager)
        })
        .await??;
        Ok(Self { manager })
    }
}

impl LockProvider for RedisProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("redis")
            .with_lease(self.manager.settings.common.lease)
            .with_fencing_tokens()
            .with_local_hand_over()
            .with_fairness()
            .with_contention_reports()
            .with_response_timeout(self.manager.settings.common.response_timeout)
            .with_upgradeable()
            .with_many_permits()
            .with_holders()
    }

    fn describe(&self) -> String {
        let settings = &self.manager.settings;
        let (server, common) = (settings.resolver.describe(), &settings.common);
        describe("redis", &server, &common.key_prefix, Some(common.lease))
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(acquire(&self.manager, request, None))
    }

    fn acquire_several<'a>(
        &'a self,
        requests: &'a [AcquireRequest],
    ) -> Option<BoxFuture<'a, Vec<Result<Grant, LockError>>>> {
        let connection = connection_for(&self.manager, requests)?;
        Some(Box::pin(acquire_several(
            &self.manager,
            connection,
            requests,
        )))
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        Box::pin(async move {
            renew_all(&self.manager, &[grant])
                .await
                .pop()
                .unwrap_or_else(|| Err(LockError::new(LockErrorKind::ProviderUnavailable)))
        })
    }

    fn renew_all<'a>(
        &'a self,
        grants: &'a [Arc<Grant>],
    ) -> BoxFuture<'a, Vec<Result<Timestamp, LockError>>> {
        Box::pin(async move {
            let grants: Vec<_> = grants.iter().map(|grant| &**grant).collect();
            renew_all(&self.manager, &grants).await
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let released = Release::new(&self.manager, grant).run().await;
            Cleanup::of_grant(&self.manager, grant);
            released
        })
    }

    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        let old = Claim::of(&self.manager.naming, grant);
        Box::pin(async move {
            let passed_on = acquire(&self.manager, request, Some(old)).await;
            Cleanup::of_grant(&self.manager, grant);
            passed_on
        })
    }

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        Box::pin(may_share(&self.manager, grant))
    }

    fn upgrade<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(upgrade(&self.manager, grant, request))
    }

    fn inspect<'a>(
        &'a self,
        name: &'a LockName,
        kind: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        Box::pin(inspect(&self.manager, name, kind))
    }

    fn release_later<'a>(
        &'a self,
        grant: &'a Grant,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            if matches!(grant.mode(), LockMode::Read | LockMode::Upgradeable) {
                return Err(unsupported("readers do not keep a lock"));
            }
            let until = Timestamp::now() + keep_for;
            let kept = Release::new(&self.manager, grant).run_later(until).await;
            // The cleanup ends a lock that is still its owner's.
            if kept.is_ok() {
                Cleanup::of_grant(&self.manager, grant);
            }
            kept
        })
    }

    fn call_all(&self, calls: Vec<Call>) -> BoxFuture<'_, ()> {
        Box::pin(call_all(&self.manager, calls))
    }

    fn group_size(&self) -> usize {
        GROUP
    }

    fn lock_space(&self) -> LockSpace {
        self.manager.space()
    }

    fn clone_of(&self) -> Option<LockSpace> {
        Some(self.lock_space())
    }
}

impl fmt::Debug for RedisProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.manager.settings;
        f.debug_struct("RedisProvider")
            .field("server", &settings.resolver.describe())
            .field("key_prefix", &settings.common.key_prefix)
            .field("lease", &settings.common.lease)
            .finish_non_exhaustive()
    }
}
