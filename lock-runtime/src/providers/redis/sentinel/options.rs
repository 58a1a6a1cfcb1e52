//! What can be set for a service behind sentinels, by the builder or by a URL.

use std::sync::Arc;
use std::time::Duration;

use redis::{IntoConnectionInfo, RedisConnectionInfo};

use super::super::address::{HostPort, plain};
use super::super::client::Server;
use super::sentinels::{AddressMap, SentinelSettings};
use super::url::{OneSentinel, SentinelUrl};
use crate::LockError;
use crate::providers::kit::error::invalid;
use crate::providers::kit::settings::{Common, CommonOptions};

/// The parameters of a URL of sentinels, beside those of every URL.
pub(crate) const PARAMETERS: &[&str] = &[
    "service",
    "sentinel_username",
    "sentinel_password",
    "sentinel_tls",
];
/// What other libraries call the parameter `service`.
const ALIASES: [&str; 2] = ["sentinelMasterId", "sentinelServiceName"];

/// What a builder or a URL may have set. The builder wins.
#[derive(Default)]
pub(crate) struct SentinelOptions {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) tls: Option<bool>,
    pub(crate) root_certificates: Option<Vec<u8>>,
    pub(crate) address_map: Option<Arc<AddressMap>>,
    service: Option<String>,
}

/// A sentinel that was named, and what its URL says of it alone.
struct Named {
    host: HostPort,
    username: Option<String>,
    password: Option<String>,
}

impl SentinelOptions {
    /// Takes a URL parameter if it is one of these, and says whether it is.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if the value is not what the parameter
    /// takes.
    pub(crate) fn read(&mut self, key: &str, value: &str) -> Result<bool, LockError> {
        match key {
            "sentinel_username" => {
                self.username.get_or_insert_with(|| value.to_owned());
            }
            "sentinel_password" => {
                self.password.get_or_insert_with(|| value.to_owned());
            }
            "sentinel_tls" => {
                let tls = value.parse().map_err(|_| {
                    invalid("expected `true` or `false` for `sentinel_tls`".to_owned())
                })?;
                self.tls.get_or_insert(tls);
            }
            _ if key == "service" || ALIASES.contains(&key) => self.name(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn name(&mut self, service: &str) -> Result<(), LockError> {
        match self.service.replace(service.to_owned()) {
            Some(_) => Err(invalid("the URL names the service twice")),
            None => Ok(()),
        }
    }

    /// Refuses what is set here for one server.
    pub(crate) fn refuse(&self) -> Result<(), LockError> {
        let is_set = self.username.is_some()
            || self.password.is_some()
            || self.tls.is_some()
            || self.root_certificates.is_some()
            || self.address_map.is_some();
        match is_set {
            true => Err(invalid(
                "settings of sentinels need a URL like redis-sentinel://host:26379,host?service=name",
            )),
            false => Ok(()),
        }
    }

    /// Makes the settings of what a URL names.
    pub(crate) fn by_url(
        mut self,
        url: SentinelUrl,
        servers: &CommonOptions,
        (common, server_name): (&Common, Option<String>),
    ) -> Result<SentinelSettings, LockError> {
        if let Some(service) = &url.service {
            self.name(service)?;
        }
        let mut data = RedisConnectionInfo::default().set_db(url.database);
        if let Some(username) = &url.username {
            data = data.set_username(username);
        }
        if let Some(password) = &url.password {
            data = data.set_password(password);
        }
        let hosts = url.hosts.into_iter();
        let named = hosts.map(|host| Named {
            host,
            username: None,
            password: None,
        });
        self.finish(
            named.collect(),
            (url.tls, data),
            servers,
            (common, server_name),
        )
    }

    /// Makes the settings of what the builder was given: a name, and where the sentinels are.
    pub(crate) fn by_list(
        mut self,
        service: &str,
        urls: &[String],
        servers: &CommonOptions,
        (common, server_name): (&Common, Option<String>),
    ) -> Result<SentinelSettings, LockError> {
        self.name(service)?;
        let mut named: Vec<Named> = Vec::new();
        let mut tls = None;
        for url in urls {
            let one = OneSentinel::parse(url)?;
            if named.iter().any(|other| other.host == one.host) {
                return Err(invalid(format!(
                    "the sentinel `{}` is named twice",
                    one.host
                )));
            }
            if *tls.get_or_insert(one.tls) != one.tls {
                return Err(invalid("expected TLS with all sentinels, or with none"));
            }
            named.push(Named {
                host: one.host,
                username: one.username,
                password: one.password,
            });
        }
        let tls = tls.ok_or_else(|| invalid("expected at least one sentinel"))?;
        let data = (tls, RedisConnectionInfo::default());
        self.finish(named, data, servers, (common, server_name))
    }

    fn finish(
        self,
        named: Vec<Named>,
        (tls, data): (bool, RedisConnectionInfo),
        servers: &CommonOptions,
        (common, server_name): (&Common, Option<String>),
    ) -> Result<SentinelSettings, LockError> {
        let service = self.service.unwrap_or_default();
        if service.is_empty() {
            return Err(invalid(
                "expected the name of the service, as in redis-sentinel://host:26379?service=name",
            ));
        }
        let lease = common.lease;
        let server = |host: &HostPort, tls, settings, options: &CommonOptions| {
            let info = host.address(tls).into_connection_info();
            let info = info.map_err(|error| invalid(plain(&error)))?;
            Server::new(info.set_redis_settings(settings), options, lease)
        };
        let sentinel_tls = self.tls.unwrap_or(tls);
        if !sentinel_tls && self.root_certificates.is_some() {
            return Err(invalid("`sentinel_root_certificates` needs `sentinel_tls`"));
        }
        let mut listed = Vec::with_capacity(named.len());
        for one in named {
            let mut options = CommonOptions {
                username: self.username.clone().or(one.username),
                password: self.password.clone().or(one.password),
                ..CommonOptions::default()
            };
            if options.username.is_some() && options.password.is_none() {
                return Err(invalid("expected a `sentinel_password` for the user name"));
            }
            if sentinel_tls {
                let roots = self.root_certificates.as_ref();
                let roots = roots.or(servers.root_certificates.as_ref());
                options.root_certificates = roots.cloned();
                options
                    .client_certificate
                    .clone_from(&servers.client_certificate);
            }
            let settings = RedisConnectionInfo::default();
            let server = server(&one.host, sentinel_tls, settings, &options)?;
            listed.push((one.host, server));
        }
        // Where the sentinels say it is: this address means nothing.
        let nowhere = HostPort::new("localhost", 1);
        let patience = common.response_timeout.min(common.connect_timeout / 2);
        Ok(SentinelSettings {
            service,
            listed,
            data: server(&nowhere, tls, data, servers)?.verified_as(server_name)?,
            address_map: self.address_map,
            patience: patience.max(Duration::from_millis(1)),
        })
    }
}
