//! When the request of a provider's call has been handed to the connection.
//!
//! A call that waits counts as handed over: its first poll has asked for something, and the tasks
//! which that woke on the background thread have had their turns. A provider that has something
//! else to wait for first says so, with [`unsent`].

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use tokio::task::yield_now;

/// How often all that can run on the thread has a turn between the poll that asks and the signal.
/// One suffices, unless there is so much of it that the runtime cuts the turn short.
const TURNS: u32 = 2;

thread_local! {
    /// The watch over the call that is being polled.
    static WATCHED: RefCell<Option<Arc<Watch>>> = const { RefCell::new(None) };
}

/// What is known of one call.
#[derive(Default)]
struct Watch {
    /// How many [`Unsent`] of it there are.
    unsent: AtomicUsize,
    /// Whether the provider says exactly when the request was written.
    exact: AtomicBool,
    /// Wakes who watches, when the last of them is gone.
    waker: Mutex<Option<Waker>>,
}

/// Says, while it lives, that the request of a call has not been handed to the connection. It may
/// go along with the request, to other tasks and threads.
#[cfg_attr(not(any(feature = "_server", feature = "file")), allow(dead_code))]
pub(crate) struct Unsent(Option<Arc<Watch>>);

/// Says that the call which is being polled has not handed its request over, until the value is
/// dropped. This costs next to nothing where nobody watches.
#[cfg_attr(not(any(feature = "_server", feature = "file")), allow(dead_code))]
pub(crate) fn unsent() -> Unsent {
    let watched = WATCHED.try_with(|watch| {
        let watch = Arc::clone(watch.borrow().as_ref()?);
        watch.unsent.fetch_add(1, Ordering::Relaxed);
        Some(watch)
    });
    Unsent(watched.ok().flatten())
}

/// Tells whether this thread is ending, so that no call can be watched on it any more.
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
pub(crate) fn is_over_here() -> bool {
    WATCHED.try_with(|_| ()).is_err()
}

/// Tells whether somebody watches the call that is being polled, and goes on when it has been
/// handed over.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) fn is_watched() -> bool {
    WATCHED
        .try_with(|watch| watch.borrow().is_some())
        .unwrap_or(false)
}

impl Unsent {
    /// Says that the request was written to the connection, so that no other task need have a turn.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn written(self) {
        if let Some(watch) = &self.0 {
            watch.exact.store(true, Ordering::Relaxed);
        }
    }

    /// Tells whether somebody watches the call.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn is_watched(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(watch) = &self.0
            && watch.unsent.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(waker) = watch.waker().take()
        {
            waker.wake();
        }
    }
}

impl Watch {
    fn waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether the request has been handed over. If not, the waker is woken then.
    fn is_sent(&self, waker: &Waker) -> bool {
        if self.unsent.load(Ordering::Acquire) == 0 {
            return true;
        }
        *self.waker() = Some(waker.clone());
        // The last one may have gone since the look above, and has then woken nobody.
        self.unsent.load(Ordering::Acquire) == 0
    }
}

/// Polls a call to its end, and calls `sent` when its request has been handed to the connection and
/// the call still waits. `sent` gets to know whether the provider said exactly when that was.
/// Without a `sent`, this only polls.
pub(crate) async fn watched<T>(
    call: impl Future<Output = T>,
    sent: Option<impl FnOnce(bool)>,
) -> T {
    let mut call = pin!(call);
    let mut sent = sent.map(|sent| (sent, Arc::new(Watch::default())));
    let mut turns = TURNS;
    poll_fn(|context| {
        let polled = {
            // Also if nobody watches this call: what polls it may be another call's watched poll.
            let _watching = Watching::begin(sent.as_ref().map(|(_, watch)| watch));
            call.as_mut().poll(context)
        };
        let Some((_, watch)) = &sent else {
            return polled;
        };
        if polled.is_ready() {
            return polled;
        }
        if !watch.is_sent(context.waker()) {
            turns = TURNS;
        } else if turns > 0 && !watch.exact.load(Ordering::Relaxed) {
            turns -= 1;
            // Not a mere wake-up: a connection that another thread has woken would come after that.
            let _ = pin!(yield_now()).poll(context);
        } else if let Some((sent, watch)) = sent.take() {
            sent(watch.exact.load(Ordering::Relaxed));
        }
        Poll::Pending
    })
    .await
}

