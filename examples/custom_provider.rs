//! A provider of one's own: its client, and a small lock server for it to talk to.
//!
//! The provider answers acquire, renew and release. Queueing inside the process, timeouts,
//! cancellation, renewal in time, loss and deadlock detection come from the library. The contract
//! between the two is on the page of the trait `LockProvider`.
//!
//! It needs nothing: the server is a part of the example. Two services with a provider each
//! increment a number that stands for something shared. The example fails if an increment is lost,
//! if two of them overlap, or if a lock outlives a client that crashed.
//!
//! ```text
//! cargo run --example custom_provider
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, DistributedLock, FencingToken, Grant, LockError,
    LockErrorKind, LockName, LockProvider, OwnerId, Timestamp, distributed_lock,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

// The provider.

/// How long the server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a waiter pauses between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Locks on the lock server below. Clones talk to the same server.
#[derive(Clone)]
struct TcpProvider {
    address: String,
}

impl TcpProvider {
    /// One request and its answer, on a connection of its own. Every failure means that the server
    /// may have done it or not.
    async fn ask(&self, request: &str) -> Result<String, LockError> {
        let exchange = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_all(format!("{request}\n").as_bytes()).await?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).await?;
            match answer.strip_suffix('\n') {
                Some(answer) => Ok(answer.to_owned()),
                None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        };
        timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
            .map_err(|error| {
                LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail(format!(
                        "the lock server at {} did not answer",
                        self.address
                    ))
                    .with_source(error)
            })
    }

    /// Gives back a grant whose answer was lost, for as long as it could last, since nobody will
    /// use it. It has an owner of its own, so nobody else's lock is in danger.
    fn take_back(&self, name: &LockName, owner: OwnerId, lease: Duration) {
        let provider = self.clone();
        let release = format!("release {owner} {}", encode(name));
        let until = Timestamp::now() + lease;
        // On the library's own runtime, which outlives those of the program.
        tokio::spawn(async move {
            while provider.ask(&release).await.is_err() && !until.has_passed() {
                sleep(PATIENCE / 10).await;
            }
        });
    }

    async fn try_acquire(&self, request: &AcquireRequest) -> Result<Option<Grant>, LockError> {
        let (owner, name) = (request.owner(), encode(request.name()));
        let lease = request.lease().as_millis();
        let tokens = request.tokens_wanted();
        // Before the request is sent: the server's lease can only begin, and end, after ours.
        let sent_at = Timestamp::now();
        let answer = self
            .ask(&format!("acquire {owner} {name} {lease} {tokens}"))
            .await;
        match answer.and_then(|answer| granted(&answer)) {
            Ok(Some(first)) => Ok(Some(
                Grant::new(request, sent_at).with_tokens(first, tokens),
            )),
            Ok(None) => Ok(None),
            Err(error) => {
                self.take_back(request.name(), owner, request.lease());
                Err(error)
            }
        }
    }
}

impl LockProvider for TcpProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("tcp-example")
            .with_lease(Duration::from_secs(10))
            .with_fencing_tokens()
            // A grant can carry a block of tokens, and so serve several waiters of a process.
            .with_local_hand_over()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            loop {
                if let Some(grant) = self.try_acquire(request).await? {
                    return Ok(grant);
                }
                // Leaves nothing on the server: it keeps no queue.
                if !request.waits() || timeout(PAUSE, request.abandoned()).await.is_ok() {
                    return Err(LockErrorKind::Contended.into());
                }
            }
        })
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        Box::pin(async move {
            let (owner, name) = (grant.owner(), encode(grant.name()));
            let lease = grant.lease().as_millis();
            let sent_at = Timestamp::now();
            let answer = self.ask(&format!("renew {owner} {name} {lease}")).await?;
            done(&answer).map(|()| sent_at)
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let (owner, name) = (grant.owner(), encode(grant.name()));
            done(&self.ask(&format!("release {owner} {name}")).await?)
        })
    }
}

/// Reads the answer to an acquisition: the first fencing token, or `None` if somebody else holds
/// the lock.
fn granted(answer: &str) -> Result<Option<FencingToken>, LockError> {
    match answer.split_once(' ') {
        Some(("granted", first)) => match first.parse() {
            Ok(first) => Ok(Some(FencingToken::new(first))),
            Err(_) => Err(strange(answer)),
        },
        None if answer == "held" => Ok(None),
        _ => Err(strange(answer)),
    }
}

