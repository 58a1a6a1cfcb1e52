//! The provider.

use std::fmt;
use std::sync::Arc;

use super::session::PostgresSession;
use super::settings::Settings;
use crate::clock::Timestamp;
use crate::provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockKind, LockProvider, LockSpace, LockState,
};
use crate::providers::sql_session::SessionProvider;
use crate::{LockError, LockName};

/// Locks on a PostgreSQL server, 14 or newer.
///
/// The lock `name` is the advisory lock [`advisory_key`](super::advisory_key)`(key_prefix + name)`,
/// held by a session. That is the recipe of the .NET `DistributedLock` library, so services in both
/// languages exclude each other, and so does `SELECT pg_advisory_lock(…)` typed by hand. No table
/// is needed, and no right but to connect.
///
/// * **Lease.** A session has `idle_session_timeout` set to the lease, or to the class of lease
///   above it, and the library asks it something every third of that. So a lock is free at once
///   when its holder's process ends, and within a lease when that process is frozen or cut off.
/// * **Waiting** happens in the server's own queue, in arrival order and without polling. It takes
///   a session, since a session that waits can do nothing else; that session then holds the lock.
///   Up to 16 sessions stand in queues
///   ([`waiting_sessions`](super::PostgresProviderBuilder::waiting_sessions)). Any other waiter is
///   told by `NOTIFY` when its lock is released, and tries it. So does then everybody who waits for
///   that lock, and the order among them is by chance. Clients that do not notify, such as .NET's,
///   are noticed within 0.4 s.
/// * **Sessions.** Locks that were free share up to four sessions for each class of lease: the
///   provider's own, and that doubled or halved. All sessions together are at most
///   [`max_sessions`](super::PostgresProviderBuilder::max_sessions), and all locks at most
///   [`max_locks`](super::PostgresProviderBuilder::max_locks), both parts of what the server has. A
///   session that nobody needs is closed after 10 s.
/// * **Snapshots.** A session in a queue has a snapshot of the database, which keeps `VACUUM` from
///   removing what has died since, and `CREATE INDEX CONCURRENTLY` waiting. It queues again, behind
///   those that have come meanwhile, when the snapshot is 10 s old
///   ([`snapshot_age`](super::PostgresProviderBuilder::snapshot_age)), or about a second after
///   somebody began to wait for its end.
/// * **Fencing tokens** are transaction numbers (`pg_current_xact_id`), counted from the server's
///   last restart and from the timeline. So they go on growing when a crash or a failover forgets
///   the last of them. Each grant uses up one transaction number. The numbers are the
///   server's, so no floor can be set: after a change from a provider whose tokens are higher,
///   start a new column for them. On version 14 there are no tokens: it does not tell when one of
///   its processes has crashed, after which it may give the numbers of the last moments again.
/// * **Readers and writers** share the advisory lock, or have it alone, as the .NET library's do. The
///   server's queue is in arrival order over both.
/// * **Semaphores** have an advisory lock for each permit. Whoever waits stands in the queue of one
///   more, the turnstile.
/// * **Loss.** When a session ends, its locks are lost, and their holders know it at once.
///
/// # What it relies on
///
/// *One primary at a time that the URL's name leads to.* While locks are held or waited for, a
/// fresh connection looks once a lease where the name leads. When a standby was promoted, the
/// server was started again, or the name leads to another cluster, all sessions of the server
/// before end, and their holders are told. So a primary that was replaced without being shut down
/// goes on holding and granting locks for up to one and a half leases. In that time, check the
/// fencing token at the resource. Where the name leads to nobody, nothing is concluded.
///
/// *A session that lives until its holder hears of its end.* The server may end a session at once:
/// it crashes, somebody calls `pg_terminate_backend`, a middlebox resets the connection. Then the
/// session's locks are free at once. A holder that is frozen or cut off in that moment does not
/// know before its lease ends. Check the fencing token at the resource where that must do no harm.
///
/// *One database.* An advisory lock belongs to the database of the URL, so all who are to exclude
/// each other name the same one.
///
/// *A clock of the server that is not set back* by more than the server has run between two
/// restarts, or tokens would not grow. They start lower after `pg_upgrade` of a server that had
/// been a standby once. They do so too in a new cluster that was filled by dump and restore or by
/// logical replication.
///
/// *A process that is not stopped in the middle of sending a request.* It would keep its session
/// for longer than a lease, since the server does not count that as idle. It ends when the process
/// goes on, or when its machine does not answer keep-alive probes any more.
///
/// *No connection pooler before the server, or one in session mode.* Any other is refused, also one
/// that changes its mode later: each session is marked. Its pool needs room for `max_sessions`
/// sessions of each process, and for two at least while a process connects.
///
/// # TLS
///
/// TLS is required unless all hosts of the URL are the machine itself, or `sslmode=disable` or
/// `prefer` says otherwise. With TLS the server's certificate is always checked, whichever of
/// `require`, `verify-ca` and `verify-full` is said, and channels are not bound.
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
/// A URL says the same: `postgres://app@127.0.0.1/app?key_prefix=MyApp1:&lease=30s`.
#[derive(Clone)]
pub struct PostgresProvider(SessionProvider<PostgresSession>);

impl PostgresProvider {
    pub(super) async fn open(settings: Settings) -> Result<Self, LockError> {
        SessionProvider::open(settings).await.map(Self)
    }
}

impl LockProvider for PostgresProvider {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.0.renew(grant)
    }

    fn renew_all<'a>(
        &'a self,
        grants: &'a [Arc<Grant>],
    ) -> BoxFuture<'a, Vec<Result<Timestamp, LockError>>> {
        self.0.renew_all(grants)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }

    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.pass_on(grant, request)
    }

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        self.0.may_share(grant)
    }

    fn upgrade<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.upgrade(grant, request)
    }

    fn inspect<'a>(
        &'a self,
        name: &'a LockName,
        kind: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        self.0.inspect(name, kind)
    }

    fn lock_space(&self) -> LockSpace {
        self.0.lock_space()
    }

    fn clone_of(&self) -> Option<LockSpace> {
        self.0.clone_of()
    }
}

impl fmt::Debug for PostgresProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.0.settings();
        f.debug_struct("PostgresProvider")
            .field("hosts", &settings.target.config.get_hosts())
            .field("key_prefix", &settings.key_prefix)
            .field("lease", &settings.lease)
            .finish_non_exhaustive()
    }
}
