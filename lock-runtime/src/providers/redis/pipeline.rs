//! The requests of one connection: written at once by the thread that asks, and sent together where
//! several are asked for in the same moment.
//!
//! A request of its own costs the client a future of a kilobyte; many of them share one here. All
//! share one timer.

use std::collections::VecDeque;
use std::future::ready;
use std::io;
use std::mem;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::oneshot;
use tokio::task::coop;

use super::reading::Reading;
use super::transport::{Driver, Opened};
use crate::alarm::Alarm;
use crate::clock::Timestamp;
use crate::future::BoxFuture;
use crate::sending::{Unsent, unsent};
use crate::shared_task::{SharedTask, Steps};
use crate::signal::Signal;
use crate::wake::survive;

/// No more than this are sent together. Their answers come together too, and with many of them the
/// server and this process would take turns at being idle.
const TOGETHER: usize = 16;
/// The memory of a queue is kept up to this many requests.
const LARGEST_SPARE: usize = 64;

/// The requests that are due on a connection, and the connection. When this is dropped, the
/// connection is closed as soon as nothing is under way on it.
pub(super) struct RequestPipeline {
    shared: Arc<Shared>,
    exchange: Arc<SharedTask<Exchange>>,
    /// The thread of the background runtime, on which many are asked for in the same moment.
    background: ThreadId,
    /// The process whose connection this is. A child made by `fork` has its socket too.
    process: u32,
    reading: Arc<Reading>,
}

/// What the exchange and those who ask share.
#[derive(Default)]
struct Shared {
    due: Mutex<Due>,
    /// Whether something is under way.
    busy: AtomicBool,
}

#[derive(Default)]
struct Due {
    requests: VecDeque<Request>,
    /// Where it is told that those have been written.
    unsent: Vec<Unsent>,
    state: State,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum State {
    #[default]
    Open,
    /// Nobody can ask any more.
    Closed,
    /// The exchange is over, and nothing is sent any more.
    Ended,
}

enum Request {
    One(Cmd, Answer<Value>),
    All(Pipeline, Answer<Vec<RedisResult<Value>>>),
}

type Answer<T> = oneshot::Sender<RedisResult<T>>;

impl RequestPipeline {
    /// Makes one for a connection, whose requests are answered within a time. To be called on the
    /// runtime that the connection is to live on. The signal is set when the connection has ended.
    pub(super) fn new(opened: Opened, timeout: Duration, ended: Arc<Signal<()>>) -> Self {
        let shared = Arc::<Shared>::default();
        let reading = Reading::new(opened.other_side, Arc::clone(&ended));
        let exchange = Exchange {
            shared: Arc::clone(&shared),
            connection: opened.connection,
            driver: opened.driver,
            spare: VecDeque::new(),
            unsent: Vec::new(),
            under_way: VecDeque::new(),
            timeout,
            alarm: Alarm::default(),
            ended,
        };
        Self {
            shared,
            exchange: SharedTask::start(exchange),
            background: thread::current().id(),
            process: process::id(),
            reading,
        }
    }

    /// Sends a command, after those that were asked for before, and waits for its answer.
    ///
    /// It may be polled on any thread. When its first poll returns on a thread other than the
    /// background one, or with nothing under way on the connection, the command is written, as far
    /// as the socket takes it. The exception is a moment at which another thread is writing or
    /// reading: then that thread writes it next.
    ///
    /// # Cancel safety
    ///
    /// A request that was asked for is sent, even if nobody waits for its answer.
    pub(super) async fn ask(&self, command: Cmd) -> RedisResult<Value> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::One(command, answer), unsent());
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Sends commands in one go, and returns an answer for each, in order. For the rest it is like
    /// [`ask`](Self::ask).
    pub(super) async fn ask_all(&self, commands: Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::All(commands, answer), unsent());
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    fn send(&self, request: Request, unsent: Unsent) {
        let in_background = thread::current().id() == self.background;
        // What a child wrote would come between what its parent writes.
        if !in_background && process::id() != self.process {
            return request.fail(&gone());
        }
        {
            let mut due = self.shared.due();
            if due.state == State::Ended {
                drop(due);
                return request.fail(&broken());
            }
            due.requests.push_back(request);
            if unsent.is_watched() {
                due.unsent.push(unsent);
            }
        }
        if in_background && self.shared.busy.load(Ordering::Relaxed) {
            // What else this thread asks for in this moment goes with it.
            self.exchange.run_soon();
        } else {
            self.exchange.run_here();
            if !in_background {
                self.reading.asked(&self.exchange);
            }
        }
    }
}

