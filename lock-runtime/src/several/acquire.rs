//! Acquires several locks, all or none.

use std::collections::VecDeque;
use std::time::Duration;

use super::guard::{Held, MultiLockGuard};
use super::part::{Part, PartGuard, Wish};
use crate::acquire::end_of_wait;
use crate::body::Goal;
use crate::clock::{Span, Timestamp};
use crate::error::{LockError, LockErrorKind};
use crate::future::{BoxFuture, First, select};
use crate::gate::{Reach, Together, Wanted, ask_together};
use crate::name::LockName;
use crate::telemetry::metrics::Attempt;

/// The mode as logs and metrics show it.
pub(crate) const MODE: &str = "several";

/// Several locks, as what a body runs under. Of each, the same is wanted.
pub struct Several {
    pub(crate) names: Vec<LockName>,
    pub(crate) wish: Wish,
}

impl Goal for Several {
    type Guard = MultiLockGuard;
    type Entered = Vec<Part>;
    type Wait = ();

    fn acquiring<'a>(
        self,
        parts: &'a mut Vec<Part>,
        _: &'a mut Option<()>,
    ) -> impl Future<Output = Result<MultiLockGuard, LockError>> + Send {
        let boxed: BoxFuture<'a, _> = Box::pin(acquire(parts));
        boxed
    }
}

/// Acquires these locks, which are in their normal form.
pub(crate) async fn acquire(parts: &[Part]) -> Result<MultiLockGuard, LockError> {
    let first = parts.first();
    let template = first.map_or("", |part| part.wanted.template);
    let attempt = Attempt::begin(template, MODE, || {
        first.map_or("", |part| part.slot.source().name())
    });
    match all(parts).await {
        Ok(held) => Ok(MultiLockGuard::new(held, attempt.succeeded().acquired())),
        Err(error) => {
            attempt.failed(error.kind());
            Err(error)
        }
    }
}

async fn all(parts: &[Part]) -> Result<Held, LockError> {
    // All are checked before the first is taken.
    parts.iter().try_for_each(Part::check)?;
    let mut taking = Taking::new(parts);
    loop {
        match taking.one_after_another().await? {
            Taken::All(mut held) => {
                for (part, guard) in parts.iter().zip(&mut held.0) {
                    if let Some(min_hold) = part.wanted.min_hold.get() {
                        guard.keep(min_hold);
                    }
                }
                return Ok(held);
            }
            // All were given back, since one was lost while another was waited for.
            Taken::Lost(_) if taking.goes_on() => {}
            Taken::Lost(error) => return Err(error),
        }
    }
}

/// What has come of taking the locks once.
enum Taken {
    All(Held),
    Lost(LockError),
}

/// Takes the locks one after another, within one timeout.
struct Taking<'a> {
    parts: &'a [Part],
    /// The timeout of all.
    timeout: Span,
    /// When it passes, if ever.
    ends: Timestamp,
    /// Whether the provider is asked for several at once.
    together: bool,
}

impl<'a> Taking<'a> {
    fn new(parts: &'a [Part]) -> Self {
        let timeout = parts.first().map_or(Span::NONE, |part| part.wanted.timeout);
        let ends = match timeout.get() {
            Some(timeout) if !timeout.is_zero() => Timestamp::now() + timeout,
            _ => Timestamp::NONE,
        };
        Self {
            parts,
            timeout,
            ends,
            together: true,
        }
    }

    /// Tells whether there is time for another try.
    fn goes_on(&self) -> bool {
        let is_over = self.ends != Timestamp::NONE && self.ends.has_passed();
        !self.timeout.is_zero() && !is_over
    }

    /// Takes one lock after another, those that are free together. A place in the queue of a lock is
    /// taken only once those before it are held.
    async fn one_after_another(&mut self) -> Result<Taken, LockError> {
        let mut held = Held::default();
        // Dropped before what is held, so that all is given back in the opposite order.
        let mut asked = Tickets::none();
        while let Some(part) = self.parts.get(held.0.len()) {
            if !asked.is_next_asked_for() {
                asked = self.ask(&self.parts[held.0.len()..])?;
            }
            let ticket = asked.next();
            let acquiring = part.acquire(self.wanted(part), ticket);
            match select(acquiring, held.until_lost()).await {
                First::Left(guard) => held.0.push(guard?),
                First::Right(()) => break,
            }
        }
        Ok(match held.lost().map(PartGuard::loss) {
            None => Taken::All(held),
            Some(loss) => Taken::Lost(while_waiting(loss)),
        })
    }

    /// Returns what is wanted of one lock: to wait for it in the time that is left.
    fn wanted(&self, part: &Part) -> Wanted {
        let timeout = match self.ends {
            Timestamp::NONE => self.timeout,
            // A span of zero would mean something else.
            ends => Span::of(ends.remaining().max(Duration::from_nanos(1))),
        };
        Wanted {
            timeout,
            // It counts only once all are held.
            min_hold: Span::NONE,
            measured: false,
            ..part.wanted
        }
    }

    /// Asks the provider for as many of these locks at once as are free in this process.
    fn ask(&mut self, parts: &'a [Part]) -> Result<Tickets<'a>, LockError> {
        let (true, [first, _, ..]) = (self.together, parts) else {
            return Ok(Tickets::none());
        };
        let until = match self.timeout.is_zero() {
            false => self.ends,
            true => end_of_wait(first.wanted.timeout, &first.slot.source().capabilities()),
        };
        let sought: Vec<_> = parts
            .iter()
            .map(|part| part.sought(self.wanted(part)))
            .collect();
        match ask_together(&sought, until) {
            Ok(Together::Asked(tickets, reach)) => Ok(Tickets {
                waiting: parts.iter().zip(tickets).collect(),
                place: 0,
                until,
                reach: Some(reach),
            }),
            Ok(Together::NotNow) => Ok(Tickets::none()),
            Ok(Together::Unable) => {
                self.together = false;
                Ok(Tickets::none())
            }
            Err(error) if error.name().is_none() => Err(error.with_name(first.slot.name.clone())),
            Err(error) => Err(error),
        }
    }
}

/// Returns the error of a caller that has no time to take its locks again.
fn while_waiting(loss: LockError) -> LockError {
    let error = LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail("a lock was lost while the others were waited for");
    let error = match loss.name() {
        Some(name) => error.with_name(name.clone()),
        None => error,
    };
    error.with_source(loss)
}

/// The tickets of locks that were asked for together. Those that are not used are given back.
struct Tickets<'a> {
    waiting: VecDeque<(&'a Part, u64)>,
    /// The place of the first of them among all that were asked for.
    place: usize,
    until: Timestamp,
    reach: Option<Reach>,
}

impl Tickets<'_> {
    fn none() -> Self {
        Self {
            waiting: VecDeque::new(),
            place: 0,
            until: Timestamp::NONE,
            reach: None,
        }
    }

    /// Tells whether the next lock was asked for, as far as is known.
    fn is_next_asked_for(&self) -> bool {
        let is_reached = |reach: &Reach| reach.includes(self.place);
        !self.waiting.is_empty() && self.reach.as_ref().is_some_and(is_reached)
    }

    /// Takes the ticket of the next lock out, with the end of its wait.
    fn next(&mut self) -> Option<(u64, Timestamp)> {
        let (_, ticket) = self.waiting.pop_front()?;
        self.place += 1;
        Some((ticket, self.until))
    }
}

impl Drop for Tickets<'_> {
    fn drop(&mut self) {
        while let Some((part, ticket)) = self.waiting.pop_back() {
            part.leave(ticket);
        }
    }
}
