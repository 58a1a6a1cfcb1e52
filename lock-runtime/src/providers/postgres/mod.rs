//! Locks on a PostgreSQL server: advisory locks of sessions that the library keeps.

mod acquire;
mod bounds;
mod config;
mod error;
mod key;
mod life;
mod look;
mod notice;
mod opening;
mod pool;
mod release;
mod reservation;
mod server;
mod session;
mod statements;
mod tls;
mod undo;
mod upkeep;
mod wait;

use std::fmt;
use std::sync::Arc;

use acquire::{Acquisition, Held};
pub use config::PostgresProviderBuilder;
use config::Settings;
pub use key::{AdvisoryKey, advisory_key};
use pool::Pool;

use crate::clock::Timestamp;
use crate::keeper::run_on_keeper;
use crate::provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockProvider, LockSpace, describe,
};
use crate::{LockError, LockErrorKind};

/// Locks on a PostgreSQL server, 14 or newer.
///
/// The lock `name` is the advisory lock [`advisory_key`]`(key_prefix + name)`, held by a session:
/// the recipe of the .NET `DistributedLock` library, so services in both languages exclude each
/// other, and so does `SELECT pg_advisory_lock(…)` typed by hand. No table is needed and no right
/// but to connect.
///
/// * **Lease.** A session has `idle_session_timeout` set to the lease, or to the class of lease above
///   it, and the library asks it something every third of that. So a lock is free at once when its
///   holder's process ends, and within a lease when that is frozen or cut off.
/// * **Waiting** happens in the server's own queue, in arrival order and without polling. It takes
///   a session, since one that waits can do nothing else; that session then holds the lock. Up to 16
///   sessions stand in queues
///   ([`waiting_sessions`](PostgresProviderBuilder::waiting_sessions)). Who waits for a lock beyond
///   that is told by `NOTIFY` when it is released, and tries; so does then everybody who waits for
///   that lock, and the order among them is by chance. Clients that do not notify, such as .NET's,
///   are noticed within 0.4 s.
/// * **Sessions.** Locks that were free share up to four sessions for each class of lease: the
///   provider's own, and that doubled or halved. All sessions together are at most
///   [`max_sessions`](PostgresProviderBuilder::max_sessions), and all locks at most
///   [`max_locks`](PostgresProviderBuilder::max_locks), both parts of what the server has. A session
///   that nobody needs is closed after 10 s.
/// * **Snapshots.** A session in a queue has a snapshot of the database, which keeps `VACUUM` from
///   removing what has died since, and `CREATE INDEX CONCURRENTLY` waiting. It queues again, behind
///   who came meanwhile, when the snapshot is 10 s old
///   ([`snapshot_age`](PostgresProviderBuilder::snapshot_age)), or about a second after somebody
///   began to wait for it.
/// * **Fencing tokens** are transaction numbers (`pg_current_xact_id`), counted from the server's
///   last restart and from the timeline, so that they go on growing when a crash or a failover
///   forgets the last of them. Each grant uses up one transaction number. On version 14 there are
///   none: it does not tell when one of its processes has crashed, after which it may give the
///   numbers of the last moments again. The numbers are the server's, so no floor can be set: after a
///   change from a provider whose tokens are higher, start a new column for them.
/// * **Loss.** When a session ends, its locks are lost, and their holders know it at once.
///
/// # What it relies on
///
/// One primary at a time that the URL's name leads to. While locks are held or waited for, a fresh
/// connection looks once a lease where the name leads. When a standby was promoted, the server was
/// started again, or the name leads to another cluster, all sessions of the server before end, and
/// their holders are told. So a primary that was replaced without being shut down goes on holding and
/// granting locks for up to one and a half leases: in that time, check the fencing token at the
/// resource. Where the name leads to nobody, nothing is concluded.
///
/// A session that lives until its holder hears of its end. When the *server* ends one at once (it
/// crashes, somebody calls `pg_terminate_backend`, a middlebox resets the connection), its locks
/// are free at once, and a holder that is frozen or cut off in that moment does not know before its
/// lease ends. Check the fencing token at the resource where that must do no harm.
///
/// One database: an advisory lock belongs to the database of the URL, so whoever is to be excluded
/// names the same one.
///
/// A clock of the server that is not set back by more than the server has run between two
/// restarts, or tokens would not grow. They start lower after `pg_upgrade` of a server that had been
/// a standby once, and in a new cluster that was filled by dump and restore or by logical
/// replication.
///
/// A process that is stopped in the middle of sending a request keeps its session for longer than a
/// lease, since the server does not count that as idle: until its machine does not answer keep-alive
/// probes any more, or it goes on.
///
/// A connection pooler before the server must be in session mode; any other is refused, also one that
/// changes its mode later: each session is marked. Its pool needs room for `max_sessions` sessions of
/// each process, and for two at least while a process connects.
///
/// # TLS
///
/// Required unless all hosts of the URL are the machine itself, or `sslmode=disable` or `prefer`
/// says otherwise. With TLS the server's certificate is always checked, whichever of `require`,
/// `verify-ca` and `verify-full` is said, and channels are not bound.
///
/// # Examples
///
/// ```no_run
/// use lock_runtime::PostgresProvider;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let provider = PostgresProvider::builder("postgres://app@127.0.0.1/app").key_prefix("MyApp1:");
/// lock_runtime::register(provider.connect().await?)?;
/// # Ok(())
/// # }
/// ```
///
/// The same by a URL: `postgres://app@127.0.0.1/app?key_prefix=MyApp1:&lease=30s`.
#[derive(Clone)]
pub struct PostgresProvider {
    pool: Arc<Pool>,
    gives_tokens: bool,
}

