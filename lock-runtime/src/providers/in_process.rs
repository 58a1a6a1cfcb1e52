//! Locks held in this process alone.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::acquire::Acquiring;
use crate::clock::{Span, Timestamp};
use crate::error::{LockError, LockErrorKind};
use crate::future::{First, select};
use crate::gate::{self, ReleaseMode, SlotRef, Wanted};
use crate::guard::{Guard, LockGuard};
use crate::kind::{Exclusive, Kind, Permits, Read, Upgradeable, Write};
use crate::provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockMode, LockProvider, LockSpace,
};
use crate::providers::kit::error::invalid;
use crate::shared_guard::{
    RwLockReadGuard, RwLockUpgradeableReadGuard, RwLockWriteGuard, SemaphorePermit,
};
use crate::source::Source;
use crate::token::FencingToken;
use crate::upgrade::upgrade;

/// Holds locks in this process: for programs of which one instance runs, and for tests.
///
/// It is what is used while no provider is registered. Waiters are served in arrival order;
/// fencing tokens grow with every grant and begin anew with the process. There is no lease and
/// nothing to lose. Clones share their locks; two providers made by [`new`](Self::new) do not.
#[derive(Debug, Clone, Default)]
pub struct InProcessProvider {
    last_token: Arc<AtomicU64>,
}

impl InProcessProvider {
    /// Makes a provider with locks of its own.
    pub fn new() -> Self {
        Self::default()
    }

    fn next_token(&self) -> FencingToken {
        FencingToken::new(self.last_token.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// What a grant carries whose lock is held by the queue that asked for it.
struct HeldByQueue;

impl LockProvider for InProcessProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("in-process")
            .with_fencing_tokens()
            .with_local_hand_over()
            .with_fairness()
            .with_upgradeable()
            .with_many_permits()
            .with_holders()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            let source = Source::new(Arc::new(self.clone()));
            let slot = gate::enter(&source, request.name(), request.mode().kind())?;
            if request.is_made_for(slot.address()) {
                // The queue that asks is the lock itself. So it is where a wrapper shares the lock
                // space, and where a caller of this provider waits behind one of a wrapper.
                let grant = Grant::new(request, Timestamp::now()).with_state(HeldByQueue);
                return Ok(grant.with_token(self.next_token()));
            }
            match request.mode() {
                LockMode::Exclusive => held(Exclusive, slot, request).await,
                LockMode::Read => held(Read, slot, request).await,
                LockMode::Write => held(Write, slot, request).await,
                LockMode::Upgradeable => {
                    let guard = acquired(Upgradeable, slot, request).await?;
                    let token = guard.fencing_token();
                    Ok(granted(request, token, ReaderOfQueue::new(guard)))
                }
                LockMode::Permits { limit, take } => {
                    let (limit, take) = (limit.get(), take.get());
                    held(Permits { limit, take }, slot, request).await
                }
            }
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            if grant.state::<HeldByQueue>().is_some() {
                return Ok(());
            }
            match grant.mode() {
                LockMode::Exclusive => release::<LockGuard>(grant).await,
                LockMode::Read => release::<RwLockReadGuard>(grant).await,
                LockMode::Write => release::<RwLockWriteGuard>(grant).await,
                LockMode::Upgradeable => {
                    let reader = grant.state::<ReaderOfQueue>().and_then(ReaderOfQueue::take);
                    reader.ok_or(LockErrorKind::Lost)?.release().await
                }
                LockMode::Permits { .. } => release::<SemaphorePermit>(grant).await,
            }
        })
    }

    fn upgrade<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            if grant.state::<HeldByQueue>().is_some() {
                // The queue asks once the other readers have left.
                let grant = Grant::new(request, Timestamp::now()).with_state(HeldByQueue);
                return Ok(grant.with_token(self.next_token()));
            }
            let reader = grant.state::<ReaderOfQueue>().ok_or(LockErrorKind::Lost)?;
            let guard = reader.take().ok_or(LockErrorKind::Lost)?;
            let timeout = match request.waits() {
                true => Span::NONE,
                false => Span::of(Duration::ZERO),
            };
            match upgrade(guard, timeout, request.abandoned()).await {
                Ok(guard) => {
                    let token = guard.fencing_token();
                    Ok(granted(request, token, guard))
                }
                Err(failed) => {
                    let error = failed.error().clone();
                    reader.put_back(failed.into_guard());
                    Err(match error.kind() {
                        // A request that is abandoned is answered like this.
                        LockErrorKind::TimedOut => LockErrorKind::Contended.into(),
                        _ => error,
                    })
                }
            }
        })
    }

    fn lock_space(&self) -> LockSpace {
        LockSpace::in_process(&self.last_token)
    }

    fn clone_of(&self) -> Option<LockSpace> {
        Some(self.lock_space())
    }

    fn grant_in_process(&self) -> Option<FencingToken> {
        Some(self.next_token())
    }
}

