//! Locks on one Redis or Valkey server.

mod address;
mod config;
mod connection;
mod error;
mod floor;
mod grants;
mod keys;
mod link;
mod numbers;
mod outage;
mod plain;
mod queue;
mod release;
mod renewal;
mod requests;
mod residue;
mod script;
mod standing;
mod undo;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use config::RedisProviderBuilder;
use config::Settings;
use keys::Naming;
use link::Link;
use queue::Acquisition;
use release::Release;
use undo::Undo;

use crate::clock::Timestamp;
use crate::keeper::run_on_keeper;
use crate::provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockProvider, LockSpace, describe,
};
use crate::{LockError, LockErrorKind};

/// Locks on one Redis server, 6.2 or newer, or Valkey.
///
/// The lock `name` is the string key `key_prefix` + `name`, set with `SET NX PX` and deleted by
/// whoever set it: the recipe of Redis's own documentation and of every Redlock-family client, the
/// .NET `DistributedLock` library among them, so all of them exclude each other. What else an
/// application keeps under that key, a value that never expires or one of another type, is no lock
/// of anybody's: [`InvalidConfig`](LockErrorKind::InvalidConfig), whose remedy is a key prefix.
///
/// * **Lease.** A holder renews its key every third of the lease. One that crashes keeps the lock
///   for at most a lease.
/// * **Waiting.** Processes queue in a list beside the key, and the release hands the lock to the
///   first that is alive, by a published message: hand-over takes one round trip, and is in
///   arrival order. A holder of another library hands nothing over; the head of the queue looks
///   whether its key is gone every 25 to 100 ms.
/// * **`min_hold`** is the key's life: once the server has agreed, the lock ends then, whatever
///   becomes of the process. A waiter gets it within a few milliseconds.
/// * **Fencing tokens** come from one counter for the key prefix, which every grant raises to the
///   server's clock in microseconds: they go on growing over a restart without data and a
///   failover, as long as the clocks of the servers agree.
///   `token_floor` puts them above those of the provider that a service comes from.
/// * **Connections** belong to the library's own thread and are made anew when they break, at once
///   while a lock is held. All locks are then renewed together, so that a holder whose lock the
///   server has lost is told within a round trip. A request whose answer is lost is undone.
///
/// # What it relies on
///
/// * **One server's data.** After a failover to a replica that missed the last writes, or a restart
///   without data, the server has forgotten who holds which lock, and grants it again. A holder
///   learns it as soon as it has a new connection. Where a server may restart without its data, set
///   [`restart_delay`](RedisProviderBuilder::restart_delay) to the longest lease of all clients;
///   where two holders must do no harm, check the fencing token at the resource.
/// * **Clocks.** The server's wall clock must not jump ahead by more than a part of the lease.
/// * **No eviction.** The server's policy must be `noeviction`; a warning says so at each connection
///   to a server that has another one.
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
/// ```
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
    link: Arc<Link>,
}

impl RedisProvider {
    /// Connects to the server of this URL: `redis://user:password@host:port/database`, or
    /// `rediss:` for TLS, also written `valkey:` and `valkeys:`; or, for a Unix socket,
    /// `unix:///path?db=0&user=name&pass=word`, also written `redis+unix:`. Parameters `key_prefix`,
    /// `lease`, `connect_timeout`, `response_timeout`, `failover_timeout`, `restart_delay` and
    /// `token_floor` set what the builder's methods of that name set.
    ///
    /// # Errors
    ///
    /// As [`RedisProviderBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(url: impl Into<String>) -> Result<Self, LockError> {
        Self::builder(url).connect().await
    }

    /// Settings for the server of this URL; see [`connect`](Self::connect).
    pub fn builder(url: impl Into<String>) -> RedisProviderBuilder {
        RedisProviderBuilder::from_url(url.into())
    }

    /// Connects as this client would: with its address, certificates and credentials, though with
    /// RESP3 and with TCP settings of the library's own.
    ///
    /// # Errors
    ///
    /// As [`RedisProviderBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn from_client(client: redis::Client) -> Result<Self, LockError> {
        Self::builder_from_client(client).connect().await
    }

    /// Settings for connecting as this client would; see [`from_client`](Self::from_client).
    pub fn builder_from_client(client: redis::Client) -> RedisProviderBuilder {
        RedisProviderBuilder::from_client(client)
    }

    async fn open(settings: Settings) -> Result<Self, LockError> {
        let naming = Naming::new(&settings.key_prefix)?;
        let link = run_on_keeper(async move {
            let link = Arc::new(Link::new(settings, naming));
            let connection = link.connection().await?;
            link.warn_of_eviction(&connection).await;
            Ok::<_, LockError>(link)
        })
        .await??;
        Ok(Self { link })
    }
}

impl LockProvider for RedisProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("redis")
            .with_lease(self.link.settings.lease)
            .with_fencing_tokens()
            .with_local_hand_over()
            .with_fairness()
            .with_contention_reports()
            .with_response_timeout(self.link.settings.response_timeout)
    }

    fn describe(&self) -> String {
        let settings = &self.link.settings;
        let server = settings.client.get_connection_info().addr().to_string();
        describe("redis", &server, &settings.key_prefix, Some(settings.lease))
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(Acquisition::new(&self.link, request, None).run())
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        Box::pin(async move {
            renewal::renew_all(&self.link, &[grant])
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
            renewal::renew_all(&self.link, &grants).await
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let released = Release::new(&self.link, grant).run().await;
            Undo::strays_of(&self.link, grant);
            released
        })
    }

    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        let old = self.link.naming.owner(grant.owner());
        Box::pin(async move {
            let passed_on = Acquisition::new(&self.link, request, Some(old)).run().await;
            Undo::strays_of(&self.link, grant);
            passed_on
        })
    }

    fn release_later<'a>(
        &'a self,
        grant: &'a Grant,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let until = Timestamp::now() + keep_for;
            let kept = Release::new(&self.link, grant).run_later(until).await;
            // Undoing ends a lock that is still its owner's.
            if kept.is_ok() {
                Undo::strays_of(&self.link, grant);
            }
            kept
        })
    }

    fn lock_space(&self) -> LockSpace {
        self.link.space()
    }

    fn clone_of(&self) -> Option<LockSpace> {
        Some(self.lock_space())
    }
}

impl fmt::Debug for RedisProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.link.settings;
        f.debug_struct("RedisProvider")
            .field(
                "server",
                &settings.client.get_connection_info().addr().to_string(),
            )
            .field("key_prefix", &settings.key_prefix)
            .field("lease", &settings.lease)
            .finish_non_exhaustive()
    }
}

pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    Ok(Arc::new(RedisProvider::connect(url).await?))
}

/// How long a request may take that must not take longer than a part of a lease.
fn patience(settings: &Settings, lease: Duration) -> Duration {
    settings.response_timeout.min(lease / 4)
}
