//! One attempt at a time to connect, which serves all who ask for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::error::unavailable;
use crate::LockError;
use crate::background;
use crate::signal::Signal;

type Outcome<T> = Result<T, LockError>;

/// The attempt that is under way, if one is. It belongs to the state of a provider, under the same
/// lock as what the attempts are for: then nobody begins another one just after the last has ended.
pub(crate) struct SingleFlight<T> {
    attempt: Option<Arc<Signal<Outcome<T>>>>,
}

/// A place among those whom an attempt serves.
pub(crate) struct Joined<T> {
    attempt: Arc<Signal<Outcome<T>>>,
    /// Whether it was under way before: it may have begun long ago, in an outage that is over.
    pub(crate) was_under_way: bool,
}

impl<T: Clone> Joined<T> {
    /// Waits until the attempt has ended.
    pub(crate) async fn outcome(&self) -> Outcome<T> {
        self.attempt.wait().await.clone()
    }
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { attempt: None }
    }
}

impl<T: Send + Sync + 'static> SingleFlight<T> {
    /// Joins the attempt that is under way, if one is.
    pub(crate) fn join(&self) -> Option<Joined<T>> {
        self.attempt.as_ref().map(|attempt| Joined {
            attempt: Arc::clone(attempt),
            was_under_way: true,
        })
    }

    /// Begins an attempt, after a pause, on the runtime that what it makes is to live on.
    ///
    /// `open` keeps to a time limit by itself. An error says that it is about `server`. `ended`
    /// then calls [`end`](Self::end) and keeps what was made; those who ask hear of it afterwards.
    pub(crate) fn begin(
        &mut self,
        runtime: &Handle,
        pause: Duration,
        server: String,
        open: impl Future<Output = Outcome<T>> + Send + 'static,
        ended: impl FnOnce(&Outcome<T>) + Send + 'static,
    ) -> Joined<T> {
        let attempt = Arc::new(Signal::new());
        self.attempt = Some(Arc::clone(&attempt));
        let asked = Arc::clone(&attempt);
        runtime.spawn(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            // A task of its own, so that even a panic in it is answered.
            let outcome = match background::spawn_beside(open).await {
                Ok(outcome) => outcome,
                Err(panicked) => {
                    Err(unavailable("the attempt to connect panicked").with_source(panicked))
                }
            };
            let outcome = outcome.map_err(|error| error.about(server));
            ended(&outcome);
            asked.set(outcome);
        });
        Joined {
            attempt,
            was_under_way: false,
        }
    }

    /// Makes room for the next attempt.
    pub(crate) fn end(&mut self) {
        self.attempt = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn one_attempt_serves_all_and_a_panic_is_answered() {
        let flight = Arc::new(Mutex::new(SingleFlight::<u32>::default()));
        let begin = |open: fn() -> Outcome<u32>| {
            let ended = Arc::clone(&flight);
            let joined = flight.lock().unwrap().begin(
                &Handle::current(),
                Duration::ZERO,
                "server `a`".to_owned(),
                async move { open() },
                move |_| ended.lock().unwrap().end(),
            );
            assert!(!joined.was_under_way);
            joined
        };
        let first = begin(|| Ok(7));
        let second = flight.lock().unwrap().join().expect("an attempt");
        assert!(second.was_under_way);
        assert_eq!(first.outcome().await.unwrap(), 7);
        assert_eq!(second.outcome().await.unwrap(), 7);
        assert!(flight.lock().unwrap().join().is_none());
        let error = begin(|| panic!("on purpose")).outcome().await.unwrap_err();
        assert!(
            error.to_string().contains("server `a`: the attempt"),
            "{error}"
        );
    }
}
