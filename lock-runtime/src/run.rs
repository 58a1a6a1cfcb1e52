//! The attribute's one entry: acquire, poll the body together with the lease, release.

use std::cell::OnceCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::clock::{Span, Timestamp};
use crate::end::LostSignal;
use crate::expansion::{Keep, until_released};
use crate::gate::{Acquiring, SlotRef, Source, Wanted};
use crate::guard::LockGuard;
use crate::lock::KnownSlot;
use crate::observe::Call;
use crate::provider::LockProvider;
use crate::{LockError, LockErrorKind, LockName};
use crate::{expansion, held, keeper, registry, table};

/// What the attribute says about one call.
pub struct Request {
    template: &'static str,
    name: LockName,
    provider: Provider,
    timeout: Option<Duration>,
    lease: Option<Duration>,
    max_hold: Option<Duration>,
    min_hold: Option<Duration>,
    site: Option<&'static Site>,
}

/// The place of an attribute whose name has no placeholders.
pub struct Site(KnownSlot);

impl Site {
    /// One that was never called.
    #[allow(clippy::new_without_default, reason = "it is made in statics")]
    pub const fn new() -> Self {
        Self(KnownSlot::new())
    }
}

enum Provider {
    Default,
    Named(&'static str),
    Given(Arc<dyn LockProvider>),
}

impl Request {
    /// A call with everything else left at its default.
    #[inline]
    pub fn new(template: &'static str, name: LockName) -> Self {
        Self {
            template,
            name,
            provider: Provider::Default,
            timeout: Some(Duration::ZERO),
            lease: None,
            max_hold: None,
            min_hold: None,
            site: None,
        }
    }

    /// The longest wait.
    #[inline]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Waits as long as it takes.
    #[inline]
    pub fn without_timeout(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// The lease asked for.
    #[inline]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// How long the body may hold the lock.
    #[inline]
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = Some(max_hold);
        self
    }

    /// How long after its grant the lock is free for others at the earliest; zero is no limit.
    #[inline]
    pub fn min_hold(mut self, min_hold: Duration) -> Self {
        self.min_hold = Some(min_hold).filter(|min_hold| !min_hold.is_zero());
        self
    }

    /// The provider registered under this name.
    #[inline]
    pub fn named(mut self, provider: &'static str) -> Self {
        self.provider = Provider::Named(provider);
        self
    }

    /// This provider.
    #[inline]
    pub fn on(mut self, provider: &Arc<dyn LockProvider>) -> Self {
        self.provider = Provider::Given(Arc::clone(provider));
        self
    }

    /// The place of this call, if the name is the same at each.
    #[inline]
    pub fn at(mut self, site: &'static Site) -> Self {
        self.site = Some(site);
        self
    }

    /// Runs the body while the lock is held.
    #[inline]
    pub fn run<F, N, K>(
        self,
        _: K,
        body: Pin<&mut Option<F>>,
        not_run: N,
    ) -> impl Future<Output = F::Output>
    where
        F: Future,
        N: FnOnce(LockError) -> F::Output,
        K: Keep<F::Output>,
    {
        self.run_at::<_, _, K>(OnceCell::new(), body, not_run)
    }

    /// Runs a body that sees the guard.
    #[inline]
    pub fn run_with_guard<F, N, K>(
        self,
        guard: &GuardSlot,
        _: K,
        body: Pin<&mut Option<F>>,
        not_run: N,
    ) -> impl Future<Output = F::Output>
    where
        F: Future,
        N: FnOnce(LockError) -> F::Output,
        K: Keep<F::Output>,
    {
        self.run_at::<_, _, K>(guard, body, not_run)
    }

    fn run_at<F, N, K>(
        self,
        slot: impl Place,
        body: Pin<&mut Option<F>>,
        not_run: N,
    ) -> impl Future<Output = F::Output>
    where
        F: Future,
        N: FnOnce(LockError) -> F::Output,
        K: Keep<F::Output>,
    {
        let call = Call::new(self.template, &self.name);
        let max_hold = self.max_hold;
        let entered = self.enter(&call);
        run_in::<_, _, K>(call, entered, max_hold, slot, body, not_run)
    }