/// Reads the answer to a renewal or a release.
fn done(answer: &str) -> Result<(), LockError> {
    match answer {
        "done" => Ok(()),
        "not yours" => Err(LockErrorKind::Lost.into()),
        other => Err(strange(other)),
    }
}

fn strange(answer: &str) -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable)
        .with_detail(format!("the lock server answered `{answer}`"))
}

/// Writes a name as one word. A name may contain anything, spaces and line ends too.
fn encode(name: &LockName) -> String {
    let bytes = name.as_str().bytes();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

// The server: a table in memory, a line for a request, a line for its answer.

struct Server {
    table: Mutex<Table>,
    /// Tells the server to lose its next answer.
    loses_answer: AtomicBool,
}

struct Table {
    /// Who holds a name, and until when.
    held: HashMap<String, (String, Timestamp)>,
    /// Owners who are through, for a minute. An acquisition that was held up on its way and comes
    /// after its own release must not be granted: nobody is waiting for it any more.
    through: HashMap<String, Timestamp>,
    next_token: u64,
}

impl Server {
    async fn start() -> io::Result<(Arc<Self>, String)> {
        // Beginning at the clock, tokens go on growing when the server restarts.
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let server = Arc::new(Self {
            table: Mutex::new(Table {
                held: HashMap::new(),
                through: HashMap::new(),
                next_token: clock.map_or(1, |clock| clock.as_micros() as u64),
            }),
            loses_answer: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(stream));
            }
        });
        Ok((server, address))
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        let mut request = String::new();
        BufReader::new(&mut stream).read_line(&mut request).await?;
        let answer = self
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .answer(request.trim_end());
        if self.loses_answer.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        stream.write_all(format!("{answer}\n").as_bytes()).await
    }
}

impl Table {
    fn answer(&mut self, request: &str) -> String {
        let now = Timestamp::now();
        self.held.retain(|_, (_, expires)| *expires > now);
        self.through.retain(|_, until| *until > now);
        let words: Vec<_> = request.split(' ').collect();
        match words[..] {
            ["acquire", owner, name, lease, tokens] => {
                let (Some(lease), Ok(tokens)) = (millis(lease), tokens.parse::<NonZeroU32>())
                else {
                    return "what?".to_owned();
                };
                if self.held.contains_key(name) || self.through.contains_key(owner) {
                    return "held".to_owned();
                }
                let holder = (owner.to_owned(), now + lease);
                self.held.insert(name.to_owned(), holder);
                let first = self.next_token;
                self.next_token += u64::from(tokens.get());
                format!("granted {first}")
            }
            ["renew", owner, name, lease] => match (self.held.get_mut(name), millis(lease)) {
                (Some((holder, expires)), Some(lease)) if holder == owner => {
                    *expires = now + lease;
                    "done".to_owned()
                }
                _ => "not yours".to_owned(),
            },
            ["release", owner, name] => {
                let until = now + Duration::from_secs(60);
                self.through.insert(owner.to_owned(), until);
                match self.held.get(name) {
                    Some((holder, _)) if holder == owner => {
                        self.held.remove(name);
                        "done".to_owned()
                    }
                    _ => "not yours".to_owned(),
                }
            }
            _ => "what?".to_owned(),
        }
    }
}