impl Drop for RequestPipeline {
    fn drop(&mut self) {
        let mut due = self.shared.due();
        if due.state == State::Open {
            due.state = State::Closed;
        }
        drop(due);
        self.exchange.run_soon();
    }
}

impl Shared {
    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    fn fail(self, error: &RedisError) {
        // Whoever asked may have gone away.
        match self {
            Self::One(_, answer) => drop(answer.send(Err(error.clone()))),
            Self::All(_, answer) => drop(answer.send(Err(error.clone()))),
        }
    }
}

/// Sends what is due, and hands out the answers. The driver of the connection is a part of it, so
/// that one poll takes a request from its queue to the socket.
struct Exchange {
    shared: Arc<Shared>,
    connection: MultiplexedConnection,
    driver: Driver,
    /// An empty queue, which is kept for its memory.
    spare: VecDeque<Request>,
    /// Where it is told that what was taken up has been written.
    unsent: Vec<Unsent>,
    /// What was sent, in this order. The answers come in the same one.
    under_way: VecDeque<Group>,
    timeout: Duration,
    /// Runs out when the oldest request has waited for too long, or before.
    alarm: Alarm,
    ended: Arc<Signal<()>>,
}

/// What was sent together.
struct Group {
    sent_at: Timestamp,
    answer: Asking,
    waiting: Waiting,
}

type Asking = BoxFuture<'static, RedisResult<Value>>;

/// Who waits for a group's answer.
enum Waiting {
    One(Answer<Value>),
    Each(Vec<Answer<Value>>),
    All(Answer<Vec<RedisResult<Value>>>),
}

/// What a step has for others.
enum News {
    Answer(Waiting, RedisResult<Value>),
    /// A request has been written, as far as the socket takes it. If that is not `exactly` so, it
    /// has come to the client's task.
    Sent {
        unsent: Unsent,
        exactly: bool,
    },
}

impl Exchange {
    /// Sends a group as far as the driver's queue, which has room for it.
    fn begin(
        &mut self,
        asking: impl Future<Output = RedisResult<Value>> + Send + 'static,
        waiting: Waiting,
    ) {
        // Without a budget left it would wait to be woken, and nothing wakes it but the driver.
        let mut answer: Asking = Box::pin(tokio::task::unconstrained(asking));
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(failed) = answer.as_mut().poll(&mut context) {
            answer = Box::pin(ready(failed));
        }
        self.under_way.push_back(Group {
            sent_at: Timestamp::now(),
            answer,
            waiting,
        });
    }

    fn begin_one(&mut self, command: Cmd, answer: Answer<Value>) {
        let mut connection = self.connection.clone();
        let asking = async move { connection.send_packed_command(&command).await };
        self.begin(asking, Waiting::One(answer));
    }

    fn begin_all(&mut self, commands: Pipeline, waiting: Waiting) {
        let mut connection = self.connection.clone();
        let asking = async move {
            let count = commands.len();
            let answers = connection.send_packed_commands(&commands, 0, count).await;
            answers.map(Value::Array)
        };
        self.begin(asking, waiting);
    }

    /// Hands out the answers that are there.
    fn collect(&mut self, context: &mut Context<'_>, news: &mut Vec<News>) {
        while let Some(oldest) = self.under_way.front_mut()
            && let Poll::Ready(answer) = oldest.answer.as_mut().poll(context)
            && let Some(oldest) = self.under_way.pop_front()
        {
            news.push(News::Answer(oldest.waiting, answer));
        }
    }

    /// Gives up what has no answer after the time that it may take.
    fn give_up(&mut self, context: &mut Context<'_>, news: &mut Vec<News>) {
        while let Some(oldest) = self.under_way.front()
            && self
                .alarm
                .poll_at(oldest.sent_at + self.timeout, context)
                .is_ready()
            && let Some(oldest) = self.under_way.pop_front()
        {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            news.push(News::Answer(oldest.waiting, Err(late.into())));
        }
    }
}

impl Steps for Exchange {
    type News = News;

