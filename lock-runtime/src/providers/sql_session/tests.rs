//! A server that has nothing but locks of sessions: no tokens, no notices of a release, and no view
//! of one session from another one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::traits::SettingsOf;
use super::*;
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant, Interest, LockProvider};
use crate::providers::kit::session::Liveness;
use crate::providers::kit::settings::Common;
use crate::{LockError, LockErrorKind};

const LEASE: Duration = Duration::from_secs(5);

/// Its locks: which session has one, and how often.
#[derive(Default)]
struct Database {
    locks: Mutex<HashMap<u64, (u64, u32)>>,
    released: Notify,
    sessions: AtomicU64,
}

struct FakeSession {
    database: Arc<Database>,
    number: u64,
    /// Its connection is closed.
    closed: Arc<AtomicBool>,
    liveness: Arc<Liveness<u64>>,
    activity: Activity,
    _permit: SessionPermit,
}

#[derive(Debug)]
struct Broken;

impl ClientError for Broken {
    fn into_lock_error(self) -> LockError {
        LockError::new(LockErrorKind::ProviderUnavailable).with_detail("broken")
    }

    fn is_from_server(&self) -> bool {
        false
    }

    fn ends_a_wait(&self) -> bool {
        false
    }
}

type Reply<T> = Result<T, Broken>;

impl FakeSession {
    /// Answers a request, unless the session has ended.
    async fn ask<T>(&self, answer: impl FnOnce(&mut HashMap<u64, (u64, u32)>) -> T) -> Reply<T> {
        let (request, sent_at) = (self.activity.begin(), Timestamp::now());
        tokio::task::yield_now().await;
        if self.liveness.why_ended().is_some() {
            return Err(Broken);
        }
        request.answered(sent_at);
        Ok(answer(&mut self.database.locks.lock().unwrap()))
    }

    async fn take(&self, key: u64) -> Reply<bool> {
        let number = self.number;
        self.ask(|locks| {
            let (holder, count) = locks.entry(key).or_insert((number, 0));
            *count += u32::from(*holder == number);
            *holder == number
        })
        .await
    }

    async fn give(&self, key: u64) -> Reply<bool> {
        let number = self.number;
        let released = self.ask(|locks| match locks.get_mut(&key) {
            Some((holder, count)) if *holder == number => {
                *count -= 1;
                if *count == 0 {
                    locks.remove(&key);
                }
                true
            }
            _ => false,
        });
        let released = released.await;
        self.database.released.notify_waiters();
        released
    }

    fn release_all(&self) {
        let mut locks = self.database.locks.lock().unwrap();
        locks.retain(|_, (holder, _)| *holder != self.number);
        self.database.released.notify_waiters();
    }
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        self.release_all();
    }
}

impl LockSession for FakeSession {
    const PROVIDER: &'static str = "fake";

    type Target = Arc<Database>;
    type Key = u64;
    type Pid = u64;
    type Error = Broken;

    fn key(name: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        hasher.finish()
    }

    async fn open(
        settings: &SettingsOf<Self>,
        lease: Duration,
        _: SessionUse,
        permit: SessionPermit,
    ) -> Result<Opened<Self>, LockError> {
        let number = settings.target.sessions.fetch_add(1, Ordering::Relaxed);
        let now = Timestamp::now();
        Ok(Opened {
            client: Self {
                database: Arc::clone(&settings.target),
                number,
                closed: Arc::default(),
                liveness: Arc::new(Liveness::new()),
                activity: Activity::new(now),
                _permit: permit,
            },
            backend: Backend {
                server: Self::look(settings).await?,
                pid: number,
                started: 0,
            },
            lease,
            connected_at: now,
            capacity: Capacity {
                connections: 100,
                locks: 100,
            },
        })
    }

    async fn look(_: &SettingsOf<Self>) -> Result<Server, LockError> {
        Ok(Server {
            system: 1,
            timeline: 0,
            started: 1,
        })
    }

    fn liveness(&self) -> &Arc<Liveness<u64>> {
        &self.liveness
    }

    fn activity(&self) -> &Activity {
        &self.activity
    }

    async fn try_lock(&self, key: u64, _: Access) -> Reply<Tried> {
        let sent_at = Timestamp::now();
        Ok(match self.take(key).await? {
            true => Tried::Granted(Granted {
                sent_at,
                token: None,
            }),
            false => Tried::Held { others_wait: false },
        })
    }

