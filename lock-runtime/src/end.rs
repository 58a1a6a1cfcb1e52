//! `LostSignal` and `EndSignal`: futures that tell when a grant ends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::provider::LossReporter;
use crate::signal::{Place, Signal};

/// A future that resolves when the lock of its guard is lost; see
/// [`LockGuard::lost`](crate::LockGuard::lost).
///
/// It borrows nothing and can be cloned and sent to other tasks.
///
/// # Cancel safety
///
/// It may be dropped, cloned and polled again at any time.
#[must_use = "a signal does nothing unless it is awaited"]
pub struct LostSignal {
    loss: Loss,
    /// Those of the other locks, of a guard that has several.
    others: Box<[Loss]>,
}

impl LostSignal {
    pub(crate) fn new(loss: Option<LossReporter>) -> Self {
        Self {
            loss: Loss::new(loss),
            others: Box::default(),
        }
    }

    /// Makes a signal that resolves when the first of several locks is lost.
    pub(crate) fn of_several(losses: impl IntoIterator<Item = LossReporter>) -> Self {
        let mut losses = losses.into_iter();
        Self {
            loss: Loss::new(losses.next()),
            others: losses.map(|loss| Loss::new(Some(loss))).collect(),
        }
    }
}

impl Future for LostSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut losses = std::iter::once(&mut this.loss).chain(&mut this.others);
        match losses.any(|loss| Pin::new(loss).poll(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Clone for LostSignal {
    fn clone(&self) -> Self {
        Self {
            loss: self.loss.clone(),
            others: self.others.clone(),
        }
    }
}

/// A future that resolves when one lock is lost.
pub(crate) struct Loss {
    reporter: Option<LossReporter>,
    place: Place,
}

impl Loss {
    pub(crate) fn new(reporter: Option<LossReporter>) -> Self {
        Self {
            reporter,
            place: Place::default(),
        }
    }
}

impl Future for Loss {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        match &this.reporter {
            Some(loss) => loss.signal().poll(&mut this.place, context).map(drop),
            None => Poll::Pending,
        }
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        if let Some(loss) = &self.reporter {
            loss.signal().forget(&mut self.place);
        }
    }
}

impl Clone for Loss {
    fn clone(&self) -> Self {
        Self::new(self.reporter.clone())
    }
}

impl fmt::Debug for LostSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LostSignal")
            .field("loss", &self.loss.reporter)
            .finish_non_exhaustive()
    }
}

/// How a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GrantEnd {
    /// The lock was lost before its guard was released or dropped.
    Lost,
    /// The guard was released or dropped, and the lock was held until then.
    Released,
}

/// A future that resolves when the grant of its guard ends, and says how; see
/// [`LockGuard::ended`](crate::LockGuard::ended).
///
/// It borrows nothing and can be cloned and sent to other tasks. If the guard is leaked, it
/// resolves only if the lock is lost.
///
/// # Cancel safety
///
/// It may be dropped, cloned and polled again at any time.
#[must_use = "a signal does nothing unless it is awaited"]
pub struct EndSignal {
    ended: Arc<Signal<GrantEnd>>,
    place: Place,
    lost: Loss,
}

impl EndSignal {
    pub(crate) fn new(ended: Arc<Signal<GrantEnd>>, loss: Option<LossReporter>) -> Self {
        Self {
            ended,
            place: Place::default(),
            lost: Loss::new(loss),
        }
    }
}

impl Future for EndSignal {
    type Output = GrantEnd;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<GrantEnd> {
        let this = &mut *self;
        // Polled first, since a grant that was passed on inside the process can be lost after this
        // guard's end.
        if let Poll::Ready(end) = this.ended.poll(&mut this.place, context) {
            return Poll::Ready(*end);
        }
        let lost = Pin::new(&mut this.lost).poll(context);
        // The guard may have been released just before the loss.
        match (lost, this.ended.get()) {
            (_, Some(end)) => Poll::Ready(*end),
            (Poll::Ready(()), None) => Poll::Ready(GrantEnd::Lost),
            (Poll::Pending, None) => Poll::Pending,
        }
    }
}

impl Drop for EndSignal {
    fn drop(&mut self) {
        self.ended.forget(&mut self.place);
    }
}

impl Clone for EndSignal {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.ended), self.lost.reporter.clone())
    }
}

impl fmt::Debug for EndSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndSignal")
            .field("ended", &self.ended.get())
            .finish_non_exhaustive()
    }
}
