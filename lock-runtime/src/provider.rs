//! `LockProvider`, and what the author of a provider needs.
//!
//! A provider keeps named locks somewhere: on a server, in files, in memory. It answers four
//! questions, [`acquire`](LockProvider::acquire), [`renew`](LockProvider::renew),
//! [`release`](LockProvider::release) and, if it can do better than a release followed by an
//! acquisition, [`pass_on`](LockProvider::pass_on). Everything else is the library's: queueing
//! inside the process, timeouts, cancellation, renewal in time, loss, clean-up and deadlock
//! detection.
//!
//! # What the library promises a provider
//!
//! * Calls run on the library's own thread and Tokio runtime, with I/O and timers enabled. They
//!   may use `tokio` freely, but must not block; blocking work goes to
//!   [`tokio::task::spawn_blocking`].
//! * For one lock space ([`lock_space`](LockProvider::lock_space)) and name there is at most one
//!   call of `acquire`, `pass_on` or `release` under way, and at most one grant.
//! * A future of `acquire`, `pass_on` or `release` is **never dropped before it is done**. When
//!   nobody wants the lock any more, [`AcquireRequest::abandoned`] says so instead, and a grant
//!   that still comes is released. A future of `renew` or `renew_all` may be dropped.
//! * A call that panics counts as [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable).
//!
//! # What a provider promises
//!
//! * A grant's validity is counted from a moment **before** the request that made it was sent
//!   ([`Grant::new`]). The server must keep it for at least the lease from then on.
//! * An acquisition that fails leaves nothing behind, even if the server's answer was lost: it
//!   tries to undo what the lost request may have done, for as long as one lease.
//! * `release` and `renew` touch the lock only where the server says that this
//!   [owner](AcquireRequest::owner) holds it.

use std::any::Any;
use std::fmt;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::guard::FencingToken;
use crate::hold::Hold;
use crate::keeper;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind, LockName};

/// A boxed future, as the methods of [`LockProvider`] return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where locks live. See the [module's page](self) for the contract.
///
/// Implemented for `Arc<P>` too, so that one provider can be registered and used directly.
pub trait LockProvider: Send + Sync + 'static {
    /// What this provider can do; the same value at every call.
    fn capabilities(&self) -> Capabilities;

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
    /// Called every third of the lease; never for a grant without one.
    ///
    /// # Errors
    ///
    /// [`Lost`](LockErrorKind::Lost) if the server says that the owner holds the lock no more:
    /// the guard is lost at once. After any other error the library tries again until the grant's
    /// validity ends.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        let _ = grant;
        Box::pin(async { Ok(Timestamp::now()) })
    }

    /// Renews several grants, and answers for each, in order. Override it where the server can
    /// take them in one request; by default one [`renew`](Self::renew) after another.
    fn renew_all<'a>(
        &'a self,
        grants: &'a [Arc<Grant>],
    ) -> BoxFuture<'a, Vec<Result<Timestamp, LockError>>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(grants.len());
            for grant in grants {
                answers.push(self.renew(grant).await);
            }
            answers
        })
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

    /// The set of locks that this provider's names belong to. Inside one process, two tasks never
    /// hold the same name of the same space, whatever the server says; many servers let one
    /// session take its own lock twice.
    ///
    /// By default the provider's own address. A provider that only wraps another one must return
    /// that one's space.
    fn lock_space(&self) -> LockSpace {
        LockSpace::of(self)
    }

    /// For locks that are nothing but the process's own queue: the token of the grant that is
    /// being made, now, without asking anybody. `acquire`, `renew` and `release` are then not
    /// called. Only [`InProcessProvider`](crate::InProcessProvider), and what wraps it, answers
    /// `Some`; the default is `None`.
    fn grant_in_process(&self) -> Option<FencingToken> {
        None
    }
}

impl<P: LockProvider + ?Sized> LockProvider for Arc<P> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
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

    fn lock_space(&self) -> LockSpace {
        (**self).lock_space()
    }

    fn grant_in_process(&self) -> Option<FencingToken> {
        (**self).grant_in_process()
    }
}

/// The identity of a set of locks within this process; see [`LockProvider::lock_space`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockSpace(usize);

impl LockSpace {
    /// The space that belongs to this very provider, for as long as it is not moved; registering
    /// it, or putting it in an `Arc`, pins it down.
    pub fn of<P: LockProvider + ?Sized>(provider: &P) -> Self {
        Self(std::ptr::from_ref(provider).cast::<()>().addr())
    }

    /// The space that belongs to this shared value, and so to every clone of a provider that
    /// keeps its locks there.
    pub fn at<T>(shared: &Arc<T>) -> Self {
        Self(Arc::as_ptr(shared).addr())
    }
}

