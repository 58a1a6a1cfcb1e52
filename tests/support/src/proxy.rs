//! A TCP proxy that breaks connections on command. It counts, so that a test can show that the
//! fault happened.

use std::hint::spin_loop;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// The pieces that may be under way in one direction.
const UNDER_WAY: usize = 1024;
/// The runtime's timers fire up to this long after they are due.
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// The system wakes a thread up to about this long after its time.
const WAKE_SLACK: Duration = Duration::from_micros(100);

/// The treatment of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They pass, each piece after this long, as on a long line: pieces do not wait for each other.
    Delay(Duration),
    /// They vanish, and the connection stays open. Once something of a connection has vanished,
    /// nothing passes on it in this direction any more, whatever the flow: TCP loses no part of a
    /// stream.
    Swallow,
    /// They wait in front of the proxy until the flow is changed.
    Hold,
    /// This direction is closed, in the orderly way, and the other one goes on.
    Cut,
}

/// The fault that the proxy makes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkFault {
    /// The flow from the client to the server.
    pub to_server: Flow,
    /// The flow from the server to the client.
    pub to_client: Flow,
    /// Whether new connections are closed as soon as they are accepted.
    pub refuse: bool,
    /// Whether the other end is not told when one end closes a connection, as if that were lost
    /// too.
    pub hides_close: bool,
    /// A number that is raised to reset every open connection.
    resets: u64,
    /// A number that is raised to strand every open connection.
    strandings: u64,
}

/// The bytes and connections since the proxy started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Bytes that reached the server.
    pub to_server: AtomicU64,
    /// Bytes that reached the client.
    pub to_client: AtomicU64,
    /// Bytes of either direction that are or were delayed.
    pub delayed: AtomicU64,
    /// Bytes of either direction that vanished.
    pub swallowed: AtomicU64,
    /// Connections that were passed on.
    pub connections: AtomicU64,
    /// Connections that were refused.
    pub refused: AtomicU64,
    /// Connections that were cut or reset.
    pub broken: AtomicU64,
}

/// A proxy on a loopback port in front of a server. It ends, with its connections, when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    server_port: Arc<AtomicU16>,
    fault: watch::Sender<NetworkFault>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Listens and passes everything on to this loopback port.
    pub async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free loopback port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let (fault, watched) = watch::channel(NetworkFault::default());
        let counts = Arc::new(Counts::default());
        let server_port = Arc::new(AtomicU16::new(server_port));
        let accepting = tokio::spawn(accept(
            listener,
            server_port.clone(),
            watched,
            counts.clone(),
        ));
        Self {
            address,
            server_port,
            fault,
            counts,
            accepting,
        }
    }

    /// Returns the port on which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Passes new connections on to this loopback port, as an address that moves to another server
    /// does. Those that are counted in [`Counts::connections`] stay with theirs.
    pub fn lead_to(&self, server_port: u16) {
        self.server_port.store(server_port, Ordering::Relaxed);
    }

    /// Changes what it does, for open connections too.
    pub fn set(&self, change: impl FnOnce(&mut NetworkFault)) {
        self.fault.send_modify(change);
    }

    /// Passes everything again.
    pub fn heal(&self) {
        self.set(|fault| {
            *fault = NetworkFault {
                resets: fault.resets,
                strandings: fault.strandings,
                ..NetworkFault::default()
            }
        });
    }

    /// Resets every connection that is counted in [`Counts::connections`]; new ones work.
    pub fn reset(&self) {
        self.set(|fault| fault.resets += 1);
    }

    /// Strands every connection that is counted in [`Counts::connections`]. Nothing passes on it
    /// any more in either direction, and neither end is told when the other one closes it. New
    /// connections work.
    pub fn strand(&self) {
        self.set(|fault| fault.strandings += 1);
    }

    /// Returns what has passed so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns how many bytes have vanished.
    pub fn swallowed(&self) -> u64 {
        self.counts.swallowed.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // The connections see that the channel is closed.
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server_port: Arc<AtomicU16>,
    fault: watch::Receiver<NetworkFault>,
    counts: Arc<Counts>,
) {
    while let Ok((client, _)) = listener.accept().await {
        if fault.borrow().refuse {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        tokio::spawn(connection(
            client,
            server_port.load(Ordering::Relaxed),
            fault.clone(),
            counts.clone(),
        ));
    }
}

async fn connection(
    client: TcpStream,
    server_port: u16,
    fault: watch::Receiver<NetworkFault>,
    counts: Arc<Counts>,
) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut resets = fault.clone();
    let seen = resets.borrow().resets;
    counts.connections.fetch_add(1, Ordering::Relaxed);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let strandings = fault.borrow().strandings;
    let up = pump(
        &mut from_client,
        &mut to_server,
        fault.clone(),
        (Direction::ToServer, strandings),
        &counts,
    );
    let down = pump(
        &mut from_server,
        &mut to_client,
        fault,
        (Direction::ToClient, strandings),
        &counts,
    );
    tokio::select! {
        // Each direction closes the other end by itself; the connection is over after both.
        _ = async { tokio::join!(up, down) } => return,
        // An error says that the proxy is gone.
        _ = resets.wait_for(|fault| fault.resets != seen) => {}
    }
    counts.broken.fetch_add(1, Ordering::Relaxed);
    // Closed without lingering, a socket sends a reset; the halves would end the stream properly.
    let _ = from_client.as_ref().set_zero_linger();
    let _ = from_server.as_ref().set_zero_linger();
    to_client.forget();
    to_server.forget();
}

