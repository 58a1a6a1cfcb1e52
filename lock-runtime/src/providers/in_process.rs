//! Locks held in this process alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Timestamp;
use crate::guard::LockGuard;
use crate::lock::DistributedLock;
use crate::provider::{AcquireRequest, BoxFuture, Capabilities, Grant, LockProvider, LockSpace};
use crate::race::{First, first_of};
use crate::token::FencingToken;
use crate::{LockError, LockErrorKind};

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
    /// A provider with locks of its own.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self, request: &AcquireRequest) -> DistributedLock {
        DistributedLock::on(Arc::new(self.clone()), request.name())
    }
}

/// The gate does all the work: it queues, and has [`grant_in_process`](LockProvider::grant_in_process)
/// name the token. The other methods serve those who wrap this provider and do not say so through
/// `lock_space`; they too go through the gate, and so exclude everybody else.
impl LockProvider for InProcessProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("in-process")
            .with_fencing_tokens()
            .with_local_hand_over()
            .with_fairness()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            let lock = self.lock(request);
            let guard = if request.waits() {
                match first_of(lock.acquire(), request.abandoned()).await {
                    First::Left(guard) => guard,
                    First::Right(()) => Err(LockErrorKind::Contended.into()),
                }
            } else {
                lock.acquire_for(std::time::Duration::ZERO).await
            }?;
            let token = guard.fencing_token();
            let grant = Grant::new(request, Timestamp::now()).with_state(guard);
            Ok(match token {
                Some(token) => grant.with_token(token),
                None => grant,
            })
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            match grant.state::<LockGuard>() {
                Some(guard) => guard.release_in_place().await,
                None => Err(LockErrorKind::Lost.into()),
            }
        })
    }

    fn lock_space(&self) -> LockSpace {
        LockSpace::at(&self.last_token)
    }

    fn clone_of(&self) -> Option<LockSpace> {
        Some(self.lock_space())
    }

    fn grant_in_process(&self) -> Option<FencingToken> {
        Some(FencingToken::new(
            self.last_token.fetch_add(1, Ordering::Relaxed) + 1,
        ))
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
        _ => Err(super::invalid(
            "expected `memory:` and nothing behind it but, perhaps, `?key_prefix=`",
        )),
    }
}
