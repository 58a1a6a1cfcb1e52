//! `LockProvider`: the trait of a provider, with what it is asked and what it answers.

mod calls;
mod capabilities;
mod grant;
mod holder;
mod loss;
mod mode;
mod request;

use std::sync::Arc;
use std::time::Duration;

use crate::call::caught;
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::future::join_all;
use crate::name::LockName;
use crate::telemetry::spans;
use crate::token::FencingToken;

pub use crate::future::BoxFuture;
pub use calls::{AcquireCall, Call, ReleaseCall};
pub(crate) use calls::{AcquireCaller, ReleaseCaller};
pub use capabilities::{Capabilities, LockSpace};
pub use grant::Grant;
pub use holder::{Holder, LockState};
pub(crate) use loss::LossListener;
pub use loss::LossReporter;
pub use mode::{LockKind, LockMode};
pub use request::{AcquireRequest, Interest, OwnerId};

/// Where locks live: implement this to keep locks on a server that is not supported yet.
///
/// A provider keeps named locks somewhere: on a server, in files, in memory. It must
/// [`acquire`](LockProvider::acquire) and [`release`](LockProvider::release) a lock and, if its
/// locks have a lease, [`renew`](LockProvider::renew) it. The other methods have defaults, which a
/// provider replaces where its server can do better.
///
/// The library does everything else: queueing inside the process, timeouts, cancellation, renewal
/// in time, loss, clean-up and deadlock detection.
///
/// # What the library promises a provider
///
/// * Calls run on the library's own thread and Tokio runtime, with I/O and timers enabled. They
///   may use `tokio` freely, but must not block; blocking work goes to
///   [`tokio::task::spawn_blocking`]. Only [`call_all`](LockProvider::call_all) may be polled on
///   other threads too, within the same runtime.
/// * For one lock space ([`lock_space`](LockProvider::lock_space)) and name there is at most one
///   call of `acquire`, `pass_on` or `release` under way, and at most one grant. Only a `release`
///   that has no answer when the server's lease ends goes on beside the next call, and one of a
///   group that is in the background.
/// * Names of reader–writer locks and semaphores have at most one `acquire`, `pass_on` or
///   `may_share` under way. An acquisition may be made while this process holds *read* grants or
///   permits of the name, and those may be released meanwhile. The server must count them like
///   those of other processes.
/// * A future of `acquire`, `pass_on` or `release` is **never dropped before it is done**. When no
///   caller wants the lock any more, [`AcquireRequest::abandoned`] says so instead, and a grant
///   that still comes is released. A future of `renew` or `renew_all` may be dropped.
/// * A call that panics counts as [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable).
///   After an acquisition that panicked, `release` is called for the grant that it may have left.
///
/// # What a provider promises
///
/// * A grant's validity is counted from a moment **before** the request that made it was sent
///   ([`Grant::new`]). The server must keep it for at least the lease from then on.
/// * An acquisition that fails leaves nothing behind, even if the server's answer was lost. The
///   provider tries to undo what the lost request may have done, for as long as one lease.
/// * `release` and `renew` touch the lock only where the server says that this
///   [owner](AcquireRequest::owner) holds it.
///
/// The trait is implemented for `Arc<P>` too, so that one provider can be registered and used
/// directly.
///
/// # Examples
///
/// A provider whose server is a set in memory, which keeps a lock until it is released:
///
/// ```
/// use std::collections::HashSet;
/// use std::sync::{Arc, Mutex};
///
/// use lock_runtime::{
///     AcquireRequest, BoxFuture, Capabilities, DistributedLock, Grant, LockError, LockErrorKind,
///     LockProvider, Timestamp,
/// };
/// use tokio::sync::Notify;
///
/// #[derive(Default)]
/// struct InMemory {
///     held: Mutex<HashSet<String>>,
///     freed: Notify,
/// }
///
/// impl LockProvider for InMemory {
///     fn capabilities(&self) -> Capabilities {
///         Capabilities::new("in-memory")
///     }
///
///     fn acquire<'a>(
///         &'a self,
///         request: &'a AcquireRequest,
///     ) -> BoxFuture<'a, Result<Grant, LockError>> {
///         Box::pin(async move {
///             loop {
///                 let freed = self.freed.notified();
///                 let sent_at = Timestamp::now();
///                 if self.held.lock().unwrap().insert(request.name().to_string()) {
///                     return Ok(Grant::new(request, sent_at));
///                 }
///                 if !request.waits() || request.is_abandoned() {
///                     return Err(LockErrorKind::Contended.into());
///                 }
///                 tokio::select! {
///                     () = freed => {}
///                     () = request.abandoned() => {}
///                 }
///             }
///         })
///     }
///
///     fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
///         Box::pin(async move {
///             self.held.lock().unwrap().remove(grant.name().as_str());
///             self.freed.notify_waiters();
///             Ok(())
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LockError> {
/// let lock = DistributedLock::on(Arc::new(InMemory::default()), "invoice:7");
/// let guard = lock.acquire().await?;
/// assert!(lock.try_acquire().await?.is_none());
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
pub trait LockProvider: Send + Sync + 'static {
    /// Returns what this provider can do. It must be the same value at every call.
    fn capabilities(&self) -> Capabilities;

    /// Says where the locks are, for the log: without credentials, and in one line, such as
    /// ``redis 127.0.0.1:6379, prefix `billing:`, lease 30s``. By default it is the provider's name
    /// and its lease.
    fn describe(&self) -> String {
        let capabilities = self.capabilities();
        describe(capabilities.provider, "", "", capabilities.lease)
    }

    /// Acquires the lock `request.name()` for `request.owner()`.
    ///
    /// If [`waits`](AcquireRequest::waits) is false, it answers at once. If true, it waits until
    /// the lock is granted or [abandoned](AcquireRequest::abandoned) resolves. Waiting processes
    /// are preferably served in the order in which they asked.
    ///
    /// # Errors
    ///
    /// [`Contended`](LockErrorKind::Contended) if another holder has the lock, or if the request
    /// was abandoned while it waited. [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable),
    /// [`Unsupported`](LockErrorKind::Unsupported), [`InvalidName`](LockErrorKind::InvalidName) or
    /// [`InvalidConfig`](LockErrorKind::InvalidConfig) for what went wrong. Any other kind reaches
    /// the caller as `ProviderUnavailable`.
    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>>;

    /// Extends a grant by its lease, if its owner still holds the lock. Returns the moment from
    /// which the new validity counts, read **before** the request was sent.
    ///
    /// The library calls it every third of the lease, and never for a grant without one. A provider
    /// with leases must implement it: by default no grant is ever extended, and each is lost when
    /// its lease ends.
    ///
    /// # Errors
    ///
    /// [`Lost`](LockErrorKind::Lost) if the server says that the owner does not hold the lock any
    /// more. Then the lock is lost at once. After any other error the library tries again until the
    /// grant's validity ends. [`Unsupported`](LockErrorKind::Unsupported) by default.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any await.
    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        let _ = grant;
        Box::pin(async move { Err(unsupported(self.capabilities(), "renew a lease")) })
    }

    /// Renews several grants, and answers for each, in order. Override it where the server can
    /// renew them in one request.
    ///
    /// By default it makes all calls of [`renew`](Self::renew) at once. Each may take a quarter of
    /// its lease at most, so that one that hangs does not hold up the others.
    fn renew_all<'a>(
        &'a self,
        grants: &'a [Arc<Grant>],
    ) -> BoxFuture<'a, Vec<Result<Timestamp, LockError>>> {
        let renewals = grants.iter().map(|grant| {
            // Each is caught by itself, so that one that panics fails alone.
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
        Box::pin(join_all(renewals.collect()))
    }

    /// Releases the lock, if the grant's owner still holds it.
    ///
    /// The library calls it exactly once for each grant that was neither passed on nor left to
    /// [`release_later`](Self::release_later). After a loss the call is a precaution, whose answer
    /// is ignored.
    ///
    /// Some callers wait only until their release has been handed to the connection. That is taken
    /// to be so when the future waits after its first poll, and the tasks which that has woken on
    /// the library's thread have had their turns.
    ///
    /// # Errors
    ///
    /// [`Lost`](LockErrorKind::Lost) if the owner did not hold the lock any more. Any other kind if
    /// the server could not be asked, in which case the lock ends with its lease.
    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>>;

    /// Releases the lock, and acquires it anew for `request` behind the processes that wait: in one
    /// step, where the server can do that. If no other process waits, the new grant comes at once.
    ///
    /// The library calls it when a run of grants inside this process is over and callers of this
    /// process still wait. By default it is a [`release`](Self::release) followed by an
    /// [`acquire`](Self::acquire).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). The old grant is over in every case.
    fn pass_on<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            // A release that fails does not fail the acquisition, which finds out by itself whether
            // the server answers.
            if let Err(error) = self.release(grant).await {
                spans::release_failed(&error.with_name(request.name().clone()));
            }
            self.acquire(request).await
        })
    }

    /// Tells whether no writer waits for the lock of this read grant. Then other readers of the
    /// process may join the grant.
    ///
    /// The library calls it for a valid grant of [`LockMode::Read`], at most once every few
    /// milliseconds. An answer may be a little old: then a writer waits longer, and exclusion holds
    /// all the same. After an error the library asks for a read grant of its own.
    ///
    /// By default it acquires a second read grant without waiting, and gives it back.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        Box::pin(async move {
            let (probe, _) = AcquireRequest::new(grant.name().clone(), grant.lease(), false)?;
            match self.acquire(&probe.with_mode(LockMode::Read)).await {
                Ok(second) => {
                    if let Err(error) = self.release(&second).await {
                        spans::release_failed(&error.with_name(grant.name().clone()));
                    }
                    Ok(true)
                }
                Err(error) if error.kind() == LockErrorKind::Contended => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// Makes a writer of the reader that has this grant of [`LockMode::Upgradeable`], as soon as
    /// the other readers have left. It goes before the writers that wait, and holds new readers
    /// back meanwhile. `request` asks for [`LockMode::Write`] under an owner of its own.
    ///
    /// If it succeeds, the old grant is over, and the new one stands for all that is held. While it
    /// waits, the old grant is renewed, readers of this process are released, and an
    /// [`acquire`](Self::acquire) for the same name may be waiting. A renewal that finds the old
    /// owner gone is no loss then.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). After any error, the old grant is as it was, and nothing is
    /// left that holds others back. [`Lost`](LockErrorKind::Lost) says that the old grant has ended,
    /// as its [reporter](Grant::loss_reporter) does.
    /// [`Unsupported`](LockErrorKind::Unsupported) by default.
    fn upgrade<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        let _ = (grant, request);
        Box::pin(async move { Err(unsupported(self.capabilities(), "upgrade a reader")) })
    }

    /// Acquires several locks in one request, without waiting: in the order given, as many as are
    /// free before the first that is not. Answers for each, in order.
    ///
    /// The first lock that is held, and all after it, are answered with
    /// [`Contended`](LockErrorKind::Contended); those after it are not touched. Any other error may
    /// stand at any place. What was granted is held all the same.
    ///
    /// `None`, the default, says that the provider cannot do this. Then the locks are acquired one
    /// after another.
    fn acquire_several<'a>(
        &'a self,
        requests: &'a [AcquireRequest],
    ) -> Option<BoxFuture<'a, Vec<Result<Grant, LockError>>>> {
        let _ = requests;
        None
    }

    /// Tells who holds the lock of this name and kind, and how many wait for it.
    ///
    /// # Errors
    ///
    /// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable) if the server could not be
    /// asked. [`Unsupported`](LockErrorKind::Unsupported), the default, if the provider cannot
    /// tell.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any await.
    fn inspect<'a>(
        &'a self,
        name: &'a LockName,
        kind: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        let _ = (name, kind);
        Box::pin(async move { Err(unsupported(self.capabilities(), "tell who holds a lock")) })
    }

    /// Releases the lock after `keep_for`, and not now, even if this process has ended by then.
    ///
    /// The library calls it instead of [`release`](Self::release), with the rest of a `min_hold`.
    /// Once the server has agreed, the grant is over for the library, which does not renew it any
    /// more.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release). [`Unsupported`](LockErrorKind::Unsupported), the default, if
    /// the server cannot do this. After any error but `Lost`, the library renews the grant until
    /// `keep_for` has passed, and then releases it.
    fn release_later<'a>(
        &'a self,
        grant: &'a Grant,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<(), LockError>> {
        let _ = (grant, keep_for);
        Box::pin(async move { Err(unsupported(self.capabilities(), "release a lock later")) })
    }

    /// Makes several calls, and answers each as soon as it is done. Override it where the server
    /// can do several things in one request.
    ///
    /// The library calls it, instead of the methods for single calls, if
    /// [`group_size`](Self::group_size) is above 1. The calls are those that became due while the
    /// groups before were under way, each of another lock. Of a reader–writer lock or a semaphore,
    /// releases and one acquisition may go together. Two groups may be under way at once, and more
    /// if some take longer than 50 ms.
    ///
    /// The future may be polled on any thread, within the library's own runtime. It ends when the
    /// provider is ready for the next group. What waits for another holder must not hold it up:
    /// such a call can be moved to a task of its own. A call that is dropped without an answer
    /// counts as one that panicked.
    ///
    /// For a release in the background, the library may ask for the lock anew before the release is
    /// answered, once its request has been sent. The server must get the two in this order.
    ///
    /// It may be polled on the thread of a caller, inside the library's own runtime. So it must not
    /// block.
    ///
    /// By default it makes all calls at once, with the methods for single calls, and ends when all
    /// are answered.
    ///
    /// # Cancel safety
    ///
    /// The future is never dropped before it is done.
    fn call_all(&self, calls: Vec<Call>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let calls = calls.into_iter().map(|call| {
                // Each is caught by itself. One that panics is dropped without an answer.
                let made = caught(make(self, call));
                let made: BoxFuture<'_, ()> = Box::pin(async {
                    let _ = made.await;
                });
                made
            });
            join_all(calls.collect()).await;
        })
    }

    /// Returns how many calls [`call_all`](Self::call_all) may be given at once.
    ///
    /// By default it is 1: each call is made by itself. A provider that returns more must implement
    /// `call_all`, and [report contention](Capabilities::with_contention_reports). A wrapper must
    /// not forward this, unless it forwards `call_all` too.
    fn group_size(&self) -> usize {
        1
    }

    /// Returns the set of locks to which this provider's names belong.
    ///
    /// Inside one process, two tasks never hold the same name of the same space, whatever the
    /// server says. Many servers let one session take its own lock twice.
    ///
    /// By default it is the provider's own address. A provider that only wraps another one must
    /// return that one's space.
    fn lock_space(&self) -> LockSpace {
        LockSpace::of(self)
    }

    /// Returns what all clones of this provider have in common, and no other provider has.
    ///
    /// Then the calls of one clone may serve the callers of another, several in one request. A
    /// wrapper must not forward this, since its own logic would be left out.
    ///
    /// By default it is `None`: each provider that is registered, or put in an `Arc`, stands for
    /// itself.
    fn clone_of(&self) -> Option<LockSpace> {
        None
    }

    /// Returns the token of the grant that is being made, for locks that are nothing but the
    /// process's own queue. `acquire`, `renew` and `release` are then not called.
    ///
    /// Only [`InProcessProvider`](crate::InProcessProvider), and what wraps it, answers `Some`. The
    /// default is `None`.
    #[doc(hidden)]
    fn grant_in_process(&self) -> Option<FencingToken> {
        None
    }
}

