//! What a provider is asked: one acquisition, and whether anybody still wants it.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use once_cell::sync::OnceCell;

use super::loss::LossReporter;
use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::name::LockName;
use crate::signal::Signal;

/// The random identity of one grant: 128 bits, shown as 32 hexadecimal digits.
///
/// It is what a server compares before it renews or releases, so that nobody ends another's lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerId(u128);

impl OwnerId {
    /// A fresh one. The first of a process comes from the operating system's random numbers, and
    /// so do all others, by steps that lead to 2¹²⁸ different ones: no two are alike, in this process
    /// or, as far as 128 random bits go, in any other.
    ///
    /// # Errors
    ///
    /// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable) if the system has no random
    /// numbers to give.
    pub fn random() -> Result<Self, LockError> {
        static FIRST: OnceCell<u128> = OnceCell::new();
        static STEPS: AtomicU64 = AtomicU64::new(0);
        // Asking the system each time would be a system call for every lock.
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
}

/// Odd, so that its multiples visit every number; the golden ratio's digits, so that they look
/// nothing like each other.
const STRIDE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

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

/// What a server answers at once is answered within this time, or something is wrong.
const OVERDUE: Duration = Duration::from_millis(250);

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
            contended: Signal::new(),
            ended: Signal::new(),
            observer: OnceCell::new(),
            trouble: Mutex::new(None),
            asked_at: AtomicU64::new(0),
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

    /// The server has answered that somebody else holds the lock, and the provider waits for it.
    ///
    /// A caller whose timeout passes gets [`TimedOut`](LockErrorKind::TimedOut) only if a holder was
    /// seen, and [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable) otherwise. So each
    /// waiting acquisition reports it at every such answer; a place in a queue is no answer yet.
    pub fn report_contention(&self) {
        let state = &self.interest.0;
        if state.contended.set(())
            && let Some(Observer(tell)) = state.observer.get()
        {
            tell();
        }
    }

    /// While the server cannot be reached: why. A caller whose timeout passes then gets this error
    /// and not [`TimedOut`](LockErrorKind::TimedOut), which says that somebody held the lock.
    /// `None` takes it back.
    pub fn report_trouble(&self, trouble: Option<LockError>) {
        *self.interest.trouble_slot() = trouble;
    }

    /// Whether the provider has asked its server something that is answered at once, and has no answer
    /// yet. A caller whose timeout passes when this has lasted for a quarter of a second gets
    /// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable), as nobody can tell then whether
    /// somebody holds the lock. Not for a request that the server answers when the lock is free.
    pub fn report_unanswered(&self, unanswered: bool) {
        let asked_at = match unanswered {
            true => Timestamp::now().as_nanos(),
            false => 0,
        };
        self.interest.0.asked_at.store(asked_at, Ordering::Relaxed);
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
    /// The server has answered that somebody holds the lock.
    contended: Signal<()>,
    /// The call is over.
    ended: Signal<()>,
    /// Who is told when that is first said.
    observer: OnceCell<Observer>,
    trouble: Mutex<Option<LockError>>,
    /// When the provider asked what it has no answer to, as a `Timestamp`; zero if nothing.
    asked_at: AtomicU64,
}

struct Observer(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
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

    /// Whether [`AcquireRequest::report_contention`] was called.
    pub fn is_contended(&self) -> bool {
        self.0.contended.get().is_some()
    }

    /// Has this called when contention is first reported. Only the first observer counts; look
    /// once more afterwards.
    pub(crate) fn when_contended(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.0.observer.get_or_init(|| Observer(Box::new(tell)));
    }

    /// Says that the call is over.
    pub(crate) fn end(&self) {
        self.0.ended.set(());
    }

    /// Waits until the call is over.
    pub(crate) async fn ended(&self) {
        self.0.ended.wait().await;
    }

    /// What [`AcquireRequest::report_trouble`] said last, or that a request has gone unanswered for
    /// long.
    pub fn trouble(&self) -> Option<LockError> {
        self.trouble_slot().clone().or_else(|| {
            let asked_at = self.0.asked_at.load(Ordering::Relaxed);
            let overdue = asked_at > 0 && (Timestamp::from_nanos(asked_at) + OVERDUE).has_passed();
            overdue.then(|| {
                LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail("the provider's server has not answered")
            })
        })
    }

    fn trouble_slot(&self) -> MutexGuard<'_, Option<LockError>> {
        self.0
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens_wanted(&self) -> NonZeroU32 {
        NonZeroU32::new(self.0.tokens_wanted.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }
}