    /// Goes on waiting when nobody waits for the answer any more, as a server does.
    async fn lock(&self, key: u64, _: Access, _: Duration) -> Reply<()> {
        let (database, number) = (Arc::clone(&self.database), self.number);
        let closed = Arc::clone(&self.closed);
        let waiting = crate::background::spawn_beside(async move {
            loop {
                let released = database.released.notified();
                if closed.load(Ordering::SeqCst) {
                    return Err(Broken);
                }
                if let Entry::Vacant(free) = database.locks.lock().unwrap().entry(key) {
                    free.insert((number, 1));
                    return Ok(());
                }
                released.await;
            }
        });
        waiting.await.unwrap()
    }

    async fn claim(&self, _: Duration) -> Reply<Granted> {
        let sent_at = self.ping().await?;
        Ok(Granted {
            sent_at,
            token: None,
        })
    }

    async fn unlock(&self, key: u64, _: Access) -> Reply<bool> {
        self.give(key).await
    }

    async fn unlock_all(&self) -> Reply<()> {
        self.release_all();
        Ok(())
    }

    async fn ping(&self) -> Reply<Timestamp> {
        let sent_at = Timestamp::now();
        self.ask(|_| sent_at).await
    }

    async fn keep_for(&self, _: Duration) -> Reply<()> {
        self.ask(|_| ()).await
    }
}

type Provider = SessionProvider<FakeSession>;

/// A process that uses this server, with so many sessions in its queues.
async fn process(database: &Arc<Database>, waiting_sessions: usize) -> Provider {
    let settings = Settings {
        target: Arc::clone(database),
        server_name: "fake".to_owned(),
        common: Common {
            key_prefix: String::new(),
            lease: LEASE,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
        },
        waiting_sessions,
        max_sessions: None,
        max_locks: None,
    };
    SessionProvider::open(settings).await.unwrap()
}

fn request(waits: bool) -> (AcquireRequest, Interest) {
    AcquireRequest::new("order", LEASE, waits).unwrap()
}

async fn acquired(provider: &Provider) -> Grant {
    provider.acquire(&request(false).0).await.unwrap()
}

#[tokio::test]
async fn a_lock_is_handed_over_in_the_queue_and_without_it() {
    let database = Arc::default();
    let holder = process(&database, 1).await;
    for waiting_sessions in [1, 0] {
        let waiter = process(&database, waiting_sessions).await;
        let grant = acquired(&holder).await;
        let refused = waiter.acquire(&request(false).0).await.unwrap_err();
        assert_eq!(
            refused.kind(),
            LockErrorKind::Contended,
            "{waiting_sessions}"
        );
        let (request, interest) = request(true);
        let release = async {
            while !interest.is_contended() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            holder.release(&grant).await.unwrap();
        };
        let (granted, ()) = tokio::join!(waiter.acquire(&request), release);
        let granted = granted.unwrap();
        assert!(granted.token().is_none());
        waiter.release(&granted).await.unwrap();
    }
    assert!(database.locks.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_lock_is_renewed_and_passed_on() {
    let provider = process(&Arc::default(), 1).await;
    let grant = acquired(&provider).await;
    assert!(provider.renew(&grant).await.unwrap() <= Timestamp::now());
    let next = provider.pass_on(&grant, &request(true).0).await.unwrap();
    let over = provider.release(&grant).await.unwrap_err();
    assert_eq!(over.kind(), LockErrorKind::Lost);
    provider.release(&next).await.unwrap();
}

/// Nobody can cancel a wait on this server, so the session that waits is closed.
#[tokio::test]
async fn a_wait_that_is_given_up_leaves_nothing() {
    let database = Arc::default();
    let (holder, waiter) = (process(&database, 1).await, process(&database, 1).await);
    let grant = acquired(&holder).await;
    let (wanted, interest) = request(true);
    let abandon = async {
        while !interest.is_contended() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        interest.abandon();
    };
    let (refused, ()) = tokio::join!(waiter.acquire(&wanted), abandon);
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Contended);
    holder.release(&grant).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(database.locks.lock().unwrap().is_empty());
    let grant = acquired(&waiter).await;
    waiter.release(&grant).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_session_is_the_loss_of_its_locks() {
    let provider = process(&Arc::default(), 1).await;
    let grant = acquired(&provider).await;
    let held: &held::HeldLock<FakeSession> = grant.state().unwrap();
    held.session.end("somebody ended it");
    let lost = grant.loss_reporter().signal().get().unwrap();
    assert!(lost.to_string().contains("somebody ended it"), "{lost}");
    let renewed = provider.renew(&grant).await.unwrap_err();
    assert_eq!(renewed.kind(), LockErrorKind::Lost);
}