impl PostgresProvider {
    /// Connects to the server of this URL: `postgres://user:password@host:port/database`, with the
    /// parameters that PostgreSQL's own clients know, such as `sslmode`, `host`, `options` and
    /// several hosts with commas between; parameters `key_prefix`, `lease`, `connect_timeout`,
    /// `response_timeout`, `waiting_sessions`, `max_sessions`, `max_locks` and `snapshot_age` set what
    /// the builder's methods of that name set, and `sslrootcert`, `sslcert` and `sslkey` name files in
    /// PEM format for its certificates.
    ///
    /// Of several hosts the first is taken that lets the session write, whatever
    /// `target_session_attrs` says; so a user whose `default_transaction_read_only` is on can only
    /// be used with a single host.
    ///
    /// # Errors
    ///
    /// As [`PostgresProviderBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(url: impl Into<String>) -> Result<Self, LockError> {
        Self::builder(url).connect().await
    }

    /// Settings for the server of this URL; see [`connect`](Self::connect).
    pub fn builder(url: impl Into<String>) -> PostgresProviderBuilder {
        PostgresProviderBuilder::new(url.into())
    }

    async fn open(settings: Settings) -> Result<Self, LockError> {
        let pool = Arc::new(Pool::new(settings));
        let opening = Arc::clone(&pool);
        let gives_tokens = run_on_keeper(async move {
            // A pooler's sessions are left as they were, so this comes first.
            opening::refuse_pooler(&opening.settings).await?;
            tokio::spawn(look::look_again_and_again(Arc::downgrade(&opening)));
            let session = opening.shared(opening.settings.lease).await?;
            Ok::<_, LockError>(session.gives_tokens())
        });
        let gives_tokens = gives_tokens.await??;
        Ok(Self { pool, gives_tokens })
    }
}

impl LockProvider for PostgresProvider {
    fn capabilities(&self) -> Capabilities {
        let settings = &self.pool.settings;
        let mut capabilities = Capabilities::new("postgres")
            .with_lease(settings.lease)
            .with_contention_reports()
            .with_response_timeout(settings.response_timeout);
        if self.gives_tokens {
            capabilities = capabilities.with_fencing_tokens();
        }
        // Without a place in the server's queue there is no order.
        if settings.waiting_sessions > 0 {
            capabilities = capabilities.with_fairness();
        }
        capabilities
    }

    fn describe(&self) -> String {
        let settings = &self.pool.settings;
        let lease = Some(settings.lease);
        describe(
            "postgres",
            &settings.server_name,
            &settings.key_prefix,
            lease,
        )
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(Acquisition::new(&self.pool, request).run())
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        Box::pin(async move {
            release::renew_all(&self.pool, &[grant])
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
            release::renew_all(&self.pool, &grants).await
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(release::release(&self.pool, grant))
    }

    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        let acquisition = Acquisition::new(&self.pool, request);
        match grant.state::<Held>() {
            // A lease is the session's: another one needs another session.
            Some(held) if held.session.serves(request.lease()) => {
                Box::pin(acquisition.go_on_from(held))
            }
            _ => Box::pin(async move {
                if let Err(error) = release::release(&self.pool, grant).await {
                    let lock = request.name().shown();
                    tracing::warn!(%lock, %error, "could not release the lock");
                }
                acquisition.run().await
            }),
        }
    }

    fn lock_space(&self) -> LockSpace {
        LockSpace::at(&self.pool)
    }

    fn clone_of(&self) -> Option<LockSpace> {
        Some(self.lock_space())
    }
}

impl fmt::Debug for PostgresProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.pool.settings;
        f.debug_struct("PostgresProvider")
            .field("hosts", &settings.server.get_hosts())
            .field("key_prefix", &settings.key_prefix)
            .field("lease", &settings.lease)
            .finish_non_exhaustive()
    }
}

pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    Ok(Arc::new(PostgresProvider::connect(url).await?))
}
