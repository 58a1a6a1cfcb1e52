//! What a provider is: its trait, what it is asked, and what it answers.

mod capabilities;
mod grant;
mod loss;
mod request;

use std::sync::Arc;
use std::time::Duration;

use crate::call::caught;
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::future::all_of;
use crate::token::FencingToken;

pub use crate::future::BoxFuture;
pub use capabilities::{Capabilities, LockSpace};
pub use grant::Grant;
pub(crate) use loss::LossListener;
pub use loss::LossReporter;
pub use request::{AcquireRequest, Interest, OwnerId};

/// Where locks live: implement this to keep locks on a server that is not supported yet.
///
/// A provider keeps named locks somewhere: on a server, in files, in memory. It answers four
/// questions, [`acquire`](LockProvider::acquire), [`renew`](LockProvider::renew),
/// [`release`](LockProvider::release) and, if it can do better than a release followed by an
/// acquisition, [`pass_on`](LockProvider::pass_on). Everything else is the library's: queueing
/// inside the process, timeouts, cancellation, renewal in time, loss, clean-up and deadlock
/// detection.
///
/// # What the library promises a provider
///
/// * Calls run on the library's own thread and Tokio runtime, with I/O and timers enabled. They
///   may use `tokio` freely, but must not block; blocking work goes to
///   [`tokio::task::spawn_blocking`].
/// * For one lock space ([`lock_space`](LockProvider::lock_space)) and name there is at most one
///   call of `acquire`, `pass_on` or `release` under way, and at most one grant.
/// * A future of `acquire`, `pass_on` or `release` is **never dropped before it is done**. When
///   nobody wants the lock any more, [`AcquireRequest::abandoned`] says so instead, and a grant
///   that still comes is released. A future of `renew` or `renew_all` may be dropped.
/// * A call that panics counts as [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable).
///
/// # What a provider promises
///
/// * A grant's validity is counted from a moment **before** the request that made it was sent
///   ([`Grant::new`]). The server must keep it for at least the lease from then on.
/// * An acquisition that fails leaves nothing behind, even if the server's answer was lost: it
///   tries to undo what the lost request may have done, for as long as one lease.
/// * `release` and `renew` touch the lock only where the server says that this
///   [owner](AcquireRequest::owner) holds it.
///
/// Implemented for `Arc<P>` too, so that one provider can be registered and used directly.
pub trait LockProvider: Send + Sync + 'static {
    /// Returns what this provider can do: the same value at every call.
    fn capabilities(&self) -> Capabilities;

    /// Says where the locks are, for the log: without credentials, and in one line, such as
    /// ``redis 127.0.0.1:6379, prefix `billing:`, lease 30s``. By default the provider's name and
    /// its lease.
    fn describe(&self) -> String {
        let capabilities = self.capabilities();
        describe(capabilities.provider, "", "", capabilities.lease)
    }

    /// Acquires the lock `request.name()` for `request.owner()`.
    ///
    /// With [`waits`](AcquireRequest::waits) false, answers at once; with true, waits until the
    /// lock is granted or [abandoned](AcquireRequest::abandoned) resolves, preferably in the order
    /// in which processes asked.
    ///
    /// # Errors
    ///
    /// [`Contended`](LockErrorKind::Contended) if somebody else holds the lock, or if the request
    /// was abandoned while it waited; any other kind for what went wrong.
    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>>;

    /// Extends a grant by its lease, if its owner still holds the lock, and returns the moment
    /// from which the new validity counts: read **before** the request was sent.
    ///
    /// Called every third of the lease; never for a grant without one. A provider with leases must
    /// implement it: by default no grant is ever extended, and each is lost when its lease ends.
    ///
    /// # Errors
    ///
    /// [`Lost`](LockErrorKind::Lost) if the server says that the owner holds the lock no more:
    /// the guard is lost at once. After any other error the library tries again until the grant's
    /// validity ends. [`Unsupported`](LockErrorKind::Unsupported) by default.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        let _ = grant;
        Box::pin(async move { Err(unsupported(self.capabilities(), "renew a lease")) })
    }

    /// Renews several grants, and answers for each, in order. Override it where the server can
    /// take them in one request. By default all [`renew`](Self::renew)s at once, each for a quarter
    /// of its lease at most, so that one that hangs does not hold up the others.
    fn renew_all<'a>(
        &'a self,
        grants: &'a [Arc<Grant>],
    ) -> BoxFuture<'a, Vec<Result<Timestamp, LockError>>> {
        let renewals = grants.iter().map(|grant| {
            // Each by itself: one that panics is not the others' failure.
            let renewal = caught(async { self.renew(grant).await });
            let renewal: BoxFuture<'a, _> = Box::pin(async {
                match tokio::time::timeout(grant.lease() / 4, renewal).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(panicked)) => Err(panicked.into()),
                    Err(_) => Err(LockError::new(LockErrorKind::ProviderUnavailable)
                        .with_detail("the provider did not answer a renewal in time")),
                }
            });
            renewal
        });
        Box::pin(all_of(renewals.collect()))
    }

    /// Releases the lock, if the grant's owner still holds it.
    ///
    /// Called exactly once for each grant that was not passed on, also after a loss: then as a
    /// precaution, and its answer is ignored.
    ///
    /// # Errors
    ///
    /// [`Lost`](LockErrorKind::Lost) if the owner did not hold the lock any more; any other kind
    /// if the server could not be asked, in which case its lease ends the lock.
    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>>;

    /// Gives the lock up in favour of the next process that waits and queues again behind it, or,
    /// if no other process waits, goes on with a new grant: in one step where the server can.
    ///
    /// Called when a run of grants inside this process is over and others still wait in it. By
    /// default a [`release`](Self::release) followed by an [`acquire`](Self::acquire).
    ///
    /// # Errors
    ///
    /// As `acquire`. The old grant is over in every case.
    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            // A failed release is not the next acquisition's failure: that one learns by itself
            // whether the server answers.
            if let Err(error) = self.release(grant).await {
                tracing::warn!(name = %request.name(), %error, "could not release the lock");
            }
            self.acquire(request).await
        })
    }

    /// Releases the lock after `keep_for` and not now, also if this process has ended by then.
    ///
    /// Called instead of [`release`](Self::release), with the rest of a `min_hold`. The grant is
    /// over for the library as soon as the server has agreed: it renews it no more.
    ///
    /// # Errors
    ///
    /// As `release`. [`Unsupported`](LockErrorKind::Unsupported), the default, if the server cannot
    /// do this: then the library renews the grant until `keep_for` has passed, and releases it.
    fn release_later<'a>(
        &'a self,
        grant: &'a Grant,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<(), LockError>> {
        let _ = (grant, keep_for);
        Box::pin(async move { Err(unsupported(self.capabilities(), "release a lock later")) })
    }

    /// Returns the set of locks that this provider's names belong to. Inside one process, two tasks never
    /// hold the same name of the same space, whatever the server says; many servers let one
    /// session take its own lock twice.
    ///
    /// By default the provider's own address. A provider that only wraps another one must return
    /// that one's space.
    fn lock_space(&self) -> LockSpace {
        LockSpace::of(self)
    }

    /// Returns what all clones of this provider have in common, and no other provider has. Then the calls of one
    /// may serve the callers of another, several in one request. A wrapper does not forward this,
    /// since its own logic would be left out.
    ///
    /// By default `None`: each provider that is registered, or put in an `Arc`, stands for itself.
    fn clone_of(&self) -> Option<LockSpace> {
        None
    }

    /// Returns, for locks that are nothing but the process's own queue, the token of the grant that is
    /// being made, now, without asking anybody. `acquire`, `renew` and `release` are then not
    /// called. Only [`InProcessProvider`](crate::InProcessProvider), and what wraps it, answers
    /// `Some`; the default is `None`.
    #[doc(hidden)]
    fn grant_in_process(&self) -> Option<FencingToken> {
        None
    }
}

