//! `AcquireRequest`: what a provider is asked; and `Interest`, the side that asks.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use once_cell::sync::OnceCell;

use super::holder::Holder;
use super::loss::LossReporter;
use super::mode::LockMode;
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::name::LockName;
use crate::signal::Signal;

/// The random identity of one grant: 128 bits, shown as 32 hexadecimal digits.
///
/// A server compares it before it renews or releases a lock, so that no holder ends another
/// holder's lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerId(u128);

impl OwnerId {
    /// Returns a new id.
    ///
    /// The process draws 128 random bits once and derives every further id by adding a fixed odd
    /// constant. So ids never repeat within a process and, but for a negligible chance, across
    /// processes.
    ///
    /// # Errors
    ///
    /// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable) if the operating system gives no
    /// random numbers at the process's first call.
    pub fn random() -> Result<Self, LockError> {
        // Drawn once, since each draw is a system call.
        let first = FIRST.get_or_try_init(|| {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).map_err(|error| {
                LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail(format!("the system gave no random numbers: {error}"))
            })?;
            Ok::<_, LockError>(u128::from_ne_bytes(bytes))
        })?;
        let step = u128::from(STEPS.fetch_add(1, Ordering::Relaxed));
        Ok(Self(first.wrapping_add(step.wrapping_mul(STRIDE))))
    }

    /// Reads an id as it is displayed.
    #[cfg_attr(not(feature = "_server"), allow(dead_code))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_id = text.len() == 32 && text.bytes().all(is_hex);
        u128::from_str_radix(text, 16)
            .ok()
            .filter(|_| is_id)
            .map(Self)
    }

    /// Tells whether this process has drawn the id. Another one may have the same process id, on a
    /// machine of the same name.
    #[cfg_attr(not(feature = "_server"), allow(dead_code))]
    pub(crate) fn is_of_this_process(self) -> bool {
        FIRST.get().is_some_and(|first| {
            let step = self.0.wrapping_sub(*first).wrapping_mul(BACK);
            step < u128::from(STEPS.load(Ordering::Relaxed))
        })
    }
}

/// The first id of this process.
static FIRST: OnceCell<u128> = OnceCell::new();
/// How many ids this process has drawn.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// The distance between two ids: odd, so that its multiples visit every number, and made of the
/// golden ratio's digits, so that ids that follow each other look different.
const STRIDE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// What undoes a multiplication by `STRIDE`. Each step doubles how many of its bits are right.
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
const BACK: u128 = {
    let mut back = STRIDE;
    let mut step = 0;
    while step < 7 {
        back = back.wrapping_mul(2u128.wrapping_sub(STRIDE.wrapping_mul(back)));
        step += 1;
    }
    back
};

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

/// After this time, an answer that the server gives at once is overdue.
const OVERDUE: Duration = Duration::from_millis(250);

/// One acquisition, as a provider sees it.
#[derive(Debug)]
pub struct AcquireRequest {
    name: LockName,
    owner: OwnerId,
    lease: Duration,
    waits: bool,
    mode: LockMode,
    interest: Interest,
    loss: LossReporter,
    /// The address of the slot that it is made for; zero if it is made for none.
    slot: usize,
}