/// What a provider can do. The library asks it, the documentation's table is made from it, and the
/// conformance suite chooses its cases by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// A short lower-case name, as logs, metrics and errors show it.
    pub provider: &'static str,
    /// The lease where the caller names none, or `None` if a grant needs no renewal: it lasts
    /// until it is released or the process ends.
    pub lease: Option<Duration>,
    /// Whether every grant carries a fencing token.
    pub fencing_tokens: bool,
    /// Whether a grant can carry several tokens at once
    /// ([`tokens_wanted`](AcquireRequest::tokens_wanted)), so that the process can serve several
    /// of its waiters with one grant. Also true of a provider that gives no tokens at all but
    /// whose grant may serve several waiters.
    pub local_hand_over: bool,
    /// Whether processes are served in the order in which they asked.
    pub fair: bool,
}

impl Capabilities {
    /// A provider of this name that promises nothing more: no lease, no tokens, no order.
    pub const fn new(provider: &'static str) -> Self {
        Self {
            provider,
            lease: None,
            fencing_tokens: false,
            local_hand_over: false,
            fair: false,
        }
    }

    /// With leases; this long where the caller names none.
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// With a fencing token in every grant.
    pub const fn with_fencing_tokens(mut self) -> Self {
        self.fencing_tokens = true;
        self
    }

    /// With grants that may serve several waiters of the process.
    pub const fn with_local_hand_over(mut self) -> Self {
        self.local_hand_over = true;
        self
    }

    /// With processes served in arrival order.
    pub const fn with_fairness(mut self) -> Self {
        self.fair = true;
        self
    }
}

/// The random identity of one grant: 128 bits, shown as 32 hexadecimal digits.
///
/// It is what a server compares before it renews or releases, so that nobody ends another's lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerId(u128);

impl OwnerId {
    /// A fresh one, from the operating system's random numbers.
    ///
    /// # Errors
    ///
    /// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable) if the system has none to give.
    pub fn random() -> Result<Self, LockError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail(format!("the system gave no random numbers: {error}"))
        })?;
        Ok(Self(u128::from_ne_bytes(bytes)))
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One acquisition, as a provider sees it.
#[derive(Debug)]
pub struct AcquireRequest {
    name: LockName,
    owner: OwnerId,
    lease: Duration,
    waits: bool,
    interest: Interest,
    loss: LossReporter,
}

impl AcquireRequest {
    /// A request, and the handle of whoever wants the lock. The library makes these; a
    /// provider's own tests may too.
    ///
    /// # Errors
    ///
    /// As [`OwnerId::random`].
    pub fn new(
        name: impl Into<LockName>,
        lease: Duration,
        waits: bool,
    ) -> Result<(Self, Interest), LockError> {
        let interest = Interest(Arc::new(InterestState {
            tokens_wanted: AtomicU32::new(1),
            abandoned: Signal::new(),
            trouble: Mutex::new(None),
        }));
        let request = Self {
            name: name.into(),
            owner: OwnerId::random()?,
            lease,
            waits,
            interest: interest.clone(),
            loss: LossReporter::new(),
        };
        Ok((request, interest))
    }

    /// The lock's name: valid, and without the provider's key prefix, which is its own to add.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// The identity of the grant that this request asks for.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// How long the grant is to be valid unless it is renewed: 100 ms to 24 h. Without meaning
    /// for a provider without leases.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Whether to wait for a lock that somebody else holds.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// How many fencing tokens the grant should carry, 1 to 32, as many as the process could hand
    /// to its own waiters in one run. Grows and shrinks while the request waits. A provider
    /// that cannot reserve tokens ignores it.
    pub fn tokens_wanted(&self) -> NonZeroU32 {
        self.interest.tokens_wanted()
    }

    /// Whether nobody wants the lock any more.
    pub fn is_abandoned(&self) -> bool {
        self.interest.0.abandoned.get().is_some()
    }

    /// Resolves when nobody wants the lock any more. The provider then takes back what it left on
    /// the server and answers [`Contended`](LockErrorKind::Contended).
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn abandoned(&self) {
        self.interest.0.abandoned.wait().await;
    }

    /// While the server cannot be reached: why. A caller whose timeout passes then gets this error
    /// and not [`TimedOut`](LockErrorKind::TimedOut), which says that somebody held the lock.
    /// `None` takes it back.
    pub fn report_trouble(&self, trouble: Option<LockError>) {
        *self.interest.trouble_slot() = trouble;
    }

    /// Where to report that the grant made from this request has ended by itself: its session is
    /// gone, another owner was seen.
    pub fn loss_reporter(&self) -> LossReporter {
        self.loss.clone()
    }
}

/// The side of an [`AcquireRequest`] that wants the lock.
#[derive(Debug, Clone)]
pub struct Interest(Arc<InterestState>);

#[derive(Debug)]
struct InterestState {
    tokens_wanted: AtomicU32,
    abandoned: Signal<()>,
    trouble: Mutex<Option<LockError>>,
}

impl Interest {
    /// Tells the provider that nobody wants the lock any more.
    pub fn abandon(&self) {
        self.0.abandoned.set(());
    }