/// Has [`unsent`] find a watch, until it is dropped.
struct Watching(Option<Arc<Watch>>);

impl Watching {
    fn begin(watch: Option<&Arc<Watch>>) -> Self {
        let before = WATCHED.try_with(|watched| watched.replace(watch.cloned()));
        Self(before.ok().flatten())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let before = self.0.take();
        let watch = WATCHED.try_with(|watched| watched.replace(before));
        drop(watch);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::background::spawn_beside;

    /// Returns what tells that a call was handed over, and where it is told.
    fn told() -> (impl FnOnce(bool), mpsc::Receiver<()>) {
        let (tell, told) = mpsc::channel();
        let tell = move |_| tell.send(()).expect("the test listens");
        (tell, told)
    }

    #[tokio::test]
    async fn a_call_that_is_answered_at_once_has_nothing_to_hand_over() {
        let (tell, told) = told();
        assert_eq!(watched(async { 7 }, Some(tell)).await, 7);
        assert!(told.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_a_call_wakes_has_its_turns_first() {
        let (answer, answered) = oneshot::channel();
        let (written, is_written) = mpsc::channel();
        let call = async {
            // As a request passes two tasks: the one that gathers, and the connection's.
            spawn_beside(async move {
                spawn_beside(async move { written.send(()).expect("the test listens") });
            });
            answered.await.expect("it is answered")
        };
        let sent = move |_| {
            is_written.try_recv().expect("the request is written");
            answer.send(()).expect("the call waits");
        };
        watched(call, Some(sent)).await;
    }

    #[tokio::test]
    async fn so_has_what_another_thread_has_woken() {
        let (wake, woken) = oneshot::channel();
        let (written, is_written) = mpsc::channel();
        let connection = spawn_beside(async move {
            woken.await.expect("it is woken");
            written.send(()).expect("the test listens");
        });
        yield_now().await;
        let (answer, answered) = oneshot::channel();
        let call = async {
            // As an answer to another request does, which comes at this moment.
            let waking = std::thread::spawn(move || wake.send(()));
            waking.join().expect("no panic").expect("it waits");
            answered.await.expect("it is answered");
        };
        let sent = move |_| {
            is_written.try_recv().expect("the request is written");
            answer.send(()).expect("the call waits");
        };
        watched(call, Some(sent)).await;
        connection.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_call_that_has_not_sent_yet_is_not_handed_over() {
        let (tell, told) = told();
        let (sends, to_be_sent) = oneshot::channel::<Unsent>();
        let (answer, answered) = oneshot::channel();
        let call = spawn_beside(watched(
            async {
                let unsent = (unsent(), unsent());
                drop(unsent.0);
                assert!(sends.send(unsent.1).is_ok(), "the test listens");
                answered.await.expect("it is answered");
            },
            Some(tell),
        ));
        let unsent = to_be_sent.await.expect("it is about to send");
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(told.try_recv().is_err());
        // The request goes to the connection on another thread, and nothing else wakes the call.
        std::thread::spawn(move || drop(unsent))
            .join()
            .expect("no panic");
        while told.try_recv().is_err() {
            yield_now().await;
        }
        answer.send(()).expect("the call waits");
        call.await.expect("no panic");
    }

    #[tokio::test]
    async fn only_the_call_that_is_being_polled_is_meant() {
        assert!(unsent().0.is_none());
        let (tell, told) = told();
        let (answer, answered) = oneshot::channel::<()>();
        let call = spawn_beside(watched(answered, Some(tell)));
        yield_now().await;
        let others = unsent();
        while told.try_recv().is_err() {
            yield_now().await;
        }
        assert!(others.0.is_none());
        answer.send(()).expect("the call waits");
        call.await.expect("no panic").expect("it was answered");
    }

    #[tokio::test]
    async fn a_call_that_nobody_watches_is_only_polled() {
        let call = async { unsent().0.is_none() };
        assert!(watched(call, None::<fn(bool)>).await);
    }
}
