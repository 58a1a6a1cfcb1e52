//! A provider whose locks are held by sessions of a database server.

use std::sync::Arc;

use super::acquisition::Acquisition;
use super::held::{Has, HeldLock};
use super::inspect::inspect;
use super::look::look_again_and_again;
use super::pool::Pool;
use super::release::{release, release_what};
use super::renew::renew_all;
use super::share::may_share;
use super::traits::{LockSession, SettingsOf};
use crate::background;
use crate::background::run_here;
use crate::clock::Timestamp;
use crate::provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockKind, LockMode, LockProvider, LockSpace,
    LockState, describe,
};
use crate::telemetry::spans;
use crate::{LockError, LockErrorKind, LockName};

/// Locks held by sessions. A database's own provider is made of this.
pub(crate) struct SessionProvider<S: LockSession> {
    pool: Arc<Pool<S>>,
    gives_tokens: bool,
}

impl<S: LockSession> Clone for SessionProvider<S> {
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            gives_tokens: self.gives_tokens,
        }
    }
}

impl<S: LockSession> SessionProvider<S> {
    /// Connects, and looks whether the server can hold locks.
    pub(crate) async fn open(settings: SettingsOf<S>) -> Result<Self, LockError> {
        let pool = Arc::new(Pool::<S>::new(settings));
        let opening = Arc::clone(&pool);
        let gives_tokens = run_here(async move {
            // A pooler's sessions are left as they were, so this comes first.
            S::check_server(&opening.settings).await?;
            background::spawn_beside(look_again_and_again(Arc::downgrade(&opening)));
            let session = opening.shared(opening.settings.lease).await?;
            Ok::<_, LockError>(session.client.gives_tokens())
        });
        let gives_tokens = gives_tokens.await??;
        Ok(Self { pool, gives_tokens })
    }

    /// Returns what the provider goes by.
    pub(crate) fn settings(&self) -> &SettingsOf<S> {
        &self.pool.settings
    }
}

impl<S: LockSession> LockProvider for SessionProvider<S> {
    fn capabilities(&self) -> Capabilities {
        let settings = &self.pool.settings;
        let mut capabilities = Capabilities::new(S::PROVIDER)
            .with_lease(settings.lease)
            .with_contention_reports()
            .with_response_timeout(settings.response_timeout);
        if self.gives_tokens {
            capabilities = capabilities.with_fencing_tokens();
        }
        if S::SHARES {
            capabilities = capabilities.with_read_write();
        }
        if S::UPGRADES {
            capabilities = capabilities.with_upgradeable();
        }
        if S::TELLS_HOLDERS {
            capabilities = capabilities.with_holders();
        }
        if S::HAS_PERMITS {
            capabilities = capabilities.with_many_permits();
        }
        // Without a place in the server's queue there is no order.
        if settings.waiting_sessions > 0 {
            capabilities = capabilities.with_fairness();
        }
        capabilities
    }

    fn describe(&self) -> String {
        let settings = &self.pool.settings;
        let (server, prefix) = (&settings.server_name, &settings.key_prefix);
        describe(S::PROVIDER, server, prefix, Some(settings.lease))
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        let acquisition = Acquisition::new(&self.pool, request);
        match request.mode() {
            LockMode::Permits { limit, take } => Box::pin(acquisition.run_permits(limit, take)),
            LockMode::Upgradeable => Box::pin(acquisition.run_upgradeable()),
            _ => Box::pin(acquisition.run()),
        }
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        Box::pin(async move {
            renew_all::<S>(&self.pool, &[grant])
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
            renew_all::<S>(&self.pool, &grants).await
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(release(&self.pool, grant))
    }

    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        let is_one = |mode| matches!(mode, LockMode::Exclusive | LockMode::Read | LockMode::Write);
        let goes_on = is_one(grant.mode()) && is_one(request.mode());
        Box::pin(async move {
            if let Some(held) = grant.state::<HeldLock<S>>()
                // A lease is the session's: another one needs another session.
                && goes_on && held.session.serves(request.lease())
            {
                let acquisition = Acquisition::new(&self.pool, request);
                return match held.take() {
                    Some(Has::Lock(lock)) => acquisition.go_on_from(&held.session, lock).await,
                    Some(other) => {
                        let released = release_what(&self.pool, &held.session, other).await;
                        if let Err(error) = released {
                            spans::release_failed(&error.with_name(request.name().clone()));
                        }
                        acquisition.run().await
                    }
                    None => acquisition.run().await,
                };
            }
            if let Err(error) = release(&self.pool, grant).await {
                spans::release_failed(&error.with_name(request.name().clone()));
            }
            self.acquire(request).await
        })
    }

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        Box::pin(may_share(&self.pool, grant))
    }

    fn upgrade<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(Acquisition::new(&self.pool, request).upgrade(grant))
    }

    fn inspect<'a>(
        &'a self,
        name: &'a LockName,
        kind: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        Box::pin(inspect(&self.pool, name, kind))
    }

    fn lock_space(&self) -> LockSpace {
        LockSpace::at(&self.pool)
    }

    fn clone_of(&self) -> Option<LockSpace> {
        Some(self.lock_space())
    }
}
