//! `Request`: what an expansion says about a call, and the call itself.

use std::cell::OnceCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::body::{Begun, Goal, GuardCell, Keep, run_in};
use crate::cached_slot::CachedSlot;
use crate::clock::Span;
use crate::error::LockError;
use crate::gate::{ReleaseMode, SlotRef, Wanted};
use crate::kind::{Exclusive, Kind, Permits, Read, Write};
use crate::name::LockName;
use crate::provider::{LockKind, LockProvider};
use crate::several::{self, Part, Several, Wish, in_order};
use crate::source::Source;
use crate::telemetry::spans::Call;
use crate::{gate, limits, registry};

/// The options of one call of an annotated function, which wants this kind of lock.
pub struct Request<K> {
    kind: K,
    template: &'static str,
    name: LockName,
    provider: Provider,
    timeout: Option<Duration>,
    lease: Option<Duration>,
    max_hold: Option<Duration>,
    min_hold: Option<Duration>,
    release: ReleaseMode,
    site: Option<&'static CallSite>,
}

/// The place in the source of an attribute whose name has no placeholders. It caches the lock's
/// slot.
pub struct CallSite(CachedSlot);

impl CallSite {
    /// Makes a place at which there was no call yet.
    #[allow(clippy::new_without_default, reason = "it is made in statics")]
    pub const fn new() -> Self {
        Self(CachedSlot::new())
    }
}

enum Provider {
    Default,
    Named(&'static str),
    Given(Arc<dyn LockProvider>),
}

impl Request<Exclusive> {
    /// Makes a call with all other options at their defaults: it tries once, on the default
    /// provider.
    #[inline]
    pub fn new(template: &'static str, name: LockName) -> Self {
        Self {
            kind: Exclusive,
            template,
            name,
            provider: Provider::Default,
            timeout: Some(Duration::ZERO),
            lease: None,
            max_hold: None,
            min_hold: None,
            release: ReleaseMode::Confirmed,
            site: None,
        }
    }

    /// Wants the reader–writer lock of this name, beside other readers.
    #[inline]
    pub fn read(self) -> Request<Read> {
        self.of(Read)
    }

    /// Wants the reader–writer lock of this name, alone.
    #[inline]
    pub fn write(self) -> Request<Write> {
        self.of(Write)
    }

    /// Wants `take` permits of the semaphore of this name, which has `permits` in all.
    #[inline]
    pub fn permits(self, permits: u32, take: u32) -> Request<Permits> {
        self.of(Permits {
            limit: permits,
            take,
        })
    }

    fn of<K>(self, kind: K) -> Request<K> {
        Request {
            kind,
            template: self.template,
            name: self.name,
            provider: self.provider,
            timeout: self.timeout,
            lease: self.lease,
            max_hold: self.max_hold,
            min_hold: self.min_hold,
            release: self.release,
            site: self.site,
        }
    }
}

impl Request<Several> {
    /// Makes a call that wants all locks of these names, with all other options at their defaults.
    pub fn new<const N: usize>(template: &'static str, names: [LockName; N]) -> Self {
        let [first, ..] = &names[..] else {
            unreachable!("the attribute has at least one name")
        };
        let request = Request::<Exclusive>::new(template, first.clone());
        request.of(Several {
            names: names.into(),
            wish: Wish::Exclusive,
        })
    }

    /// Wants the reader–writer locks of these names, beside other readers.
    pub fn read(self) -> Self {
        self.wishing(Wish::Read)
    }

    /// Wants the reader–writer locks of these names, alone.
    pub fn write(self) -> Self {
        self.wishing(Wish::Write)
    }

    /// Wants `take` permits of each semaphore of these names, of which each has `permits` in all.
    pub fn permits(self, permits: u32, take: u32) -> Self {
        self.wishing(Wish::Permits(Permits {
            limit: permits,
            take,
        }))
    }

    fn wishing(mut self, wish: Wish) -> Self {
        self.kind.wish = wish;
        self
    }
}

#[expect(private_bounds, reason = "only expansions call it")]
impl<K: Enter> Request<K> {
    /// Sets the longest wait; zero tries once.
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

    /// Sets the lease.
    #[inline]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Sets how long the body may hold the lock before it is dropped.
    #[inline]
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = Some(max_hold);
        self
    }

    /// Sets the shortest time for which the lock stays held, even if the body ends before; zero is
    /// no limit.
    #[inline]
    pub fn min_hold(mut self, min_hold: Duration) -> Self {
        self.min_hold = Some(min_hold).filter(|min_hold| !min_hold.is_zero());
        self
    }

    /// Waits for a release only until it has been handed to the provider's connection.
    #[inline]
    pub fn release_in_background(mut self) -> Self {
        self.release = ReleaseMode::Background;
        self
    }

