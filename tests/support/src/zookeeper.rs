//! A real ZooKeeper server for a test, or for many tests.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::child::{ChildProcess, Watchdog};
use crate::scratch::{Scratch, free_port};
use crate::skip;

mod ensemble;
mod transaction_log;

pub use ensemble::Ensemble;

/// The variable that names another library than that of Debian's package.
pub const LIBRARY: &str = "LOCK_TESTS_ZOOKEEPER_JAR";
/// The variable that names another program than `java`.
pub const PROGRAM: &str = "LOCK_TESTS_JAVA";
/// The variable with the URL of a server that this module started on this machine for all tests of
/// a run.
pub const SHARED_URL: &str = "LOCK_TESTS_ZOOKEEPER";

const DEBIAN_S_LIBRARY: &str = "/usr/share/java/zookeeper.jar";
const START_BOUND: Duration = Duration::from_secs(60);
/// The server's tick, which is short so that sessions may be short too.
const TICK: Duration = Duration::from_millis(200);

/// Java and ZooKeeper, where they are installed.
#[derive(Debug, Clone)]
pub struct Installation {
    java: PathBuf,
    library: PathBuf,
}

impl Installation {
    /// Finds both. `None` where something is missing, see [`skip`].
    pub fn find() -> Option<Self> {
        let java = skip::find_server("zookeeper", PROGRAM, &["java"])?;
        let library = skip::find_file("zookeeper", LIBRARY, Path::new(DEBIAN_S_LIBRARY))?;
        Some(Self { java, library })
    }

    fn run(&self, class: &str) -> Command {
        let mut command = Command::new(&self.java);
        // The least that starts fast and stays small.
        command
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dzookeeper.admin.enableServer=false"])
            .args(["-Dzookeeper.4lw.commands.whitelist=*"])
            // Those that elect a leader ask each other again soon, also when one does not answer.
            .args(["-Dzookeeper.fastleader.maxNotificationInterval=400"])
            .args(["-Dzookeeper.cnxTimeout=1000"])
            // A server that is killed loses nothing that the system has.
            .args(["-Dzookeeper.forceSync=no"])
            .args([
                "-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NIOServerCnxnFactory",
            ])
            .arg("-cp")
            .arg(self.class_path())
            .arg(class);
        command
    }

    /// Returns the libraries. Debian's names most of what it needs, but not this part of Netty.
    fn class_path(&self) -> String {
        let codec = self.library.with_file_name("netty-codec.jar");
        format!("{}:{}", self.library.display(), codec.display())
    }

    /// Returns a call of ZooKeeper's own command line, for one command of it.
    pub fn command_line(&self, port: u16, words: &[&str]) -> Command {
        let mut command = self.run("org.apache.zookeeper.ZooKeeperMain");
        command
            .args(["-server", &format!("127.0.0.1:{port}")])
            .args(words);
        command
    }
}

/// The server that tests share, each in a directory of its own.
#[derive(Debug)]
pub struct SharedServer {
    installation: Installation,
    port: u16,
    /// The server, unless another program has started it.
    _own: Option<ZooKeeperServer>,
}

impl SharedServer {
    /// Returns the server of the whole run of tests, or else of this binary. `None` where none is
    /// installed.
    pub fn find() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<SharedServer>> = LazyLock::new(|| {
            let port = std::env::var(SHARED_URL).ok().map(|url| {
                let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
                port.unwrap_or_else(|| panic!("{SHARED_URL} ends with a port"))
            });
            let own = match port {
                Some(_) => None,
                None => Some(ZooKeeperServer::start()?),
            };
            Some(SharedServer {
                installation: Installation::find()?,
                port: port.or(own.as_ref().map(ZooKeeperServer::port))?,
                _own: own,
            })
        });
        SHARED.as_ref()
    }

    /// Its loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns Java and ZooKeeper, as they were found.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }
}

/// A server, which ends when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct ZooKeeperServer {
    process: Option<(ChildProcess, Watchdog)>,
    installation: Installation,
    port: u16,
    tls_port: u16,
    scratch: Scratch,
    /// Further lines of the configuration.
    settings: Vec<String>,
    /// Further options of Java.
    options: Option<String>,
}

impl ZooKeeperServer {
    /// Starts a server of a test's own. `None` where none is installed.
    pub fn start() -> Option<Self> {
        Self::start_with(|_| Vec::new(), None)
    }

    /// Starts one that takes so many connections from an address.
    pub fn start_with_most_connections(most: usize) -> Option<Self> {
        Self::start_with(|_| vec![format!("maxClientCnxns={most}")], None)
    }

    /// Starts one that looks this often for empty container nodes, which it removes.
    pub fn start_with_container_check(every: Duration) -> Option<Self> {
        let every = every.as_millis();
        let option = format!("-Dznode.container.checkIntervalMs={every}");
        Self::start_with(|_| Vec::new(), Some(option))
    }

