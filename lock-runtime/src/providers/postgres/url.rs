//! Reading the URL: what is the library's own in it, and what the client's.

use tokio_postgres::config::{Host, SslMode};

use super::error::text;
use super::settings::{Options, Settings};
use crate::LockError;
use crate::providers::kit::error::invalid;
use crate::providers::kit::tls::Identity;
use crate::providers::kit::url::{
    parameters, set_duration, split, unknown_parameter, without_secrets,
};

const EXPECTED: &str = "expected a URL like postgres://user:password@host:5432/database";

/// The parameters that are the library's own.
const OF_THE_LIBRARY: &[&str] = &[
    "key_prefix",
    "lease",
    "connect_timeout",
    "response_timeout",
    "waiting_sessions",
    "max_sessions",
    "max_locks",
    "snapshot_age",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
];
/// The parameters of a URL that the client reads.
const OF_THE_CLIENT: &[&str] = &[
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// Reads a URL. What is set already wins over what it says.
pub(super) fn read(url: &str, mut options: Options) -> Result<Settings, LockError> {
    let (address, parameters) = split(url)?;
    let address = with_scheme(&address)?;
    let read = read_parameters(&mut options, &parameters).and_then(|(rest, ssl_mode)| {
        let server: tokio_postgres::Config =
            format!("{address}?{rest}").parse().map_err(|error| {
                // The client's error names the mistake and never the URL.
                invalid(format!("{EXPECTED}: {}", text(&error)))
            })?;
        Ok((server, ssl_mode))
    });
    let (server, ssl_mode) = without_secrets(&parameters, read)?;
    // It would be shown with the host's name.
    let is_cut_off = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
    if server.get_hosts().iter().any(is_cut_off) {
        return Err(invalid(
            "expected one `@` in the URL: in a user name or password it is written as `%40`",
        ));
    }
    options.settings(server, ssl_mode)
}

/// Takes what is the library's own, and returns what the client knows.
fn read_parameters(
    options: &mut Options,
    query: &str,
) -> Result<(String, Option<SslMode>), LockError> {
    let mut rest = form_urlencoded::Serializer::new(String::new());
    let mut ssl_mode = None;
    let (mut certificate, mut certificate_key) = (None, None);
    let Options { common, own } = options;
    for (key, value) in parameters(query)? {
        match &*key {
            // Other clients count seconds.
            "connect_timeout" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                common.read(&key, &format!("{value}s"))?;
            }
            _ if common.read(&key, &value)? => {}
            "waiting_sessions" => set_number(&mut own.waiting_sessions, &key, &value)?,
            "max_sessions" => set_number(&mut own.max_sessions, &key, &value)?,
            "max_locks" => set_number(&mut own.max_locks, &key, &value)?,
            "snapshot_age" => set_duration(&mut own.snapshot_age, &key, &value)?,
            "sslmode" => ssl_mode = Some(read_ssl_mode(&value)?),
            // Other clients name the system's certificates so too.
            "sslrootcert" if value == "system" => {}
            "sslrootcert" if common.root_certificates.is_some() => {}
            "sslrootcert" => common.root_certificates = Some(read_file(&key, &value)?),
            "sslcert" => certificate = Some(value.into_owned()),
            "sslkey" => certificate_key = Some(value.into_owned()),
            known if OF_THE_CLIENT.contains(&known) => {
                rest.append_pair(&key, &value);
            }
            unknown => {
                return Err(unknown_parameter(
                    unknown,
                    &[OF_THE_LIBRARY, OF_THE_CLIENT].concat(),
                ));
            }
        }
    }
    match (certificate, certificate_key) {
        _ if common.client_certificate.is_some() => {}
        (Some(certificate), Some(key)) => {
            common.client_certificate = Some(Identity {
                certificate: read_file("sslcert", &certificate)?,
                key: read_file("sslkey", &key)?,
            });
        }
        (None, None) => {}
        _ => {
            return Err(invalid(
                "expected `sslcert` and `sslkey`, got only one of them",
            ));
        }
    }
    // The client reads `+` as it stands.
    Ok((rest.finish().replace('+', "%20"), ssl_mode))
}

/// Returns the address as the client takes it for a URL. It would take anything else for a list of
/// `key=value`, and repeat what it does not know, which may hold a password.
fn with_scheme(address: &str) -> Result<String, LockError> {
    let scheme_and_rest = address.split_once("://");
    match scheme_and_rest.map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest)) {
        Some((scheme, rest)) if scheme == "postgres" || scheme == "postgresql" => {
            Ok(format!("{scheme}://{rest}"))
        }
        _ => Err(invalid(EXPECTED)),
    }
}

fn set_number(setting: &mut Option<usize>, key: &str, value: &str) -> Result<(), LockError> {
    let number = value
        .parse()
        .map_err(|_| invalid(format!("expected a number for `{key}`, got `{value}`")))?;
    setting.get_or_insert(number);
    Ok(())
}

fn read_file(key: &str, path: &str) -> Result<Vec<u8>, LockError> {
    std::fs::read(path).map_err(|error| {
        invalid(format!(
            "expected the name of a file that can be read for `{key}`, got `{path}`: {error}"
        ))
    })
}

fn read_ssl_mode(text: &str) -> Result<SslMode, LockError> {
    match text {
        "disable" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        // Certificates are always checked, and so is the host's name in them.
        "require" | "verify-ca" | "verify-full" => Ok(SslMode::Require),
        _ => Err(invalid(format!(
            "expected `disable`, `prefer`, `require`, `verify-ca` or `verify-full` for `sslmode`, \
             got `{text}`"
        ))),
    }
}

#[cfg(test)]
mod tests;