#[derive(Clone, Copy)]
enum Direction {
    ToServer,
    ToClient,
}

impl Direction {
    fn flow(self, fault: &NetworkFault) -> Flow {
        match self {
            Self::ToServer => fault.to_server,
            Self::ToClient => fault.to_client,
        }
    }

    fn passed(self, counts: &Counts) -> &AtomicU64 {
        match self {
            Self::ToServer => &counts.to_server,
            Self::ToClient => &counts.to_client,
        }
    }
}

/// Some bytes, and when they arrive if they are delayed.
struct Piece {
    due: Option<Instant>,
    bytes: Vec<u8>,
}

async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    fault: watch::Receiver<NetworkFault>,
    (direction, strandings): (Direction, u64),
    counts: &Counts,
) {
    let (under_way, arriving) = mpsc::channel(UNDER_WAY);
    tokio::join!(
        take(
            from,
            under_way,
            fault.clone(),
            (direction, strandings),
            counts
        ),
        deliver(arriving, to, direction.passed(counts)),
    );
    if direction.flow(&fault.borrow()) == Flow::Cut {
        counts.broken.fetch_add(1, Ordering::Relaxed);
    }
    let _ = to.shutdown().await;
}

/// Takes pieces from one end, until it closes or this direction is cut.
async fn take(
    from: &mut OwnedReadHalf,
    under_way: mpsc::Sender<Piece>,
    mut fault: watch::Receiver<NetworkFault>,
    (direction, strandings): (Direction, u64),
    counts: &Counts,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut has_swallowed = false;
    loop {
        // A cut does not wait for a byte.
        let read = tokio::select! {
            biased;
            _ = fault.wait_for(|fault| direction.flow(fault) == Flow::Cut) => break,
            () = under_way.closed() => break,
            read = from.read(&mut buffer) => read,
        };
        let Ok(length @ 1..) = read else {
            let shows = |fault: &NetworkFault| !fault.hides_close && fault.strandings == strandings;
            let _ = fault.wait_for(shows).await;
            break;
        };
        // What counts is what the proxy was told before the bytes go on.
        if fault
            .wait_for(|fault| direction.flow(fault) != Flow::Hold)
            .await
            .is_err()
        {
            break;
        }
        let flow = match fault.borrow().strandings == strandings {
            true => direction.flow(&fault.borrow()),
            false => Flow::Swallow,
        };
        let due = match flow {
            Flow::Cut => break,
            _ if has_swallowed || flow == Flow::Swallow => {
                has_swallowed = true;
                counts.swallowed.fetch_add(length as u64, Ordering::Relaxed);
                continue;
            }
            Flow::Delay(delay) => {
                counts.delayed.fetch_add(length as u64, Ordering::Relaxed);
                Some(Instant::now() + delay)
            }
            Flow::Pass | Flow::Hold | Flow::Swallow => None,
        };
        let bytes = buffer[..length].to_vec();
        if under_way.send(Piece { due, bytes }).await.is_err() {
            break;
        }
    }
}

/// Delivers pieces to the other end, in their order, until there are no more or it is gone.
async fn deliver(mut arriving: mpsc::Receiver<Piece>, to: &mut OwnedWriteHalf, passed: &AtomicU64) {
    while let Some(Piece { due, bytes }) = arriving.recv().await {
        if let Some(due) = due {
            sleep_until(due).await;
        }
        // Counted before the peer can have seen them, so that a test never finds too few.
        passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
}

/// Sleeps until then. The last part is a thread's sleep, since the runtime's timers know only whole
/// milliseconds, and the end of that is no sleep, since the system wakes it late.
async fn sleep_until(due: Instant) {
    let left = || due.saturating_duration_since(Instant::now());
    if left() > TIMER_SLACK {
        tokio::time::sleep(left() - TIMER_SLACK).await;
    }
    let left = left();
    if !left.is_zero() {
        let sleep = move || {
            thread::sleep(left.saturating_sub(WAKE_SLACK));
            while Instant::now() < due {
                spin_loop();
            }
        };
        let _ = tokio::task::spawn_blocking(sleep).await;
    }
}

#[cfg(test)]
mod tests;
