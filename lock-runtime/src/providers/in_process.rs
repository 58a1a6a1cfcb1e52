//! Locks held in this process alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::acquire::Acquiring;
use crate::clock::{Span, Timestamp};
use crate::error::{LockError, LockErrorKind};
use crate::future::{First, select};
use crate::gate::{self, ReleaseMode, Wanted};
use crate::guard::LockGuard;
use crate::kind::Exclusive;
use crate::provider::{AcquireRequest, BoxFuture, Capabilities, Grant, LockProvider, LockSpace};
use crate::providers::kit::error::invalid;
use crate::source::Source;
use crate::token::FencingToken;

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
            let mut slot = Some(slot);
            let wanted = Wanted {
                lease: Span::NONE,
                timeout: match request.waits() {
                    true => Span::NONE,
                    false => Span::of(Duration::ZERO),
                },
                min_hold: Span::NONE,
                release: ReleaseMode::Confirmed,
                template: "",
            };
            let mut wait = None;
            let acquiring = Acquiring::new(Exclusive, &mut slot, &wanted, &mut wait);
            let guard = match select(acquiring, request.abandoned()).await {
                First::Left(guard) => guard?,
                First::Right(()) => return Err(LockErrorKind::Contended.into()),
            };
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
                None if grant.state::<HeldByQueue>().is_some() => Ok(()),
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
        Some(self.next_token())
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
