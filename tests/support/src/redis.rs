//! A real Redis (or Valkey) server for a test.

use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::certificates::Tls;
use crate::child::ChildProcess;
use crate::scratch::{Scratch, free_port};
use crate::skip;

mod command;
pub mod sentinel;

/// The variable that names another program than `redis-server` or `valkey-server`.
pub const PROGRAM: &str = "LOCK_TESTS_REDIS_SERVER";

/// The rights that a service with the key prefix `MyApp1:` needs, as they are documented.
pub const LEAST_PRIVILEGE: &str = "resetchannels ~MyApp1:* ~{MyApp1:* &MyApp1:lk1:grants:* \
    +hello +eval +evalsha +subscribe +publish +pubsub|numsub +time +get +set +del +exists \
    +pexpire +pttl +lpop +rpush +lpos +lrange +lindex +lset +lrem \
    +sadd +srem +scard +sismember \
    +zadd +zrem +zcard +zscore +zrange +zrangebyscore +zremrangebyscore";

const START_BOUND: Duration = Duration::from_secs(10);

/// Options for the start of a [`RedisServer`].
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    persistent: bool,
    acl: Vec<String>,
    config: Vec<String>,
    tls: Option<Tls>,
}

impl RedisOptions {
    /// Keeps data over a restart, by an append-only file that is synced at every write.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Adds a line of an ACL file, such as `user app on >secret ~* &* +@all`.
    #[must_use]
    pub fn acl(mut self, line: &str) -> Self {
        self.acl.push(line.to_owned());
        self
    }

    /// Adds a line of the configuration file.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }

    /// Listens with TLS too, on [`RedisServer::tls_port`].
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Starts the server and waits until it answers. `None` where none is installed, see [`skip`].
    pub fn start(self) -> Option<RedisServer> {
        let program = skip::find_server("redis", PROGRAM, &["redis-server", "valkey-server"])?;
        for _ in 0..5 {
            let scratch = Scratch::new();
            let mut server = RedisServer {
                process: None,
                program: program.clone(),
                port: free_port(),
                tls_port: self.tls.as_ref().map(|_| free_port()),
                scratch,
                options: self.clone(),
            };
            if server.start().is_ok() {
                return Some(server);
            }
        }
        panic!("redis-server did not start in five attempts; its log is above");
    }
}

/// A server of a test's own, which ends with it.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<ChildProcess>,
    program: PathBuf,
    port: u16,
    tls_port: Option<u16>,
    scratch: Scratch,
    options: RedisOptions,
}

impl RedisServer {
    /// Starts a server without persistence, password or TLS. `None` where none is installed.
    pub fn start_plain() -> Option<Self> {
        RedisOptions::default().start()
    }

    /// Returns the port on which it listens on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the port on which it listens with TLS.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls_port
    }

    /// Returns its URL, without credentials or parameters.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns the running process.
    ///
    /// # Panics
    ///
    /// If the server was [killed](Self::kill).
    pub fn process(&self) -> &ChildProcess {
        self.process.as_ref().expect("the server was killed")
    }

    /// Sends a command to a server without a password, and returns the texts in its answer.
    pub fn ask(&self, command: &str) -> Vec<String> {
        command::ask(self.port, None, command).unwrap_or_default()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills it and starts it again on the same port, with the data it has persisted.
    pub fn restart(&mut self) {
        self.kill();
        self.start().expect("the server starts again");
    }

    /// Kills it and starts it again on the same port, without any data.
    pub fn restart_empty(&mut self) {
        self.kill();
        for left in ["appendonlydir", "dump.rdb"] {
            let path = self.scratch.join(left);
            let _ = std::fs::remove_dir_all(&path);
            let _ = std::fs::remove_file(&path);
        }
        self.start().expect("the server starts again");
    }

    fn start(&mut self) -> Result<(), String> {
        let configuration = self.scratch.join("redis.conf");
        std::fs::write(&configuration, self.configuration()).map_err(|error| error.to_string())?;
        if !self.options.acl.is_empty() {
            std::fs::write(
                self.scratch.join("users.acl"),
                self.options.acl.join("\n") + "\n",
            )
            .map_err(|error| error.to_string())?;
        }
        let mut command = Command::new(&self.program);
        command.arg(&configuration).current_dir(self.scratch.path());
        let mut process = ChildProcess::spawn(command, &self.scratch.join("redis.log"))
            .map_err(|error| error.to_string())?;
        let deadline = Instant::now() + START_BOUND;
        while !answers(self.port) {
            if process.exit_status().is_some() || Instant::now() > deadline {
                let log = process.log();
                eprintln!("redis-server did not start:\n{log}");
                return Err(log);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
        Ok(())
    }

    fn configuration(&self) -> String {
        let mut text = format!(
            "bind 127.0.0.1\nport {}\ndir {}\ndaemonize no\n",
            self.port,
            self.scratch.path().display()
        );
        text += match self.options.persistent {
            true => "appendonly yes\nappendfsync always\n",
            false => "appendonly no\nsave \"\"\n",
        };
        if !self.options.acl.is_empty() {
            let _ = writeln!(text, "aclfile {}", self.scratch.join("users.acl").display());
        }
        if let (Some(tls), Some(port)) = (&self.options.tls, self.tls_port) {
            let _ = writeln!(
                text,
                "tls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
                 tls-auth-clients no",
                tls.certificate.display(),
                tls.key.display(),
                tls.ca.display()
            );
        }
        for line in &self.options.config {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// Tells whether a server answers a `PING` here: with `+PONG`, or by asking for a password.
fn answers(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 8];
        let length = stream.read(&mut answer)?;
        std::io::Result::Ok(
            answer[..length].starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"),
        )
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests;