    /// Starts one that listens with TLS too. It takes a key store in PKCS #12 format, and an
    /// authority in PEM format for the certificates of clients.
    pub fn start_with_tls(keys: &Path, password: &str, authority: &Path) -> Option<Self> {
        let settings = |port| {
            vec![
                format!("secureClientPort={port}"),
                "secureClientPortAddress=127.0.0.1".to_owned(),
                "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
                format!("ssl.keyStore.location={}", keys.display()),
                "ssl.keyStore.type=PKCS12".to_owned(),
                format!("ssl.keyStore.password={password}"),
                format!("ssl.trustStore.location={}", authority.display()),
                "ssl.trustStore.type=PEM".to_owned(),
                "ssl.clientAuth=want".to_owned(),
                // The certificates name addresses, not hosts of clients.
                "ssl.clientHostnameVerification=false".to_owned(),
            ]
        };
        Self::start_with(settings, None)
    }

    fn start_with(settings: impl Fn(u16) -> Vec<String>, options: Option<String>) -> Option<Self> {
        let installation = Installation::find()?;
        for _ in 0..5 {
            let scratch = Scratch::new();
            let mut server = Self::new(&installation, free_port(), scratch, Vec::new());
            server.settings = settings(server.tls_port);
            server.options.clone_from(&options);
            if server.launch().is_ok() && server.until_serving().is_ok() {
                return Some(server);
            }
        }
        panic!("ZooKeeper did not start in five attempts; its log is above");
    }

    fn new(
        installation: &Installation,
        port: u16,
        scratch: Scratch,
        settings: Vec<String>,
    ) -> Self {
        Self {
            process: None,
            installation: installation.clone(),
            port,
            tls_port: free_port(),
            scratch,
            settings,
            options: None,
        }
    }

    /// Its loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its URL, without parameters.
    pub fn url(&self) -> String {
        format!("zookeeper://127.0.0.1:{}", self.port)
    }

    /// Returns its loopback port with TLS, if it was [started](Self::start_with_tls) with it.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// Returns the running process.
    ///
    /// # Panics
    ///
    /// If the server was [killed](Self::kill).
    pub fn process(&self) -> &ChildProcess {
        &self.process.as_ref().expect("the server was killed").0
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // The watchdog first, while the process's id is its own.
        if let Some((process, watchdog)) = self.process.take() {
            drop(watchdog);
            drop(process);
        }
    }

    /// Starts it again after [`kill`](Self::kill), with its data and on the same port, and waits
    /// until it serves.
    pub fn start_again(&mut self) {
        self.launch().expect("the server starts again");
        self.until_serving().expect("the server serves again");
    }

    /// Starts it again in the same way, and has it find that so many children of this node were
    /// created, of which this one is there. The next sequential child has that number.
    pub fn start_with_count(&mut self, node: &str, child: &str, count: i32) {
        let data = self.scratch.join("version-2");
        transaction_log::add_child(&data, node, child, count);
        self.start_again();
    }

    /// Starts it again in the same way, without its data.
    pub fn start_empty(&mut self) {
        let data = self.scratch.join("version-2");
        if data.exists() {
            std::fs::remove_dir_all(&data).expect("its data can be removed");
        }
        self.start_again();
    }

    /// Returns the answer to one of the commands of four letters.
    pub fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(command.as_bytes())?;
        let mut answer = Vec::new();
        // With Netty the server does not always end the stream.
        match stream.read_to_end(&mut answer) {
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
        }
    }

    /// Returns what it has printed since it was last started.
    pub fn log(&self) -> String {
        let process = self.process.as_ref();
        process
            .map(|(process, _)| process.log())
            .unwrap_or_default()
    }

    /// Tells whether it leads the ensemble.
    pub fn leads(&self) -> bool {
        self.ask("srvr")
            .is_ok_and(|answer| answer.contains("Mode: leader"))
    }

    fn launch(&mut self) -> std::io::Result<()> {
        let configuration = self.scratch.join("zoo.cfg");
        let mut text = format!(
            "clientPort={}\nclientPortAddress=127.0.0.1\ndataDir={}\ntickTime={}\n\
             maxSessionTimeout=600000\nmaxClientCnxns=0\n",
            self.port,
            self.scratch.path().display(),
            TICK.as_millis(),
        );
        for line in &self.settings {
            text += line;
            text.push('\n');
        }
        std::fs::write(&configuration, text)?;
        let mut command = self
            .installation
            .run("org.apache.zookeeper.server.quorum.QuorumPeerMain");
        command.arg(&configuration).current_dir(self.scratch.path());
        if let Some(options) = &self.options {
            command.env("JAVA_TOOL_OPTIONS", options);
        }
        let process = ChildProcess::spawn(command, &self.scratch.join("zookeeper.log"))?;
        let watchdog = Watchdog::over(process.id())?;
        self.process = Some((process, watchdog));
        Ok(())
    }

    fn until_serving(&mut self) -> Result<(), ()> {
        let deadline = Instant::now() + START_BOUND;
        while !self
            .ask("srvr")
            .is_ok_and(|answer| answer.contains("Mode: "))
        {
            let (process, _) = self.process.as_mut().expect("it was launched");
            if process.exit_status().is_some() || Instant::now() > deadline {
                eprintln!("ZooKeeper does not serve:\n{}", process.log());
                return Err(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for ZooKeeperServer {
    fn drop(&mut self) {
        self.kill();
    }
}