    fn enter(self, call: &Call) -> Result<(Option<SlotRef>, Wanted), LockError> {
        expansion::check_holds(&self.name, self.max_hold, self.min_hold)?;
        let slot = match (&self.provider, self.site) {
            // What is registered stays, and so may the slot.
            (Provider::Default, Some(site)) => site.0.get(registry::default()?, &self.name),
            (Provider::Default, None) => table::enter(registry::default()?, &self.name),
            (Provider::Named(name), Some(site)) => site.0.get(&registry::named(name)?, &self.name),
            (Provider::Named(name), None) => table::enter(&registry::named(name)?, &self.name),
            (Provider::Given(given), _) => {
                table::enter(&Source::new(Arc::clone(given)), &self.name)
            }
        }?;
        call.provider(&slot);
        let wanted = Wanted {
            lease: Span::maybe(self.lease),
            timeout: Span::maybe(self.timeout),
            min_hold: Span::maybe(self.min_hold),
            template: self.template,
        };
        Ok((Some(slot), wanted))
    }
}

/// Where the guard lives that the body sees; bound before the body, and so dropped after it.
#[derive(Default)]
pub struct GuardSlot(OnceLock<LockGuard>);

impl GuardSlot {
    /// An empty slot.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The guard. The body runs only while there is one.
    pub fn guard(&self) -> &LockGuard {
        match self.0.get() {
            Some(guard) => guard,
            None => unreachable!("the body is polled only after the lock was acquired"),
        }
    }
}

/// Where the guard is while the body runs.
pub(crate) trait Place {
    fn put(&self, guard: LockGuard) -> &LockGuard;
}

impl Place for &GuardSlot {
    fn put(&self, guard: LockGuard) -> &LockGuard {
        self.0.get_or_init(|| guard)
    }
}

/// Where the body does not see it, and threads do not matter.
impl Place for OnceCell<LockGuard> {
    fn put(&self, guard: LockGuard) -> &LockGuard {
        self.get_or_init(|| guard)
    }
}

/// Not an `async fn`, and awaits few futures: this one is a part of every annotated call's.
pub(crate) fn run_in<F, N, K>(
    mut call: Call,
    mut entered: Result<(Option<SlotRef>, Wanted), LockError>,
    max_hold: Option<Duration>,
    slot: impl Place,
    body: Pin<&mut Option<F>>,
    not_run: N,
) -> impl Future<Output = F::Output>
where
    F: Future,
    N: FnOnce(LockError) -> F::Output,
    K: Keep<F::Output>,
{
    let mut body = Body(body);
    async move {
        // Captured first, and so dropped before the guard when the caller drops this half-way.
        let _ = &body;
        let acquired = match &mut entered {
            Ok((slot, wanted)) => Acquiring::new(slot, wanted).await,
            Err(error) => Err(error.clone()),
        };
        let held = |acquired| {
            call.acquired(&acquired);
            slot.put(acquired)
        };
        let guard = match acquired.map(held) {
            Ok(guard) => guard,
            Err(error) => {
                body.0.set(None);
                call.not_acquired(&error);
                return not_run(error);
            }
        };
        let (ended, released) = {
            let held = pin!(body.while_held(guard, max_hold.as_ref()));
            until_released(K::default(), held, pin!(guard.release_in_place())).await
        };
        call.released(ended.as_ref().err(), released);
        ended.unwrap_or_else(not_run)
    }
}

struct Body<'a, F>(Pin<&'a mut Option<F>>);

impl<F: Future> Body<'_, F> {
    /// Polls the body to its end, but no longer than the lock is held.
    fn while_held(
        &mut self,
        guard: &LockGuard,
        max_hold: Option<&Duration>,
    ) -> impl Future<Output = Result<F::Output, LockError>> {
        let mut limit = max_hold.map(Limit::start);
        if let (Some(max_hold), Some(hold)) = (max_hold, guard.hold()) {
            hold.renew_until(Timestamp::now() + *max_hold);
        }
        let mut lost = guard.hold().map(|_| guard.lost());
        poll_fn(move |context| {
            let Some(body) = self.0.as_mut().as_pin_mut() else {
                unreachable!("the body is there until its end")
            };
            let ended = ready!(poll_held(body, guard, &mut lost, &mut limit, context));
            // What is left of the body goes while the lock is still held.
            self.0.set(None);
            Poll::Ready(ended)
        })
    }
}

/// Polls the body, unless it may not go on.
fn poll_held<F: Future>(
    body: Pin<&mut F>,
    guard: &LockGuard,
    lost: &mut Option<LostSignal>,
    limit: &mut Option<Limit<'_>>,
    context: &mut Context<'_>,
) -> Poll<Result<F::Output, LockError>> {
    if guard.is_lost() {
        return Poll::Ready(Err(guard.loss()));
    }
    if let Some(Limit {
        timer: Err(error), ..
    }) = limit
    {
        return Poll::Ready(Err(error.clone()));
    }
    let polled = {
        let _held = held::enter(guard.slot());
        body.poll(context)
    };
    if let Poll::Ready(output) = polled {
        return Poll::Ready(Ok(output));
    }
    // Asked after the body, many of which need not wait: then nothing has to be set up.
    if let Some(lost) = lost
        && pin!(lost).poll(context).is_ready()
    {
        return Poll::Ready(Err(guard.loss()));
    }
    if let Some(limit) = limit
        && let Poll::Ready(error) = limit.poll(context, guard)
    {
        return Poll::Ready(Err(error));
    }
    Poll::Pending
}

impl<F> Drop for Body<'_, F> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// The end of `max_hold`.
struct Limit<'a> {
    max_hold: &'a Duration,
    /// Without a timer there is no limit, and so nothing is run.
    timer: Result<Pin<Box<Sleep>>, LockError>,
}

impl<'a> Limit<'a> {
    fn start(max_hold: &'a Duration) -> Self {
        let timer = keeper::sleep_until(Timestamp::now() + *max_hold);
        Self {
            max_hold,
            timer: timer.map(Box::pin),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, guard: &LockGuard) -> Poll<LockError> {
        match &mut self.timer {
            Ok(timer) => timer.as_mut().poll(context).map(|()| {
                LockError::new(LockErrorKind::MaxHoldExceeded)
                    .with_name(guard.name().clone())
                    .with_detail(format!("{:?}", self.max_hold))
            }),
            Err(error) => Poll::Ready(error.clone()),
        }
    }
}