    /// Uses the provider that is registered under this name.
    #[inline]
    pub fn named(mut self, provider: &'static str) -> Self {
        self.provider = Provider::Named(provider);
        self
    }

    /// Uses this provider.
    #[inline]
    pub fn on(mut self, provider: &Arc<dyn LockProvider>) -> Self {
        self.provider = Provider::Given(Arc::clone(provider));
        self
    }

    /// Sets the place of this call. The name must be the same at each call there.
    #[inline]
    pub fn at(mut self, site: &'static CallSite) -> Self {
        self.site = Some(site);
        self
    }

    /// Runs the body while the lock is held. Calls `not_run` with the error if the body did not
    /// run, or not to its end.
    #[inline]
    pub fn run<F, N, P>(
        self,
        _: P,
        body: Pin<&mut Option<F>>,
        not_run: N,
    ) -> impl Future<Output = F::Output>
    where
        F: Future,
        N: FnOnce(LockError) -> F::Output,
        P: Keep<F::Output>,
    {
        run_in::<_, _, P, _>(self.begin(), OnceCell::new(), body, not_run)
    }

    /// Does the same as [`run`](Self::run), for a body that uses the guard.
    #[inline]
    pub fn run_with_guard<F, N, P, G>(
        self,
        guard: &GuardCell<G>,
        _: P,
        body: Pin<&mut Option<F>>,
        not_run: N,
    ) -> impl Future<Output = F::Output>
    where
        F: Future,
        N: FnOnce(LockError) -> F::Output,
        P: Keep<F::Output>,
        K: Goal<Guard = G>,
    {
        run_in::<_, _, P, _>(self.begin(), guard, body, not_run)
    }

    /// Opens the call's span, and finds the slot of the lock, or those of several.
    fn begin(self) -> Begun<K> {
        let call = K::span(&self);
        let checked = limits::check_holds(&self.name, self.max_hold, self.min_hold);
        let entered = checked.and_then(|()| K::enter(&self, &call));
        Begun {
            call,
            goal: self.kind,
            entered,
            max_hold: self.max_hold,
        }
    }
}

/// What a function can want: a lock of some kind, or several locks.
trait Enter: Goal + Sized {
    /// Opens the span of the call.
    fn span(request: &Request<Self>) -> Call;

    /// Finds the slots.
    fn enter(request: &Request<Self>, call: &Call) -> Result<Self::Entered, LockError>;
}

impl<K: Kind> Enter for K {
    #[inline]
    fn span(request: &Request<K>) -> Call {
        Call::new(request.template, &request.name, K::MODE)
    }

    #[inline]
    fn enter(request: &Request<K>, call: &Call) -> Result<Self::Entered, LockError> {
        let slot = match (&request.provider, request.site) {
            // The slot may be cached, since a registered provider stays.
            (Provider::Default, Some(site)) => {
                site.0.get(registry::default()?, &request.name, K::KIND)
            }
            (Provider::Named(name), Some(site)) => {
                site.0.get(&registry::named(name)?, &request.name, K::KIND)
            }
            _ => request.slot(&request.name, K::KIND),
        }?;
        call.provider(|| slot.source().name());
        Ok((Some(slot), request.wanted()))
    }
}

impl Enter for Several {
    fn span(request: &Request<Self>) -> Call {
        Call::of_several(request.template, &request.kind.names, several::MODE)
    }

    fn enter(request: &Request<Self>, call: &Call) -> Result<Vec<Part>, LockError> {
        let Self { names, wish } = &request.kind;
        let part = |name| {
            Ok::<_, LockError>(Part {
                slot: request.slot(name, wish.kind())?,
                wish: *wish,
                wanted: request.wanted(),
            })
        };
        let parts = in_order(names.iter().map(part).collect::<Result<_, _>>()?)?;
        if let Some(first) = parts.first() {
            call.provider(|| first.slot.source().name());
        }
        Ok(parts)
    }
}

impl<K> Request<K> {
    /// Finds the slot of this name.
    fn slot(&self, name: &LockName, kind: LockKind) -> Result<SlotRef, LockError> {
        match &self.provider {
            Provider::Default => gate::enter(registry::default()?, name, kind),
            Provider::Named(provider) => gate::enter(&registry::named(provider)?, name, kind),
            Provider::Given(given) => gate::enter(&Source::new(Arc::clone(given)), name, kind),
        }
    }

    #[inline]
    fn wanted(&self) -> Wanted {
        Wanted {
            lease: Span::maybe(self.lease),
            timeout: Span::maybe(self.timeout),
            min_hold: Span::maybe(self.min_hold),
            release: self.release,
            template: self.template,
            measured: true,
        }
    }
}
