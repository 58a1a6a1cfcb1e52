//! A connection to a server that the test plays.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::sync::mpsc;
use std::task::Wake;

use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisConnectionInfo};
use tokio::runtime::{Builder, Runtime};

use super::super::client::Server;
use super::super::transport;
use super::*;

pub(in super::super) const PATIENCE: Duration = Duration::from_secs(30);
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

type Job = Box<dyn FnOnce() + Send>;

/// A connection to a server that the test plays, on a runtime with a thread of its own.
pub(in super::super) struct Connected {
    requests: Arc<RequestPipeline>,
    ended: Arc<Signal<()>>,
    pub(in super::super) server: TcpStream,
    jobs: tokio::sync::mpsc::UnboundedSender<Job>,
}

impl Connected {
    pub(in super::super) fn start(timeout: Duration) -> Self {
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
                let server = Server::of(client);
                let opened = transport::open(&server, config).await.unwrap();
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
    pub(in super::super) fn block(&self) -> mpsc::Sender<()> {
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

    pub(in super::super) fn ping(&self) -> BoxFuture<'static, RedisResult<Value>> {
        let requests = Arc::clone(&self.requests);
        Box::pin(async move { requests.ask(redis::cmd("PING")).await })
    }

    pub(in super::super) fn is_asked(&mut self) {
        let mut asked = [0; PING.len()];
        self.server.read_exact(&mut asked).unwrap();
        assert_eq!(asked, PING);
    }

    pub(in super::super) fn answers(&mut self) {
        self.server.write_all(b"+PONG\r\n").unwrap();
    }
}

pub(in super::super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(in super::super) fn is_pending<T>(future: &mut BoxFuture<'static, T>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    future.as_mut().poll(&mut context).is_pending()
}

pub(in super::super) fn pong() -> RedisResult<Value> {
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
