//! A real PostgreSQL server for a test.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::certificates::Tls;
use crate::child::ChildProcess;
use crate::scratch::{Scratch, free_port};
use crate::skip;
use crate::unprivileged::{give, unprivileged};

/// The variable that names another program than `postgres`. `initdb` and `psql` stand beside it.
pub const PROGRAM: &str = "LOCK_TESTS_POSTGRES";

const START_BOUND: Duration = Duration::from_secs(30);

/// The lines that say who may connect. `postgres`, who may do everything, and `app`, who may do
/// nothing, need no password. `service` needs the password `secret`.
const ACCESS: &str = "host all,replication postgres,app 127.0.0.1/32 trust\n\
                      host all all 127.0.0.1/32 scram-sha-256\n";
const ROLES: &str = "CREATE ROLE app LOGIN; CREATE ROLE service LOGIN PASSWORD 'secret'";

/// Options for the start of a [`PostgresServer`].
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    config: Vec<String>,
    tls: Option<Tls>,
}

impl PostgresOptions {
    /// Adds a line of the configuration file.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }

    /// Takes TLS connections too.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Starts the server and waits until it answers. `None` where none is installed, see [`skip`].
    pub fn start(self) -> Option<PostgresServer> {
        let installed = installed("postgres");
        let programs: Vec<_> = installed.iter().map(String::as_str).collect();
        let program = skip::find_server("postgres", PROGRAM, &programs)?;
        // Its companions are where it really is.
        let program = program.canonicalize().expect("a program that was found");
        for _ in 0..5 {
            let scratch = Scratch::new();
            let mut server = PostgresServer {
                process: None,
                program: program.clone(),
                port: free_port(),
                scratch,
            };
            let started = server
                .initialize(&self)
                .and_then(|()| server.start())
                .and_then(|()| server.psql("postgres", ROLES).map(drop));
            match started {
                Ok(()) => return Some(server),
                Err(error) => eprintln!("postgres did not start: {error}"),
            }
        }
        panic!("postgres did not start in five attempts; its log is above");
    }
}

/// A server of a test's own, or of several tests, which ends with them.
#[derive(Debug)]
pub struct PostgresServer {
    process: Option<ChildProcess>,
    program: PathBuf,
    port: u16,
    scratch: Scratch,
}

impl PostgresServer {
    /// Returns the server of all tests that run at this time, for tests that do it no harm. `None`
    /// where none is installed.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(PostgresOptions::default().start()?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// Returns the port on which it listens on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its URL for a user who needs no password and has no rights, without parameters.
    pub fn url(&self) -> String {
        format!("postgres://app@127.0.0.1:{}/postgres", self.port)
    }

    /// Returns the running process, which is the parent of those that serve sessions.
    ///
    /// # Panics
    ///
    /// If the server was [killed](Self::kill).
    pub fn process(&self) -> &ChildProcess {
        self.process.as_ref().expect("the server was killed")
    }

    /// Kills it. What it has not written is lost, and its other processes end when they notice.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops all processes of the server with `SIGSTOP`. Connections stay open, and nothing
    /// answers.
    pub fn freeze(&self) {
        self.process().freeze();
        // Their parent starts no others any more.
        self.signal_children(Signal::STOP);
    }

    /// Lets it go on with `SIGCONT`.
    pub fn thaw(&self) {
        self.signal_children(Signal::CONT);
        self.process().thaw();
    }

    fn signal_children(&self, signal: Signal) {
        for child in children_of(self.process().id()) {
            // One that has just ended needs none.
            let _ = kill_process(child, signal);
        }
    }

