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
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::Wake;

    use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisConnectionInfo};
    use tokio::runtime::{Builder, Runtime};

    use super::super::transport;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

    type Job = Box<dyn FnOnce() + Send>;

    /// A connection to a server that the test plays, on a runtime with a thread of its own.
    struct Connected {
        requests: Arc<RequestPipeline>,
        ended: Arc<Signal<()>>,
        server: TcpStream,
        jobs: tokio::sync::mpsc::UnboundedSender<Job>,
    }

    impl Connected {
        fn start(timeout: Duration) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (started, starting) = mpsc::channel();
            let (jobs, mut arriving) = tokio::sync::mpsc::unbounded_channel::<Job>();
            thread::spawn(move || {
                runtime().block_on(async move {
                    // A connection of this kind begins without a request.
                    let server = RedisConnectionInfo::default().set_skip_set_lib_name();
                    let info = format!("redis://{address}").into_connection_info().unwrap();
                    let client = Client::open(info.set_redis_settings(server)).unwrap();
                    let config = AsyncConnectionConfig::new();
                    let opened = transport::open(&client, None, config).await.unwrap();
                    let ended = Arc::new(Signal::new());
                    let requests = RequestPipeline::new(opened, timeout, Arc::clone(&ended));
                    started.send((Arc::new(requests), ended)).unwrap();
                    while let Some(job) = arriving.recv().await {
                        job();
                    }
                    // What was asked for is still answered.
                    tokio::time::sleep(PATIENCE).await;
                });
            });
            let (server, _) = listener.accept().unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let (requests, ended) = starting.recv().unwrap();
            Self {
                requests,
                ended,
                server,
                jobs,
            }
        }

        /// Blocks the connection's own thread until what is returned is dropped.
        fn block(&self) -> mpsc::Sender<()> {
            let (blocking, blocked) = mpsc::channel();
            let (free, until) = mpsc::channel::<()>();
            let block = move || {
                blocking.send(()).unwrap();
                let _ = until.recv();
            };
            self.jobs.send(Box::new(block)).unwrap();
            blocked.recv().unwrap();
            free
        }

        fn ping(&self) -> BoxFuture<'static, RedisResult<Value>> {
            let requests = Arc::clone(&self.requests);
            Box::pin(async move { requests.ask(redis::cmd("PING")).await })
        }

        fn is_asked(&mut self) {
            let mut asked = [0; PING.len()];
            self.server.read_exact(&mut asked).unwrap();
            assert_eq!(asked, PING);
        }

        fn answers(&mut self) {
            self.server.write_all(b"+PONG\r\n").unwrap();
        }
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn is_pending<T>(future: &mut BoxFuture<'static, T>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        future.as_mut().poll(&mut context).is_pending()
    }

    fn pong() -> RedisResult<Value> {
        Ok(Value::SimpleString("PONG".to_owned()))
    }

    /// The thread that the connection lives on does nothing meanwhile.
    #[test]
    fn what_is_asked_for_is_written_when_the_first_poll_returns() {
        let mut connected = Connected::start(PATIENCE);
        let free = connected.block();
        let mut asked = Vec::new();
        let mut asks = |connected: &mut Connected| {
            let mut ping = connected.ping();
            assert!(is_pending(&mut ping));
            connected.is_asked();
            asked.push(ping);
        };
        asks(&mut connected);
        // Something is under way now, and still nobody has to wake up.
        asks(&mut connected);
        runtime().block_on(async { asks(&mut connected) });
        let several = Builder::new_multi_thread().build().unwrap();
        several.block_on(async { asks(&mut connected) });
        // The task that asks has nothing left of its budget.
        runtime().block_on(async {
            let mut spent = false;
            while !spent {
                let mut context = Context::from_waker(Waker::noop());
                spent = pin!(coop::consume_budget()).poll(&mut context).is_pending();
            }
            asks(&mut connected);
        });
        for _ in 0..asked.len() {
            connected.answers();
        }
        drop(free);
        for ping in asked {
            assert_eq!(runtime().block_on(ping), pong());
        }
    }

    #[test]
    fn a_request_that_nobody_waits_for_is_answered_before_the_connection_is_closed() {
        let mut connected = Connected::start(PATIENCE);
        let mut forgotten = connected.ping();
        assert!(is_pending(&mut forgotten));
        drop(forgotten);
        connected.is_asked();
        let Connected {
            requests,
            ended,
            mut server,
            jobs: _jobs,
        } = connected;
        drop(requests);
        let mut asked = [0];
        server
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let open = server.read(&mut asked).map_err(|error| error.kind());
        assert_eq!(open, Err(io::ErrorKind::WouldBlock));
        assert!(ended.get().is_none());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.write_all(b"+PONG\r\n").unwrap();
        assert_eq!(server.read(&mut asked).unwrap(), 0, "it is closed");
        runtime().block_on(ended.wait());
    }

    #[test]
    fn a_child_of_fork_writes_nothing_to_the_connection_of_its_parent() {
        let mut connected = Connected::start(PATIENCE);
        let requests = Arc::get_mut(&mut connected.requests).expect("nobody else has it");
        requests.process += 1;
        let ping = connected.ping();
        assert_eq!(runtime().block_on(ping).unwrap_err().kind(), ErrorKind::Io);
        connected.server.set_nonblocking(true).unwrap();
        let written = connected.server.read(&mut [0; 1]);
        assert_eq!(
            written.map_err(|error| error.kind()),
            Err(io::ErrorKind::WouldBlock)
        );
    }

    #[test]
    fn each_request_has_its_own_time() {
        let limit = Duration::from_millis(400);
        let mut connected = Connected::start(limit);
        let began = Timestamp::now();
        let mut first = connected.ping();
        assert!(is_pending(&mut first));
        thread::sleep(limit / 2);
        let second_began = Timestamp::now();
        let second = connected.ping();
        runtime().block_on(async {
            assert!(first.await.unwrap_err().is_timeout());
            assert!(Timestamp::now().since(began) >= limit);
            assert!(second.await.unwrap_err().is_timeout());
            assert!(Timestamp::now().since(second_began) >= limit);
        });
        // Late answers are nobody else's.
        connected.is_asked();
        connected.is_asked();
        let mut third = connected.ping();
        assert!(is_pending(&mut third));
        connected.is_asked();
        connected
            .server
            .write_all(b"+ONE\r\n+TWO\r\n+PONG\r\n")
            .unwrap();
        assert_eq!(runtime().block_on(third), pong());
    }

    #[test]
    fn an_error_within_an_answer_is_not_the_answer() {
        let mut connected = Connected::start(PATIENCE);
        let free = connected.block();
        let mut first = connected.ping();
        assert!(is_pending(&mut first));
        connected.is_asked();
        drop(free);
        let answers = b"*2\r\n-WRONGTYPE it is a hash\r\n:1\r\n";
        connected.server.write_all(answers).unwrap();
        let Ok(Value::Array(answers)) = runtime().block_on(first) else {
            panic!("expected both parts");
        };
        let error = answers[0].clone().extract_error().unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"));
        assert_eq!(answers[1], Value::Int(1));
        let mut second = connected.ping();
        assert!(is_pending(&mut second));
        connected.is_asked();
        connected.server.write_all(b"-OOM no\r\n").unwrap();
        let error = runtime().block_on(second).unwrap_err();
        assert_eq!(error.code(), Some("OOM"));
    }

    #[test]
    fn a_connection_that_ends_fails_what_is_asked() {
        let mut connected = Connected::start(PATIENCE);
        let mut before = connected.ping();
        assert!(is_pending(&mut before));
        connected.is_asked();
        connected.server.shutdown(std::net::Shutdown::Both).unwrap();
        runtime().block_on(async {
            assert_eq!(before.await.unwrap_err().kind(), ErrorKind::Io);
            connected.ended.wait().await;
            assert_eq!(connected.ping().await.unwrap_err().kind(), ErrorKind::Io);
            let mut commands = Pipeline::new();
            commands.cmd("PING");
            let all = connected.requests.ask_all(commands).await;
            assert_eq!(all.unwrap_err().kind(), ErrorKind::Io);
        });
    }

    /// What runs on the connection's thread goes together, but for the first.
    #[test]
    fn requests_of_the_background_thread_go_together() {
        let mut connected = Connected::start(PATIENCE);
        let mut pings: Vec<_> = (0..4).map(|_| connected.ping()).collect();
        let (asked, asking) = mpsc::channel();
        let (free, until) = mpsc::channel::<()>();
        connected
            .jobs
            .send(Box::new(move || {
                assert!(pings.iter_mut().all(is_pending));
                asked.send(pings).unwrap();
                let _ = until.recv();
            }))
            .unwrap();
        let pings = asking.recv().unwrap();
        connected.is_asked();
        let server = &mut connected.server;
        server.set_nonblocking(true).unwrap();
        let more = server.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(more, Err(io::ErrorKind::WouldBlock));
        server.set_nonblocking(false).unwrap();
        drop(free);
        for _ in 1..4 {
            connected.is_asked();
        }
        for _ in 0..4 {
            connected.answers();
        }
        for ping in pings {
            assert_eq!(runtime().block_on(ping), pong());
        }
    }

    /// They are more than tokio lets a task do in one go.
    #[test]
    fn many_groups_in_one_moment_are_all_sent_and_answered() {
        const MANY: usize = 300;
        let mut connected = Connected::start(PATIENCE);
        let mut first = connected.ping();
        let mut all: Vec<BoxFuture<'static, _>> = Vec::new();
        for _ in 0..MANY {
            let requests = Arc::clone(&connected.requests);
            let mut commands = Pipeline::new();
            commands.cmd("PING");
            all.push(Box::pin(async move { requests.ask_all(commands).await }));
        }
        let (asked, asking) = mpsc::channel();
        let ask = move || {
            assert!(is_pending(&mut first));
            assert!(all.iter_mut().all(is_pending));
            asked.send((first, all)).unwrap();
        };
        connected.jobs.send(Box::new(ask)).unwrap();
        let (first, all) = asking.recv().unwrap();
        for _ in 0..=MANY {
            connected.is_asked();
        }
        connected
            .server
            .write_all(&b"+PONG\r\n".repeat(1 + MANY))
            .unwrap();
        assert_eq!(runtime().block_on(first), pong());
        for answers in all {
            assert_eq!(runtime().block_on(answers), Ok(vec![pong()]));
        }
    }

    #[test]
    fn a_waker_that_panics_is_nobody_elses_concern() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("a user's waker");
            }
        }
        let mut connected = Connected::start(PATIENCE);
        let waker = Waker::from(Arc::new(Panics));
        let mut first = connected.ping();
        let polled = first.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let mut second = connected.ping();
        assert!(is_pending(&mut second));
        for _ in 0..2 {
            connected.is_asked();
            connected.answers();
        }
        assert_eq!(runtime().block_on(second), pong());
        assert!(connected.ended.get().is_none());
    }
}
