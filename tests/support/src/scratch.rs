//! Space of a test's own: directories, ports, names.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tokio::net::TcpSocket;

/// Ports for servers of tests. Linux gives ports from 32768 on to whoever does not choose one, other
/// systems from 49152 on.
const CHOSEN_PORTS: Range<u16> = 10_240..32_768;

/// A text that no other test, run or process has: 16 hexadecimal digits.
pub fn unique() -> String {
    format!(
        "{:016x}",
        getrandom::u64().expect("the system has random numbers")
    )
}

/// Returns a loopback port that nothing listens on, and that this process has not returned before.
///
/// A server need not listen on its port all the time: it may be stopped for a while, and a member of
/// an ensemble opens one only once it leads. So the port lies below those that the system gives to
/// connections and to listeners on port 0. A server that finds it taken is started on another one.
pub fn free_port() -> u16 {
    static RETURNED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut returned = RETURNED.lock().expect("nothing panics under this lock");
    for _ in 0..10_000 {
        let random = getrandom::u32().expect("the system has random numbers");
        let span = u32::from(CHOSEN_PORTS.end - CHOSEN_PORTS.start);
        let port = CHOSEN_PORTS.start + u16::try_from(random % span).expect("less than the span");
        let is_free = || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if !returned.contains(&port) && is_free() {
            returned.insert(port);
            return port;
        }
    }
    panic!("none of the loopback ports {CHOSEN_PORTS:?} is free");
}

/// A loopback address at which nobody listens, and nobody else can until this is dropped.
#[derive(Debug)]
pub struct ClosedPort(TcpSocket);

impl ClosedPort {
    /// An address that nobody has.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(any).expect("a free loopback port");
        Self(socket)
    }

    /// Which one it is.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket has an address")
    }
}

impl Default for ClosedPort {
    fn default() -> Self {
        Self::new()
    }
}

/// A directory that is removed, with everything in it, when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty directory below the system's temporary one.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("lock-tests-{}", unique()));
        std::fs::create_dir(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A place in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