    fn take_up(&mut self) {
        let mut requests = mem::take(&mut self.spare);
        {
            let mut due = self.shared.due();
            mem::swap(&mut requests, &mut due.requests);
            self.unsent.append(&mut due.unsent);
        }
        while let Some(request) = requests.pop_front() {
            let (command, answer) = match request {
                Request::One(command, answer) => (command, answer),
                Request::All(commands, answer) => {
                    self.begin_all(commands, Waiting::All(answer));
                    continue;
                }
            };
            if !matches!(requests.front(), Some(Request::One(..))) {
                self.begin_one(command, answer);
                continue;
            }
            let mut together = Pipeline::with_capacity(TOGETHER.min(1 + requests.len()));
            together.add_command(command);
            let mut waiting = vec![answer];
            while waiting.len() < TOGETHER
                && let Some(Request::One(..)) = requests.front()
                && let Some(Request::One(command, answer)) = requests.pop_front()
            {
                together.add_command(command);
                waiting.push(answer);
            }
            self.begin_all(together, Waiting::Each(waiting));
        }
        if requests.capacity() <= LARGEST_SPARE {
            self.spare = requests;
        }
    }

    fn step(&mut self, context: &mut Context<'_>, news: &mut Vec<Self::News>) -> Poll<()> {
        let driven = self.driver.poll(context);
        if coop::has_budget_remaining() {
            let exactly = matches!(self.driver, Driver::Ours(_));
            let unsent = self.unsent.drain(..);
            news.extend(unsent.map(|unsent| News::Sent { unsent, exactly }));
        }
        // Only the driver brings an answer, and it has just been polled.
        let quietly = &mut Context::from_waker(Waker::noop());
        match self.driver {
            Driver::Ours(_) => self.collect(quietly, news),
            Driver::OfClient => self.collect(context, news),
        }
        if driven.is_ready() {
            return Poll::Ready(());
        }
        self.give_up(context, news);
        let busy = !self.under_way.is_empty();
        self.shared.busy.store(busy, Ordering::Relaxed);
        let due = self.shared.due();
        match !busy && due.requests.is_empty() && due.state == State::Closed {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn hand_out(news: Self::News) {
        let (waiting, answer) = match news {
            News::Sent {
                unsent,
                exactly: true,
            } => return unsent.written(),
            News::Sent { unsent, .. } => return drop(unsent),
            News::Answer(waiting, answer) => (waiting, answer),
        };
        let each = |answer: RedisResult<Value>| match answer {
            Ok(Value::Array(answers)) => Ok(answers.into_iter().map(outcome)),
            // No server answers a pipeline with less.
            Ok(_) => Err(gone()),
            Err(error) => Err(error),
        };
        // Whoever asked may have gone away.
        match waiting {
            Waiting::One(waiter) => drop(waiter.send(answer.and_then(outcome))),
            Waiting::All(waiter) => drop(waiter.send(each(answer).map(Iterator::collect))),
            Waiting::Each(waiters) => match each(answer) {
                Ok(answers) => {
                    for (waiter, answer) in waiters.into_iter().zip(answers) {
                        survive(|| drop(waiter.send(answer)));
                    }
                }
                Err(error) => {
                    for waiter in waiters {
                        let error = error.clone();
                        survive(|| drop(waiter.send(Err(error))));
                    }
                }
            },
        }
    }
}

impl Drop for Exchange {
    /// Ends the connection, whether its driver has come to its end or has panicked.
    fn drop(&mut self) {
        let mut due = self.shared.due();
        due.state = State::Ended;
        let requests = mem::take(&mut due.requests);
        drop(due);
        self.ended.set(());
        for request in requests {
            survive(|| request.fail(&broken()));
        }
        // Nobody is left to answer these, and their answers say so.
        while let Some(group) = self.under_way.pop_front() {
            survive(|| drop(group));
        }
    }
}

/// Returns the error that a command was answered with. One within an answer concerns a part of it.
fn outcome(answer: Value) -> RedisResult<Value> {
    match answer {
        Value::ServerError(error) => Err(error.into()),
        answer => Ok(answer),
    }
}

fn gone() -> RedisError {
    (ErrorKind::Io, "the connection was given up").into()
}

/// The client's error for a connection that has ended.
fn broken() -> RedisError {
    io::Error::from(io::ErrorKind::BrokenPipe).into()
}

#[cfg(test)]
pub(super) mod tests;
