//! Space of a test's own: directories, ports, names.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tokio::net::TcpSocket;

/// A text that no other test, run or process has: 16 hexadecimal digits.
pub fn unique() -> String {
    format!(
        "{:016x}",
        getrandom::u64().expect("the system has random numbers")
    )
}

/// A loopback port that nothing listens on. Somebody else may take it before it is used; a server
/// that finds it taken is started again on another one.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// A loopback address at which nobody listens, and nobody else can until this is dropped.
#[derive(Debug)]
pub struct BlackHole(TcpSocket);

impl BlackHole {
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

impl Default for BlackHole {
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
