//! What the provider goes by, and how that is made of what somebody has chosen.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::Tls;
use crate::LockError;
use crate::providers::kit::error::invalid;
use crate::providers::kit::holder::session_label;
use crate::providers::kit::settings::{CommonOptions, DeadPeers, LONGEST_DEFAULT_RESPONSE_TIMEOUT};
use crate::providers::sql_session;

const DEFAULT_WAITING_SESSIONS: usize = 16;
const DEFAULT_SNAPSHOT_AGE: Duration = Duration::from_secs(10);
const SHORTEST_SNAPSHOT_AGE: Duration = Duration::from_secs(1);
const LONGEST_SNAPSHOT_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How to connect, and what is PostgreSQL's own.
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: Tls,
    pub(super) snapshot_age: Duration,
    /// Somebody between takes no settings when a connection starts.
    pub(super) starts_plainly: AtomicBool,
}

/// What the rest of the provider goes by; all of it checked.
pub(super) type Settings = sql_session::Settings<Target>;

/// What a builder or a URL may have set.
#[derive(Default)]
pub(super) struct Options {
    pub(super) common: CommonOptions,
    pub(super) own: OwnOptions,
}

/// What of that is PostgreSQL's own.
#[derive(Default)]
pub(super) struct OwnOptions {
    pub(super) waiting_sessions: Option<usize>,
    pub(super) max_sessions: Option<usize>,
    pub(super) max_locks: Option<usize>,
    pub(super) snapshot_age: Option<Duration>,
}

impl Options {
    /// Checks what was set, and fills in what was not. `server` is what the client has read of
    /// the URL.
    pub(super) fn settings(
        self,
        mut server: Config,
        ssl_mode: Option<SslMode>,
    ) -> Result<Settings, LockError> {
        let (options, own) = (&self.common, &self.own);
        let common = options.finish(|_, _| LONGEST_DEFAULT_RESPONSE_TIMEOUT)?;
        if let Some(sessions) = own.max_sessions.filter(|sessions| *sessions < 2) {
            return Err(invalid(format!(
                "expected `max_sessions` of at least 2, got {sessions}"
            )));
        }
        if own.max_locks == Some(0) {
            return Err(invalid("expected `max_locks` of at least 1"));
        }
        let snapshot_age = own.snapshot_age.unwrap_or(DEFAULT_SNAPSHOT_AGE);
        if !(SHORTEST_SNAPSHOT_AGE..=LONGEST_SNAPSHOT_AGE).contains(&snapshot_age) {
            return Err(invalid(format!(
                "expected `snapshot_age` of 1 s to 24 h, got {snapshot_age:?}"
            )));
        }
        if let Some(username) = &options.username {
            server.user(username);
        }
        if let Some(password) = &options.password {
            server.password(password);
        }
        if server.get_application_name().is_none() {
            server.application_name(session_label());
        }
        if server.get_hosts().len() > 1 {
            server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        server.ssl_mode(ssl_mode.unwrap_or_else(|| default_ssl_mode(&server)));
        notice_dead_peers(&mut server, common.lease);
        // One host that is gone without a word must not use up the time of the others.
        let hosts = server.get_hosts().len().max(1);
        server.connect_timeout(common.connect_timeout / u32::try_from(hosts).unwrap_or(u32::MAX));
        if server.get_ssl_mode() == SslMode::Disable
            && (options.root_certificates.is_some() || options.client_certificate.is_some())
        {
            return Err(invalid("certificates need TLS: expected `sslmode=require`"));
        }
        let tls = Tls::new(
            options.root_certificates.as_deref(),
            options.client_certificate.as_ref(),
        )?;
        Ok(Settings {
            server_name: server_name(&server),
            target: Target {
                config: server,
                tls,
                snapshot_age,
                starts_plainly: AtomicBool::new(false),
            },
            common,
            waiting_sessions: own
                .waiting_sessions
                .unwrap_or(DEFAULT_WAITING_SESSIONS)
                .min(Semaphore::MAX_PERMITS),
            max_sessions: own.max_sessions,
            max_locks: own.max_locks,
        })
    }
}

/// Names where the server is, and not who asks it for what.
fn server_name(server: &Config) -> String {
    let ports = server.get_ports();
    let hosts = server.get_hosts().iter().enumerate().map(|(at, host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            #[cfg(unix)]
            Host::Unix(directory) => format!("{}:{port}", directory.display()),
        }
    });
    let mut names: Vec<_> = hosts.collect();
    if names.is_empty() {
        names.extend(server.get_hostaddrs().iter().map(ToString::to_string));
    }
    names.join(",")
}

/// Requires TLS, except for what never leaves the machine.
fn default_ssl_mode(server: &Config) -> SslMode {
    let is_local = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback())
        }
        #[allow(unreachable_patterns, reason = "there are others on Unix")]
        _ => true,
    };
    let addresses = server.get_hostaddrs();
    if server.get_hosts().iter().all(is_local) && addresses.iter().all(|ip| ip.is_loopback()) {
        SslMode::Disable
    } else {
        SslMode::Require
    }
}

fn notice_dead_peers(server: &mut Config, lease: Duration) {
    let noticed = DeadPeers::noticed_within(lease);
    server
        .keepalives(true)
        .keepalives_idle(noticed.idle)
        .keepalives_interval(noticed.interval)
        .keepalives_retries(noticed.probes)
        .tcp_user_timeout(noticed.patience);
}
