//! `Reading`: which runtime reads the answers of a connection.
//!
//! By default the background runtime does. But then each answer wakes a thread that only wakes
//! another one. So while one runtime asks for much, it reads by itself, in a task there: that task
//! is woken, runs a step of the connection, and the tasks that wait for an answer are beside it.
//!
//! Nothing depends on that runtime. If it is blocked, busy or gone, the background runtime reads
//! again: at once if the task is dropped, and else when it finds bytes that nobody has read for
//! several milliseconds. When nothing has come for a while, it reads again too, so that an idle
//! connection costs nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::task::consume_budget;

use super::stream::{OtherSide, Registered, Twin};
use crate::future::{First, select};
use crate::shared_task::{self, Run};
use crate::signal::Signal;

/// After so many requests in a row that come from one runtime, that runtime reads.
const ENOUGH: u32 = 16;
/// The same for one that has left bytes unread again and again.
const MOST: u32 = 1 << 14;
/// How often the background runtime looks whether the other one reads.
const TICK: Duration = Duration::from_millis(2);
/// For so many ticks nothing need come, and the other runtime goes on.
const IDLE_TICKS: u32 = 5;

/// The runtimes without I/O that were met. To learn that costs a panic, which is not repeated.
static WITHOUT_IO: Mutex<Vec<runtime::Id>> = Mutex::new(Vec::new());
/// After so many of them, no other runtime is asked to read.
const MOST_WITHOUT_IO: usize = 8;

/// Which runtime reads the answers of a connection.
pub(super) struct Reading {
    other_side: Option<OtherSide>,
    /// Set when the connection has ended.
    ended: Arc<Signal<()>>,
    background: Handle,
    elsewhere: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// Which runtime has asked last, and how often in a row.
    asked: Option<(runtime::Id, u32)>,
    enough: u32,
}

impl Reading {
    /// Has the background runtime read, on which this is to be called. Without another side that
    /// never changes.
    pub(super) fn new(other_side: Option<OtherSide>, ended: Arc<Signal<()>>) -> Arc<Self> {
        // To meet a runtime without I/O must not end the process.
        let other_side = other_side.filter(|_| cfg!(panic = "unwind"));
        Arc::new(Self {
            other_side,
            ended,
            background: Handle::current(),
            elsewhere: AtomicBool::new(false),
            state: Mutex::new(State {
                asked: None,
                enough: ENOUGH,
            }),
        })
    }

    /// Notes a request of a caller, within the step that sends it. The connection is what has to be
    /// run when there is something to read.
    pub(super) fn asked<T: Run + 'static>(self: &Arc<Self>, connection: &Arc<T>) {
        if self.elsewhere.load(Ordering::Relaxed) {
            return;
        }
        let caller = shared_task::caller().or_else(|| Handle::try_current().ok());
        let (Some(other_side), Some(caller)) = (&self.other_side, caller) else {
            return;
        };
        let twin = {
            let mut state = self.state();
            let count = match state.asked {
                Some((before, count)) if before == caller.id() => count + 1,
                _ => 1,
            };
            state.asked = Some((caller.id(), count));
            if count < state.enough || !may_have_io(caller.id()) {
                return;
            }
            let Some(twin) = other_side.take() else {
                return;
            };
            if self.elsewhere.swap(true, Ordering::Relaxed) {
                return;
            }
            state.asked = None;
            twin
        };
        let connection: Weak<dyn Run> = Arc::<T>::downgrade(connection);
        let session = Arc::new(Session {
            reading: Arc::clone(self),
            other_side: other_side.clone(),
            twin,
            connection,
            looks: AtomicU64::new(0),
            is_over: Mutex::new(false),
            over: Signal::new(),
        });
        self.background.spawn(Arc::clone(&session).watch());
        // If that runtime is ending, this drops the task.
        caller.spawn(read(Ends(session)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time during which the runtime of a caller reads.
struct Session {
    reading: Arc<Reading>,
    other_side: OtherSide,
    twin: Twin,
    connection: Weak<dyn Run>,
    /// How often that runtime has looked.
    looks: AtomicU64,
    is_over: Mutex<bool>,
    /// Set when it is over.
    over: Signal<()>,
}

impl Session {
    /// Has the background runtime cease to read. False if the session is over by now.
    fn begin(&self) -> bool {
        let is_over = self.is_over();
        self.other_side.read_elsewhere(!*is_over);
        !*is_over
    }

    /// Has the background runtime read again.
    fn end(&self) {
        let mut is_over = self.is_over();
        if !std::mem::replace(&mut *is_over, true) {
            self.other_side.read_elsewhere(false);
            drop(is_over);
            self.over.set(());
            self.reading.elsewhere.store(false, Ordering::Relaxed);
            if let Some(connection) = self.connection.upgrade() {
                connection.run_soon();
            }
        }
    }

    fn is_over(&self) -> MutexGuard<'_, bool> {
        self.is_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session when the other runtime does not read what has come, or nothing comes.
    async fn watch(self: Arc<Self>) {
        let (mut looks, mut idle, mut unread) = (0, 0, false);
        while let First::Right(()) = select(self.over.wait(), tokio::time::sleep(TICK)).await {
            let before = std::mem::replace(&mut looks, self.looks.load(Ordering::Relaxed));
            if before != looks {
                (idle, unread) = (0, false);
                continue;
            }
            let still_unread = std::mem::replace(&mut unread, self.twin.has_unread()) && unread;
            idle += 1;
            if still_unread || idle == IDLE_TICKS {
                let mut state = self.reading.state();
                state.enough = match still_unread {
                    true => MOST.min(state.enough * 2),
                    false => ENOUGH,
                };
                drop(state);
                return self.end();
            }
        }
    }

    /// Runs a step of the connection, and those of the tasks that it has answers for.
    fn look(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
        if let Some(connection) = self.connection.upgrade() {
            self.other_side.found_readable();
            shared_task::run_chain(&*connection);
        }
    }
}

/// Ends the session when it is dropped, as it is with the runtime.
struct Ends(Arc<Session>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Reads on the runtime of a caller.
async fn read(session: Ends) {
    let session = &session.0;
    let Some(registered) = register(&session.twin) else {
        return;
    };
    if !session.begin() {
        return;
    }
    let over = async {
        select(session.over.wait(), session.reading.ended.wait()).await;
    };
    let reading = async {
        while let Ok(is_last) = registered.readable().await {
            session.look();
            if is_last {
                return;
            }
            // Others on this runtime have their turns, and the end of the session is noticed.
            consume_budget().await;
        }
    };
    select(over, reading).await;
}

fn without_io() -> MutexGuard<'static, Vec<runtime::Id>> {
    WITHOUT_IO.lock().unwrap_or_else(PoisonError::into_inner)
}

fn may_have_io(runtime: runtime::Id) -> bool {
    let without = without_io();
    without.len() < MOST_WITHOUT_IO && !without.contains(&runtime)
}

fn register(twin: &Twin) -> Option<Registered> {
    match catch_unwind(AssertUnwindSafe(|| twin.register())) {
        Ok(registered) => registered.ok(),
        Err(_) => {
            without_io().push(Handle::current().id());
            None
        }
    }
}

#[cfg(test)]
mod tests;
