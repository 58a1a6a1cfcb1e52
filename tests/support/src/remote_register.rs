//! A fenced register that other processes write to.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::register::FencedRegister;

/// A [`FencedRegister`] on a loopback port, until it is dropped.
#[derive(Debug)]
pub struct RegisterServer {
    register: Arc<FencedRegister>,
    port: u16,
    accepting: JoinHandle<()>,
}

impl RegisterServer {
    /// Starts serving an empty register.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free loopback port");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let register = Arc::new(FencedRegister::default());
        let accepting = {
            let register = Arc::clone(&register);
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(client, Arc::clone(&register)));
                }
            })
        };
        Self {
            register,
            port,
            accepting,
        }
    }

    /// Returns the port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the register, with what was written.
    pub fn register(&self) -> &FencedRegister {
        &self.register
    }
}

impl Drop for RegisterServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves a client. Each line is `read` or `write`, a name and a token; the answer says whether that
/// was accepted.
async fn serve(client: TcpStream, register: Arc<FencedRegister>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (input, mut output) = client.into_split();
    let mut lines = BufReader::new(input).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<_> = line.split(' ').collect();
        let [how, name, token] = words[..] else {
            panic!("a client asked: {line}");
        };
        let token = token.parse().expect("a token");
        let accepted = match how {
            "read" => register.read(name, token),
            _ => register.write(name, token),
        };
        let answer: &[u8] = if accepted {
            b"accepted\n"
        } else {
            b"refused\n"
        };
        output.write_all(answer).await?;
    }
    Ok(())
}

/// The writing side of a [`RegisterServer`], one for each task that writes.
#[derive(Debug)]
pub struct RemoteRegister {
    answers: Lines<BufReader<OwnedReadHalf>>,
    output: OwnedWriteHalf,
}

impl RemoteRegister {
    /// Connects to the register on this loopback port.
    pub async fn connect(port: u16) -> io::Result<Self> {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        server.set_nodelay(true)?;
        let (input, output) = server.into_split();
        Ok(Self {
            answers: BufReader::new(input).lines(),
            output,
        })
    }

    /// Tries a write, and tells whether it was accepted.
    pub async fn write(&mut self, name: &str, token: u64) -> io::Result<bool> {
        self.ask(&format!("write {name} {token}\n")).await
    }

    /// Tries a read, and tells whether it was accepted.
    pub async fn read(&mut self, name: &str, token: u64) -> io::Result<bool> {
        self.ask(&format!("read {name} {token}\n")).await
    }

    async fn ask(&mut self, line: &str) -> io::Result<bool> {
        self.output.write_all(line.as_bytes()).await?;
        let answer = self.answers.next_line().await?;
        Ok(answer.as_deref() == Some("accepted"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writers_share_it() {
        crate::run(std::time::Duration::from_secs(30), async {
            let server = RegisterServer::start().await;
            let mut first = RemoteRegister::connect(server.port()).await.unwrap();
            let mut second = RemoteRegister::connect(server.port()).await.unwrap();
            assert!(first.write("a", 1).await.unwrap());
            assert!(second.write("a", 2).await.unwrap());
            assert!(!first.write("a", 1).await.unwrap());
            assert_eq!(server.register().accepted(), 2);
            assert_eq!(server.register().refused(), 1);
        });
    }
}
