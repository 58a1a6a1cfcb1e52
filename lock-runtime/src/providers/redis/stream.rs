//! `Stream`: the socket of a connection, which the background runtime reads or, for a while, the
//! runtime of a caller.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use redis::io::tcp::socket2::SockRef;
use rustix::io::{Errno, ioctl_fionread};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net;

/// A socket of one of the kinds that a connection has.
pub(super) trait Socket: AsyncRead + AsyncWrite + AsFd + Unpin + Send + Sized {
    /// Registers a socket with the current runtime.
    fn register(socket: OwnedFd) -> io::Result<Self>;

    /// Takes back the registration.
    fn deregister(self) -> io::Result<OwnedFd>;

    /// Puts a twin into the kind that it is of.
    fn twin(registered: Self) -> Registered;
}

impl Socket for net::TcpStream {
    fn register(socket: OwnedFd) -> io::Result<Self> {
        Self::from_std(socket.into())
    }

    fn deregister(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }

    fn twin(registered: Self) -> Registered {
        Registered::Tcp(registered)
    }
}

impl Socket for net::UnixStream {
    fn register(socket: OwnedFd) -> io::Result<Self> {
        Self::from_std(socket.into())
    }

    fn deregister(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }

    fn twin(registered: Self) -> Registered {
        Registered::Unix(registered)
    }
}

/// The two ends of the agreement on who reads.
#[derive(Default)]
struct Flags {
    /// Whether the runtime of a caller reads, and the background runtime need not look.
    is_read_elsewhere: AtomicBool,
    /// That runtime has found something to read.
    is_readable: AtomicBool,
    /// Whether that runtime is to get the socket.
    is_wanted: AtomicBool,
    socket: Mutex<Option<OwnedFd>>,
}

impl Flags {
    fn socket(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket, as the connection has it. It is polled within the background runtime.
pub(super) struct Stream<S: Socket> {
    state: State<S>,
    flags: Arc<Flags>,
    /// The process that opened it. A child made by `fork` has it too.
    process: u32,
}

enum State<S> {
    /// The background runtime is told when there is something to read.
    Registered(S),
    /// Only the runtime of a caller is.
    Loose(OwnedFd),
    /// It failed between the two.
    Gone,
}

impl<S: Socket> Stream<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            state: State::Registered(socket),
            flags: Arc::default(),
            process: process::id(),
        }
    }

    /// Returns the side of a caller's runtime.
    pub(super) fn other_side(&self) -> OtherSide {
        OtherSide {
            register: |socket| S::register(socket).map(S::twin),
            flags: Arc::clone(&self.flags),
        }
    }

    /// Does what the other side wants: hands out the socket, and registers it with the background
    /// runtime or takes that back.
    fn attend(&mut self) -> io::Result<()> {
        if self.flags.is_wanted.load(Ordering::Relaxed) {
            self.flags.is_wanted.store(false, Ordering::Relaxed);
            let twin = self.socket()?.try_clone_to_owned()?;
            *self.flags.socket() = Some(twin);
        }
        self.agree()
    }

    fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.state {
            State::Registered(socket) => Ok(socket.as_fd()),
            State::Loose(socket) => Ok(socket.as_fd()),
            State::Gone => Err(gone()),
        }
    }

    fn agree(&mut self) -> io::Result<()> {
        let elsewhere = self.flags.is_read_elsewhere.load(Ordering::Acquire);
        match &self.state {
            State::Registered(_) if !elsewhere => return Ok(()),
            State::Loose(_) if elsewhere => return Ok(()),
            _ => {}
        }
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::Registered(socket) => State::Loose(socket.deregister()?),
            State::Loose(socket) => State::Registered(S::register(socket)?),
            State::Gone => return Err(gone()),
        };
        Ok(())
    }

    /// Reads without asking the background runtime whether there is something. `None` if there is
    /// nothing.
    fn read_now(&self, buffer: &mut ReadBuf<'_>) -> io::Result<Option<()>> {
        let socket = self.socket()?;
        let room = buffer.remaining();
        let is_readable = &self.flags.is_readable;
        // Cleared before the read, so that what comes during it counts.
        while is_readable.swap(false, Ordering::AcqRel) {
            match rustix::io::read(socket, buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    // A buffer that is full may have left something.
                    if read == room {
                        is_readable.store(true, Ordering::Release);
                    }
                    return Ok(Some(()));
                }
                Err(Errno::INTR) => is_readable.store(true, Ordering::Release),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

impl<S: Socket> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.attend()?;
        if self.flags.is_readable.load(Ordering::Relaxed) && self.read_now(buffer)?.is_some() {
            return Poll::Ready(Ok(()));
        }
        match &mut self.state {
            State::Registered(socket) => Pin::new(socket).poll_read(context, buffer),
            // Whoever reads elsewhere, or ceases to, has the connection polled.
            State::Loose(_) => Poll::Pending,
            State::Gone => Poll::Ready(Err(gone())),
        }
    }
}