impl LockSpace {
    /// Returns the space that belongs to this very provider, for as long as the provider is not
    /// moved. Once it is registered or in an `Arc`, it stays where it is.
    pub fn of<P: LockProvider + ?Sized>(provider: &P) -> Self {
        Self::at_address(std::ptr::from_ref(provider).cast::<()>().addr())
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

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        (**self).may_share(grant)
    }

    fn upgrade<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        (**self).upgrade(grant, request)
    }

    fn acquire_several<'a>(
        &'a self,
        requests: &'a [AcquireRequest],
    ) -> Option<BoxFuture<'a, Vec<Result<Grant, LockError>>>> {
        (**self).acquire_several(requests)
    }

    fn inspect<'a>(
        &'a self,
        name: &'a LockName,
        kind: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        (**self).inspect(name, kind)
    }

    fn release_later<'a>(
        &'a self,
        grant: &'a Grant,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<(), LockError>> {
        (**self).release_later(grant, keep_for)
    }

    fn call_all(&self, calls: Vec<Call>) -> BoxFuture<'_, ()> {
        (**self).call_all(calls)
    }

    fn group_size(&self) -> usize {
        (**self).group_size()
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

/// Makes a call by itself, and answers it.
async fn make<P: LockProvider + ?Sized>(provider: &P, call: Call) {
    match call {
        Call::Acquire(call) => {
            let answer = match call.gives_up() {
                Some(grant) => provider.pass_on(grant, call.request()).await,
                None => provider.acquire(call.request()).await,
            };
            call.answer(answer);
        }
        Call::Release(call) => {
            let answer = provider.release(call.grant()).await;
            call.answer(answer);
        }
    }
}

/// Makes the text of [`LockProvider::describe`]. What is empty is left out.
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