impl<P: LockProvider + ?Sized> LockProvider for Arc<P> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn describe(&self) -> String {
        (**self).describe()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        (**self).acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        (**self).renew(grant)
    }

    fn renew_all<'a>(
        &'a self,
        grants: &'a [Arc<Grant>],
    ) -> BoxFuture<'a, Vec<Result<Timestamp, LockError>>> {
        (**self).renew_all(grants)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        (**self).release(grant)
    }

    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        (**self).pass_on(grant, request)
    }

    fn release_later<'a>(
        &'a self,
        grant: &'a Grant,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<(), LockError>> {
        (**self).release_later(grant, keep_for)
    }

    fn lock_space(&self) -> LockSpace {
        (**self).lock_space()
    }

    fn clone_of(&self) -> Option<LockSpace> {
        (**self).clone_of()
    }

    fn grant_in_process(&self) -> Option<FencingToken> {
        (**self).grant_in_process()
    }
}

/// The text of [`LockProvider::describe`]; what is empty is left out.
pub(crate) fn describe(
    provider: &str,
    place: &str,
    key_prefix: &str,
    lease: Option<Duration>,
) -> String {
    let mut text = provider.to_owned();
    if !place.is_empty() {
        text += &format!(" {place}");
    }
    if !key_prefix.is_empty() {
        text += &format!(", prefix `{key_prefix}`");
    }
    if let Some(lease) = lease {
        text += &format!(", lease {lease:?}");
    }
    text
}

fn unsupported(provider: Capabilities, what: &str) -> LockError {
    LockError::new(LockErrorKind::Unsupported).with_detail(format!(
        "the provider `{}` cannot {what}",
        provider.provider
    ))
}
