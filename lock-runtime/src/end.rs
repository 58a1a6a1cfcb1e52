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
    loss: Option<LossReporter>,
    place: Place,
}

impl LostSignal {
    pub(crate) fn new(loss: Option<LossReporter>) -> Self {
        Self {
            loss,
            place: Place::default(),
        }
    }
}

impl Future for LostSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        match &this.loss {
            Some(loss) => loss.signal().poll(&mut this.place, context).map(drop),
            None => Poll::Pending,
        }
    }
}

impl Drop for LostSignal {
    fn drop(&mut self) {
        if let Some(loss) = &self.loss {
            loss.signal().forget(&mut self.place);
        }
    }
}

impl Clone for LostSignal {
    fn clone(&self) -> Self {
        Self::new(self.loss.clone())
    }
}

impl fmt::Debug for LostSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LostSignal")
            .field("loss", &self.loss)
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
    lost: LostSignal,
}

impl EndSignal {
    pub(crate) fn new(ended: Arc<Signal<GrantEnd>>, loss: Option<LossReporter>) -> Self {
        Self {
            ended,
            place: Place::default(),
            lost: LostSignal::new(loss),
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
        Self::new(Arc::clone(&self.ended), self.lost.loss.clone())
    }
}

impl fmt::Debug for EndSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndSignal")
            .field("ended", &self.ended.get())
            .finish_non_exhaustive()
    }
}
