//! A real pgbouncer before a PostgreSQL server.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::PostgresServer;
use crate::child::ChildProcess;
use crate::scratch::{Scratch, free_port};
use crate::skip;
use crate::unprivileged::{give, unprivileged};

/// Names another program than `pgbouncer`.
pub const PROGRAM: &str = "LOCK_TESTS_PGBOUNCER";

const START_BOUND: Duration = Duration::from_secs(10);

/// A pooler that ends with its test.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    _process: ChildProcess,
    _scratch: Scratch,
}

impl PgBouncer {
    /// Starts a pooler in this mode, `session`, `transaction` or `statement`, with these further
    /// lines of configuration. `None` where none is installed, see [`skip`].
    pub fn start(server: &PostgresServer, mode: &str, lines: &str) -> Option<Self> {
        let programs = ["pgbouncer", "/usr/sbin/pgbouncer"];
        let program = skip::find_server("pgbouncer", PROGRAM, &programs)?;
        for _ in 0..5 {
            let scratch = Scratch::new();
            let port = free_port();
            let ini = scratch.join("pgbouncer.ini");
            let text = format!(
                "[databases]\npostgres = host=127.0.0.1 port={} user=app\n[pgbouncer]\n\
                 listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = {mode}\n{lines}\n",
                server.port()
            );
            std::fs::write(&ini, text).expect("the temporary directory is writable");
            give(&ini, 0o600).expect("its files can be given away");
            let mut command = Command::new(&program);
            command.arg(&ini);
            let log = scratch.join("pgbouncer.log");
            let process = ChildProcess::spawn(unprivileged(command), &log);
            let mut process = process.expect("pgbouncer runs");
            let deadline = Instant::now() + START_BOUND;
            while process.exit_status().is_none() && Instant::now() < deadline {
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    return Some(Self {
                        port,
                        _process: process,
                        _scratch: scratch,
                    });
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            eprintln!("pgbouncer did not start:\n{}", process.log());
        }
        panic!("pgbouncer did not start in five attempts; its log is above");
    }

    /// Returns the port on which it listens on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of the server through the pooler, without parameters.
    pub fn url(&self) -> String {
        format!("postgres://app@127.0.0.1:{}/postgres", self.port)
    }
}