    /// Sets what [`AcquireRequest::tokens_wanted`] answers.
    pub fn want_tokens(&self, tokens: NonZeroU32) {
        self.0.tokens_wanted.store(tokens.get(), Ordering::Relaxed);
    }

    /// What [`AcquireRequest::report_trouble`] said last.
    pub fn trouble(&self) -> Option<LockError> {
        self.trouble_slot().clone()
    }

    fn trouble_slot(&self) -> MutexGuard<'_, Option<LockError>> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens_wanted(&self) -> NonZeroU32 {
        NonZeroU32::new(self.0.tokens_wanted.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }
}

/// Reports that a grant has ended by itself. Cheap to clone; may outlive the grant.
#[derive(Clone)]
pub struct LossReporter(Arc<LossState>);

struct LossState {
    signal: Signal<LockError>,
    /// Who has to hear of it first.
    hold: OnceLock<Weak<Hold>>,
}

impl LossReporter {
    fn new() -> Self {
        Self(Arc::new(LossState { signal: Signal::new(), hold: OnceLock::new() }))
    }

    /// The grant is lost, and this is why. The first report counts; it becomes the detail of an
    /// error of kind [`Lost`](LockErrorKind::Lost).
    pub fn report(&self, why: impl Into<String>) {
        self.report_error(LockError::new(LockErrorKind::Lost).with_detail(why));
    }

    pub(crate) fn report_error(&self, error: LockError) {
        if self.0.signal.set(error)
            && let Some(hold) = self.0.hold.get().and_then(Weak::upgrade)
        {
            hold.lost();
        }
    }

    pub(crate) fn watched_by(&self, hold: &Arc<Hold>) {
        let _ = self.0.hold.set(Arc::downgrade(hold));
        if self.0.signal.get().is_some() {
            // Reported before anybody watched. The gate, which is calling, hears of it later.
            let hold = Arc::clone(hold);
            let _ = keeper::run(Box::pin(async move { hold.lost() }));
        }
    }

    pub(crate) fn signal(&self) -> &Signal<LockError> {
        &self.0.signal
    }
}

impl fmt::Debug for LossReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LossReporter").field("lost", &self.0.signal.get()).finish()
    }
}

/// One successful acquisition, as a provider made it.
///
/// # Examples
///
/// ```
/// use lock_runtime::{AcquireRequest, FencingToken, Grant, Timestamp};
///
/// fn granted(request: &AcquireRequest, sent_at: Timestamp, token: u64) -> Grant {
///     Grant::new(request, sent_at).with_token(FencingToken::new(token))
/// }
/// ```
pub struct Grant {
    name: LockName,
    owner: OwnerId,
    lease: Duration,
    valid_from: Timestamp,
    token: Option<FencingToken>,
    tokens: NonZeroU32,
    state: Option<Box<dyn Any + Send + Sync>>,
    loss: LossReporter,
}

impl Grant {
    /// The grant that answers `request`. `sent_at` was read **before** the first byte of the
    /// request that made it was sent; validity counts from there.
    pub fn new(request: &AcquireRequest, sent_at: Timestamp) -> Self {
        Self {
            name: request.name.clone(),
            owner: request.owner,
            lease: request.lease,
            valid_from: sent_at,
            token: None,
            tokens: NonZeroU32::MIN,
            state: None,
            loss: request.loss.clone(),
        }
    }

    /// With one fencing token.
    #[must_use]
    pub fn with_token(self, token: FencingToken) -> Self {
        self.with_tokens(token, NonZeroU32::MIN)
    }

    /// With a block of fencing tokens: `first`, `first + 1` and so on, as many as `count`.
    #[must_use]
    pub fn with_tokens(mut self, first: FencingToken, count: NonZeroU32) -> Self {
        self.token = Some(first);
        self.tokens = count;
        self
    }

    /// With a lease other than the one asked for.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// With something of the provider's own, such as an open file, which
    /// [`state`](Self::state) gives back and which is dropped with the grant.
    #[must_use]
    pub fn with_state(mut self, state: impl Any + Send + Sync) -> Self {
        self.state = Some(Box::new(state));
        self
    }

    /// The lock's name, without the provider's key prefix.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// Who holds the lock.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// How long a renewal extends the grant.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The moment from which its first validity counts.
    pub fn valid_from(&self) -> Timestamp {
        self.valid_from
    }

    /// The first fencing token.
    pub fn token(&self) -> Option<FencingToken> {
        self.token
    }

    /// How many fencing tokens there are.
    pub fn tokens(&self) -> NonZeroU32 {
        self.tokens
    }

    /// What [`with_state`](Self::with_state) put in, if it is a `T`.
    pub fn state<T: Any>(&self) -> Option<&T> {
        self.state.as_ref()?.downcast_ref()
    }

    /// Where to report that this grant has ended by itself.
    pub fn loss_reporter(&self) -> &LossReporter {
        &self.loss
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("name", &self.name)
            .field("owner", &self.owner)
            .field("lease", &self.lease)
            .field("valid_from", &self.valid_from)
            .field("token", &self.token)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}