/// The reader that a queue holds which is not its slot's, until it becomes the writer.
struct ReaderOfQueue(Mutex<Option<RwLockUpgradeableReadGuard>>);

impl ReaderOfQueue {
    fn new(guard: RwLockUpgradeableReadGuard) -> Self {
        Self(Mutex::new(Some(guard)))
    }

    fn take(&self) -> Option<RwLockUpgradeableReadGuard> {
        self.lock().take()
    }

    fn put_back(&self, guard: Option<RwLockUpgradeableReadGuard>) {
        *self.lock() = guard;
    }

    fn lock(&self) -> MutexGuard<'_, Option<RwLockUpgradeableReadGuard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Acquires what the request wants, for a queue that is not this slot's.
async fn held<K: Kind>(
    kind: K,
    slot: SlotRef,
    request: &AcquireRequest,
) -> Result<Grant, LockError> {
    let guard = acquired(kind, slot, request).await?;
    let token = guard.token();
    Ok(granted(request, token, guard))
}

/// Makes the grant whose lock is held by this guard.
fn granted(
    request: &AcquireRequest,
    token: Option<FencingToken>,
    guard: impl Any + Send + Sync,
) -> Grant {
    let grant = Grant::new(request, Timestamp::now()).with_state(guard);
    match token {
        Some(token) => grant.with_token(token),
        None => grant,
    }
}

async fn acquired<K: Kind>(
    kind: K,
    slot: SlotRef,
    request: &AcquireRequest,
) -> Result<K::Guard, LockError> {
    let wanted = Wanted {
        lease: Span::NONE,
        timeout: match request.waits() {
            true => Span::NONE,
            false => Span::of(Duration::ZERO),
        },
        min_hold: Span::NONE,
        release: ReleaseMode::Confirmed,
        template: "",
        measured: true,
    };
    let (mut slot, mut wait) = (Some(slot), None);
    let acquiring = Acquiring::new(kind, &mut slot, &wanted, &mut wait);
    match select(acquiring, request.abandoned()).await {
        First::Left(guard) => guard,
        First::Right(()) => Err(LockErrorKind::Contended.into()),
    }
}

async fn release<G: Guard>(grant: &Grant) -> Result<(), LockError> {
    match grant.state::<G>() {
        Some(guard) => guard.release_in_place().await,
        None => Err(LockErrorKind::Lost.into()),
    }
}

pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    let (place, query) = match url.split_once('?') {
        Some((place, query)) => (place, query),
        None => (url.as_str(), ""),
    };
    let known = form_urlencoded::parse(query.as_bytes()).all(|(name, _)| name == "key_prefix");
    match place.split_once(':') {
        // Every one has locks of its own, so a prefix makes no difference.
        Some((_, "" | "//")) if known => {
            tracing::warn!(
                "`memory:` holds locks in this process alone; other processes are not excluded"
            );
            Ok(Arc::new(InProcessProvider::new()))
        }
        _ => Err(invalid(
            "expected `memory:` and nothing behind it but, perhaps, `?key_prefix=`",
        )),
    }
}