impl<S: Socket> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.agree()?;
        while let State::Loose(socket) = &self.state {
            match rustix::io::write(socket, bytes) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Only the background runtime waits for room.
                    self.flags.is_read_elsewhere.store(false, Ordering::Release);
                    self.agree()?;
                }
                written => return Poll::Ready(written.map_err(io::Error::from)),
            }
        }
        match &mut self.state {
            State::Registered(socket) => Pin::new(socket).poll_write(context, bytes),
            State::Loose(_) | State::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket keeps nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Registered(socket) => Pin::new(socket).poll_shutdown(context),
            State::Loose(socket) => Poll::Ready(SockRef::from(&*socket).shutdown(Shutdown::Write)),
            State::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl<S: Socket> Drop for Stream<S> {
    /// Ends the connection, even while its twin is still there.
    fn drop(&mut self) {
        if process::id() != self.process {
            return;
        }
        if let Ok(socket) = self.socket() {
            // It fails if the server has ended the connection before.
            let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
        }
        drop(self.flags.socket().take());
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// The side of a caller's runtime.
#[derive(Clone)]
pub(super) struct OtherSide {
    register: fn(OwnedFd) -> io::Result<Registered>,
    flags: Arc<Flags>,
}

impl OtherSide {
    /// Takes the socket, once more than the connection has it. If it is not there yet, it will be
    /// when the connection has been polled.
    pub(super) fn take(&self) -> Option<Twin> {
        let Some(socket) = self.flags.socket().take() else {
            self.flags.is_wanted.store(true, Ordering::Relaxed);
            return None;
        };
        Some(Twin {
            socket,
            register: self.register,
        })
    }

    /// Says whether the runtime of a caller reads from now on. The connection is to be polled after
    /// it.
    pub(super) fn read_elsewhere(&self, elsewhere: bool) {
        let is_read_elsewhere = &self.flags.is_read_elsewhere;
        is_read_elsewhere.store(elsewhere, Ordering::Release);
    }

    /// Says that there is something to read. The connection is to be polled after it.
    pub(super) fn found_readable(&self) {
        self.flags.is_readable.store(true, Ordering::Release);
    }
}

/// The socket of a connection once more.
pub(super) struct Twin {
    socket: OwnedFd,
    register: fn(OwnedFd) -> io::Result<Registered>,
}

impl Twin {
    /// Registers it with the current runtime.
    ///
    /// # Panics
    ///
    /// If that runtime has no I/O. There is no other way to learn that.
    pub(super) fn register(&self) -> io::Result<Registered> {
        (self.register)(self.socket.try_clone()?)
    }

    /// Tells whether there are bytes that nobody has read.
    pub(super) fn has_unread(&self) -> bool {
        ioctl_fionread(&self.socket).is_ok_and(|bytes| bytes > 0)
    }
}

/// A twin that is registered with the runtime of a caller.
pub(super) enum Registered {
    Tcp(net::TcpStream),
    Unix(net::UnixStream),
}

impl Registered {
    /// Waits until something has come that was not there the last time. True if nothing more will
    /// come, because the connection has ended; from then on this waits no more.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped, and made again.
    pub(super) async fn readable(&self) -> io::Result<bool> {
        // The runtime forgets what it knew, since an operation says that there is nothing.
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        match self {
            Self::Tcp(socket) => {
                let ready = socket.ready(Interest::READABLE).await?;
                let _ = socket.try_io(Interest::READABLE, nothing);
                Ok(ready.is_read_closed())
            }
            Self::Unix(socket) => {
                let ready = socket.ready(Interest::READABLE).await?;
                let _ = socket.try_io(Interest::READABLE, nothing);
                Ok(ready.is_read_closed())
            }
        }
    }
}