impl AcquireRequest {
    /// Makes a request, and the handle of the side that wants the lock. The library makes these,
    /// and a provider's own tests may.
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
            contended: Signal::new(),
            ended: Signal::new(),
            observer: OnceCell::new(),
            reports: Mutex::default(),
            asked_at: AtomicU64::new(0),
        }));
        let request = Self {
            name: name.into(),
            owner: OwnerId::random()?,
            lease,
            waits,
            mode: LockMode::Exclusive,
            interest: interest.clone(),
            loss: LossReporter::new(),
            slot: 0,
        };
        Ok((request, interest))
    }

    /// Asks for this mode of the lock. By default it is [`Exclusive`](LockMode::Exclusive).
    #[must_use]
    pub fn with_mode(mut self, mode: LockMode) -> Self {
        self.mode = mode;
        self
    }

    /// Returns the same request once more.
    pub(crate) fn same(&self) -> Self {
        Self {
            name: self.name.clone(),
            owner: self.owner,
            lease: self.lease,
            waits: self.waits,
            mode: self.mode,
            interest: self.interest.clone(),
            loss: self.loss.clone(),
            slot: self.slot,
        }
    }

    /// Says for which slot of the gate it is made.
    pub(crate) fn made_for(mut self, slot: usize) -> Self {
        self.slot = slot;
        self
    }

    /// Tells whether it is made for this slot of the gate.
    pub(crate) fn is_made_for(&self, slot: usize) -> bool {
        self.slot == slot
    }

    /// Returns the lock's name, which is valid. The provider adds its own key prefix.
    pub fn name(&self) -> &LockName {
        &self.name
    }

    /// Returns the identity of the grant that this request asks for.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// Returns how long the grant must be valid unless it is renewed: 100 ms to 24 h, or the
    /// provider's own default. A provider without leases ignores it.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Returns which mode of the lock is wanted. A provider is only asked for the modes that its
    /// [capabilities](super::Capabilities) name, and for [`Exclusive`](LockMode::Exclusive).
    pub fn mode(&self) -> LockMode {
        self.mode
    }

    /// Tells whether to wait for a lock that another holder has.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Returns how many fencing tokens the grant should carry, 1 to 32: as many as the process
    /// could hand to its own waiters with one grant.
    ///
    /// The number grows and shrinks while the request waits. A provider that cannot reserve tokens
    /// ignores it.
    pub fn tokens_wanted(&self) -> NonZeroU32 {
        self.interest.tokens_wanted()
    }

    /// Tells whether no caller wants the lock any more.
    pub fn is_abandoned(&self) -> bool {
        self.interest.is_abandoned()
    }

    /// Waits until no caller wants the lock any more. The provider then takes back what it left on
    /// the server and answers [`Contended`](LockErrorKind::Contended).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped, and made again.
    pub async fn abandoned(&self) {
        self.interest.0.abandoned.wait().await;
    }

    /// Reports that the server has named another holder, and that the provider waits for the lock.
    ///
    /// A caller whose timeout passes gets [`TimedOut`](LockErrorKind::TimedOut) only if a holder
    /// was seen, and [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable) otherwise. So an
    /// acquisition that waits reports it at every such answer. A place in a queue is no such
    /// answer.
    pub fn report_contention(&self) {
        let state = &self.interest.0;
        if state.contended.set(())
            && let Some(Observer(tell)) = state.observer.get()
        {
            tell();
        }
    }

    /// Tells whether contention was reported.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_contended(&self) -> bool {
        self.interest.is_contended()
    }

    /// Does the same as [`report_contention`](Self::report_contention), and says who the holder is.
    /// The callers' errors then name it.
    pub fn report_holder(&self, holder: Holder) {
        self.interest.reports().holder = Some(Box::new(holder));
        self.report_contention();
    }

    /// Reports why the server cannot be reached at present; `None` takes the report back. A caller
    /// whose timeout passes meanwhile gets this error, and not
    /// [`TimedOut`](LockErrorKind::TimedOut).
    pub fn report_trouble(&self, trouble: Option<LockError>) {
        self.interest.reports().trouble = trouble;
    }

    /// Reports whether the provider awaits an answer that its server gives at once.
    ///
    /// A caller whose timeout passes after 250 ms without the answer gets
    /// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable), because it is not known then
    /// whether the lock is held. A provider must not report a request that the server answers only
    /// when the lock is free.
    pub fn report_unanswered(&self, unanswered: bool) {
        self.report_unanswered_since(unanswered.then(Timestamp::now));
    }

    /// Does the same as [`report_unanswered`](Self::report_unanswered), for a request that was sent
    /// at this moment.
    pub(crate) fn report_unanswered_since(&self, sent_at: Option<Timestamp>) {
        let asked_at = sent_at.map_or(0, Timestamp::as_nanos);
        self.interest.0.asked_at.store(asked_at, Ordering::Relaxed);
    }

    /// Returns where to report that the grant made from this request has ended by itself, because
    /// its session is gone or another owner was seen.
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
    /// Set when the server has named another holder.
    contended: Signal<()>,
    /// Set when the call is over.
    ended: Signal<()>,
    /// Called when `contended` is set.
    observer: OnceCell<Observer>,
    reports: Mutex<Reports>,
    /// When the provider sent the request whose answer it awaits, as a `Timestamp`; zero if it
    /// awaits none.
    asked_at: AtomicU64,
}

/// What few calls report.
#[derive(Debug, Default)]
struct Reports {
    trouble: Option<LockError>,
    holder: Option<Box<Holder>>,
}

struct Observer(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl Interest {
    /// Tells the provider that no caller wants the lock any more.
    pub fn abandon(&self) {
        self.0.abandoned.set(());
    }

    /// Sets what [`AcquireRequest::tokens_wanted`] returns.
    pub fn want_tokens(&self, tokens: NonZeroU32) {
        self.0.tokens_wanted.store(tokens.get(), Ordering::Relaxed);
    }

    /// Tells whether the request was abandoned.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.abandoned.get().is_some()
    }

    /// Tells whether [`AcquireRequest::report_contention`] was called.
    pub fn is_contended(&self) -> bool {
        self.0.contended.get().is_some()
    }

    /// Calls `tell` when contention is first reported. Only the first observer counts. A report may
    /// have come just before, so the caller must look once more afterwards.
    pub(crate) fn when_contended(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.0.observer.get_or_init(|| Observer(Box::new(tell)));
    }

    /// Notes that the call is over.
    pub(crate) fn end(&self) {
        self.0.ended.set(());
    }

    /// Waits until the call is over.
    pub(crate) async fn ended(&self) {
        self.0.ended.wait().await;
    }

    /// Returns what [`AcquireRequest::report_trouble`] said last, or the error of a request that
    /// has gone unanswered for 250 ms.
    pub fn trouble(&self) -> Option<LockError> {
        let trouble = self.reports().trouble.clone();
        trouble.or_else(|| {
            let asked_at = self.0.asked_at.load(Ordering::Relaxed);
            let overdue = asked_at > 0 && (Timestamp::from_nanos(asked_at) + OVERDUE).has_passed();
            overdue.then(|| {
                LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail("the provider's server has not answered")
            })
        })
    }

    /// Returns the holder that was reported last.
    pub(crate) fn holder(&self) -> Option<Holder> {
        self.reports().holder.as_deref().cloned()
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.0
            .reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens_wanted(&self) -> NonZeroU32 {
        NonZeroU32::new(self.0.tokens_wanted.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }
}