fn millis(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

// Two services that use it.

/// Something that only one may change at a time.
#[derive(Default)]
struct Shared {
    value: AtomicU64,
    somebody_is_in: AtomicBool,
    overlaps: AtomicU64,
    last_token: AtomicU64,
    tokens_out_of_order: AtomicU64,
}

struct Service {
    locks: Arc<dyn LockProvider>,
    shared: Arc<Shared>,
}

impl Service {
    #[distributed_lock(
        name = "the shared number",
        timeout = "30s",
        provider = self.locks,
        guard = lock,
    )]
    async fn increment(&self) -> Result<(), LockError> {
        let shared = &self.shared;
        if shared.somebody_is_in.swap(true, Ordering::SeqCst) {
            shared.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        let token = lock.fencing_token().map_or(0, FencingToken::get);
        if shared.last_token.swap(token, Ordering::SeqCst) >= token {
            shared.tokens_out_of_order.fetch_add(1, Ordering::SeqCst);
        }
        let value = shared.value.load(Ordering::SeqCst);
        yield_now().await;
        shared.value.store(value + 1, Ordering::SeqCst);
        shared.somebody_is_in.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// Runs on the default provider.
#[distributed_lock(name = "nightly report", timeout = "10s")]
async fn report() -> Result<(), LockError> {
    Ok(())
}

const SERVICES: u64 = 2;
const TASKS: u64 = 4;
const INCREMENTS: u64 = 50;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (server, address) = Server::start().await?;
    let connect = || TcpProvider {
        address: address.clone(),
    };
    lock_runtime::register(connect())?;

    exclude(connect).await?;
    renew(connect).await?;
    outlive_a_crash(connect()).await?;
    survive_a_lost_answer(&server).await?;

    lock_runtime::shutdown().await;
    Ok(())
}

/// Runs two services with a provider each, as two processes would have, and several tasks in both.
async fn exclude(connect: impl Fn() -> TcpProvider) -> Result<(), Box<dyn Error>> {
    let shared = Arc::new(Shared::default());
    let mut tasks = JoinSet::new();
    for _ in 0..SERVICES {
        let service = Arc::new(Service {
            locks: Arc::new(connect()),
            shared: Arc::clone(&shared),
        });
        for _ in 0..TASKS {
            let service = Arc::clone(&service);
            tasks.spawn(async move {
                for _ in 0..INCREMENTS {
                    service.increment().await?;
                }
                Ok::<_, LockError>(())
            });
        }
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let value = shared.value.load(Ordering::SeqCst);
    let overlaps = shared.overlaps.load(Ordering::SeqCst);
    let disorder = shared.tokens_out_of_order.load(Ordering::SeqCst);
    println!("{SERVICES} services with {TASKS} tasks each, {INCREMENTS} increments a task:");
    println!("  {value} increments kept, {overlaps} overlaps, {disorder} tokens out of order");
    assert_eq!(value, SERVICES * TASKS * INCREMENTS);
    assert_eq!((overlaps, disorder), (0, 0));
    Ok(())
}

/// Holds a lock for longer than its lease, which the library renews.
async fn renew(connect: impl Fn() -> TcpProvider) -> Result<(), Box<dyn Error>> {
    let lease = Duration::from_millis(500);
    let lock = DistributedLock::on(Arc::new(connect()), "long work").lease(lease);
    let elsewhere = DistributedLock::on(Arc::new(connect()), "long work");
    let guard = lock.acquire().await?;
    let other = elsewhere.try_acquire_for(lease * 3).await?;
    println!(
        "held for three times its lease: lost {}, taken by another {}",
        guard.is_lost(),
        other.is_some()
    );
    assert!(!guard.is_lost() && other.is_none());
    guard.release().await?;
    Ok(())
}

/// Takes a lock with a client that is never heard of again, and waits until the lock is free.
async fn outlive_a_crash(provider: TcpProvider) -> Result<(), Box<dyn Error>> {
    let lease = Duration::from_millis(500);
    let began = Timestamp::now();
    let (request, _interest) = AcquireRequest::new("nightly report", lease, false)?;
    provider.acquire(&request).await?;
    report().await?;
    let waited = Timestamp::now().since(began);
    println!("a crashed client's lock was free after {waited:.0?}; its lease was {lease:?}");
    assert!(waited >= lease);
    Ok(())
}

/// Loses the answer to a grant. The caller must not hold the lock then, and neither may the server
/// keep it.
async fn survive_a_lost_answer(server: &Server) -> Result<(), Box<dyn Error>> {
    server.loses_answer.store(true, Ordering::Relaxed);
    let error = report().await.err().ok_or("the answer should be lost")?;
    println!("a lost answer: {error}");
    assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
    let began = Timestamp::now();
    report().await?;
    let waited = Timestamp::now().since(began);
    println!("  what it granted was taken back within {waited:.0?}");
    assert!(waited < Duration::from_secs(5), "not left to its lease");
    Ok(())
}