    /// Starts a standby that follows this server, with the same options.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn start_standby(&self) -> Self {
        let mut standby = Self {
            process: None,
            program: self.program.clone(),
            port: free_port(),
            scratch: Scratch::new(),
        };
        standby
            .copy(self)
            .and_then(|()| standby.start())
            .unwrap_or_else(|error| panic!("the standby did not start: {error}"));
        standby
    }

    /// Makes a standby a primary, and waits until it is one.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn promote(&self) {
        let promoted = self.psql("postgres", "SELECT pg_promote(true, 30)");
        assert_eq!(
            promoted.expect("the standby answers"),
            "t",
            "it is promoted"
        );
    }

    fn copy(&self, primary: &Self) -> io::Result<()> {
        let data = self.data();
        std::fs::create_dir(&data)?;
        give(&data, 0o700)?;
        let mut command = Command::new(self.beside("pg_basebackup"));
        command.args(["-h", "127.0.0.1", "-p", &primary.port.to_string()]);
        command.args([
            "-U",
            "postgres",
            "-c",
            "fast",
            "-X",
            "stream",
            "--no-sync",
            "-R",
        ]);
        command.arg("-D").arg(&data);
        let output = unprivileged(command).current_dir(&data).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
        }
        // The last of several counts.
        let mut config = File::options()
            .append(true)
            .open(data.join("postgresql.conf"))?;
        writeln!(config, "port = {}", self.port)
    }

    /// Starts it again on the same port, after a [`kill`](Self::kill).
    pub fn start_again(&mut self) {
        // As long as another of its processes lives, the memory that they share is in use.
        let deadline = Instant::now() + START_BOUND;
        while let Err(error) = self.start() {
            assert!(Instant::now() < deadline, "it starts again: {error}");
        }
    }

    /// Runs SQL in `psql`, as a user who needs no password, and returns the rows, without
    /// headings.
    pub fn psql(&self, user: &str, sql: &str) -> io::Result<String> {
        let output = self.psql_command(user, sql).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Returns the command that [`psql`](Self::psql) runs.
    pub fn psql_command(&self, user: &str, sql: &str) -> Command {
        let mut command = Command::new(self.beside("psql"));
        command.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.args(["-U", user, "-d", "postgres", "-c", sql]);
        command
    }

    fn initialize(&self, options: &PostgresOptions) -> io::Result<()> {
        let data = self.data();
        std::fs::create_dir(&data)?;
        give(&data, 0o700)?;
        let mut command = Command::new(self.beside("initdb"));
        command.args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8"]);
        command.args(["--locale=C", "-D"]).arg(&data);
        let output = unprivileged(command).current_dir(&data).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
        }
        std::fs::write(data.join("pg_hba.conf"), ACCESS)?;
        let mut config = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\n\
             max_connections = 300\nshared_buffers = 16MB\nfsync = off\n\
             log_line_prefix = '%m %p '\n",
            self.port
        );
        if let Some(tls) = &options.tls {
            for (from, to) in [(&tls.certificate, "server.crt"), (&tls.key, "server.key")] {
                std::fs::copy(from, data.join(to))?;
                give(&data.join(to), 0o600)?;
            }
            std::fs::copy(&tls.ca, data.join("ca.crt"))?;
            give(&data.join("ca.crt"), 0o600)?;
            config += "ssl = on\nssl_ca_file = 'ca.crt'\n";
        }
        for line in &options.config {
            config += &format!("{line}\n");
        }
        std::fs::write(data.join("postgresql.conf"), config)
    }

    fn start(&mut self) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("-D").arg(self.data());
        let mut command = unprivileged(command);
        command.current_dir(self.data());
        let mut process = ChildProcess::spawn(command, &self.scratch.join("postgres.log"))?;
        let deadline = Instant::now() + START_BOUND;
        loop {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                match self.psql("postgres", "SELECT 1") {
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                    Err(_) => {}
                }
            }
            if process.exit_status().is_some() || Instant::now() > deadline {
                return Err(io::Error::other(process.log()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    fn beside(&self, program: &str) -> PathBuf {
        self.program.with_file_name(program)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.quit();
        }
    }
}

fn children_of(parent: u32) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_child = |process: &Pid| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid()));
        // The program's name, which may hold blanks, stands between parentheses.
        let fields = stat.ok().and_then(|stat| {
            let (_, fields) = stat.rsplit_once(") ")?;
            fields.split(' ').nth(1)?.parse().ok()
        });
        fields == Some(parent)
    };
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pids = pids.filter_map(Pid::from_raw);
    pids.filter(is_child).collect()
}

/// Lists where a program of PostgreSQL may be: on the search path, or where Debian keeps the
/// versions, newest first.
fn installed(program: &str) -> Vec<String> {
    let mut found = vec![program.to_owned()];
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut versions: Vec<_> = versions.flatten().map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| {
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(number)
    });
    let paths = versions.iter().map(|path| path.join("bin").join(program));
    found.extend(paths.filter_map(|path| path.into_os_string().into_string().ok()));
    found
}
