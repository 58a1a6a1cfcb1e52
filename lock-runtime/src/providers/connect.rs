//! Which provider a URL names: the table of schemes, a line for each.

use std::sync::Arc;

use super::kit::error::invalid;
use super::kit::scheme::not_supported;
use crate::LockError;
use crate::name::Escaped;
use crate::provider::{BoxFuture, LockProvider};

type Connected = Result<Arc<dyn LockProvider>, LockError>;

struct Scheme {
    name: &'static str,
    feature: &'static str,
    /// Which of the settings that may stand outside a URL the provider has.
    settings: &'static [&'static str],
    /// `None` if the feature is not compiled in.
    connect: Option<fn(String) -> BoxFuture<'static, Connected>>,
}

/// The settings of every provider with a server.
const OF_SERVERS: &[&str] = &["key_prefix", "lease", "connect_timeout", "response_timeout"];
/// The settings of a provider without one.
const WITHOUT_SERVER: &[&str] = &["key_prefix"];

macro_rules! scheme {
    ($name:literal, $feature:literal, $connect:path) => {
        scheme!($name, $feature, $connect, OF_SERVERS)
    };
    ($name:literal, $feature:literal, $connect:path, $settings:ident) => {
        Scheme {
            name: $name,
            feature: $feature,
            settings: $settings,
            #[cfg(feature = $feature)]
            connect: Some(|url| Box::pin($connect(url))),
            #[cfg(not(feature = $feature))]
            connect: None,
        }
    };
}

const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "memory",
        feature: "",
        settings: WITHOUT_SERVER,
        connect: Some(|url| Box::pin(super::in_process::connect(url))),
    },
    scheme!("file", "file", super::file::connect, WITHOUT_SERVER),
    scheme!("postgres", "postgres", super::postgres::connect),
    scheme!("postgresql", "postgres", super::postgres::connect),
    scheme!("redis", "redis", super::redis::connect),
    scheme!("rediss", "redis", super::redis::connect),
    scheme!("valkey", "redis", super::redis::connect),
    scheme!("valkeys", "redis", super::redis::connect),
    scheme!("unix", "redis", super::redis::connect),
    scheme!("redis+unix", "redis", super::redis::connect),
    scheme!("valkey+unix", "redis", super::redis::connect),
    scheme!("redis-sentinel", "redis", super::redis::connect),
    scheme!("redis+sentinel", "redis", super::redis::connect),
    scheme!("rediss-sentinel", "redis", super::redis::connect),
    scheme!("rediss+sentinel", "redis", super::redis::connect),
    scheme!("valkey-sentinel", "redis", super::redis::connect),
    scheme!("valkey+sentinel", "redis", super::redis::connect),
    scheme!("valkeys-sentinel", "redis", super::redis::connect),
    scheme!("valkeys+sentinel", "redis", super::redis::connect),
    scheme!("redis-quorum", "redis", super::redis::connect_to_quorum),
    scheme!("rediss-quorum", "redis", super::redis::connect_to_quorum),
    scheme!("valkey-quorum", "redis", super::redis::connect_to_quorum),
    scheme!("valkeys-quorum", "redis", super::redis::connect_to_quorum),
    scheme!("zookeeper", "zookeeper", super::zookeeper::connect),
];

/// Connects to the provider that a URL names: its scheme says which, its query sets what the
/// provider's builder sets.
///
/// | scheme | provider | feature |
/// |---|---|---|
/// | `memory:` | [`InProcessProvider`](crate::InProcessProvider) | – |
/// | `file:` directory | `FileProvider` | `file` |
/// | `postgres:`, `postgresql:` | `PostgresProvider` | `postgres` |
/// | `redis:`, `rediss:`, `valkey:`, `valkeys:` | `RedisProvider` | `redis` |
/// | `unix:`, `redis+unix:`, `valkey+unix:` socket | `RedisProvider` | `redis` |
/// | `redis-sentinel:`, `redis+sentinel:`, the same with `rediss`, `valkey`, `valkeys` | `RedisProvider` | `redis` |
/// | `redis-quorum:` several hosts, the same with `rediss`, `valkey`, `valkeys` | `RedisQuorumProvider` | `redis` |
/// | `zookeeper:` | `ZooKeeperProvider` | `zookeeper` |
///
/// Every provider knows the parameter `key_prefix`, which is put before each name, as in
/// `file:/var/lock/app?key_prefix=MyApp1:`.
///
/// # Errors
///
/// * [`InvalidConfig`](crate::LockErrorKind::InvalidConfig): the URL cannot be used; the error says
///   what was expected;
/// * [`Unsupported`](crate::LockErrorKind::Unsupported): it names a Redis Cluster;
/// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable): the server cannot be
///   reached.
///
/// No error shows a password.
///
/// # Cancel safety
///
/// May be dropped at any await.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// lock_runtime::register(lock_runtime::connect("memory:").await?)?;
/// # Ok(())
/// # }
/// ```
pub async fn connect(url: &str) -> Connected {
    let Some((scheme, _)) = url.split_once(':') else {
        return Err(invalid(format!(
            "expected a URL that begins with one of {}",
            compiled_in()
        )));
    };
    let known = find(scheme);
    if let Some(error) = not_supported(scheme) {
        return Err(error);
    }
    match known.map(|known| (known, known.connect)) {
        Some((_, Some(connect))) => {
            let provider = connect(url.to_owned()).await?;
            tracing::debug!("connected to {}", Escaped(&provider.describe()));
            Ok(provider)
        }
        Some((known, None)) => Err(invalid(format!(
            "the scheme `{}:` needs the cargo feature `{}` of `lock-runtime`; compiled in: {}",
            known.name,
            known.feature,
            compiled_in()
        ))),
        // What stands before the first colon of a mistyped URL may be a user's name.
        None => Err(invalid(format!(
            "unknown URL scheme; compiled in: {}",
            compiled_in()
        ))),
    }
}

/// Does the same as [`connect`], with settings that stand outside the URL. One that the provider
/// does not have is left out.
///
/// # Errors
///
/// As [`connect`], and [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if a setting is also a
/// parameter of the URL.
pub(crate) async fn connect_with(url: &str, settings: &[(&str, String)]) -> Connected {
    connect(&with_settings(url, settings)?).await
}

/// Adds settings to a URL, as parameters.
fn with_settings(url: &str, settings: &[(&str, String)]) -> Result<String, LockError> {
    let Some(known) = url.split_once(':').and_then(|(scheme, _)| find(scheme)) else {
        // The error is that of the URL.
        return Ok(url.to_owned());
    };
    let query = url.split_once('?').map(|(_, query)| query);
    let mut whole = url.to_owned();
    let mut separator = if query.is_some() { '&' } else { '?' };
    for (name, value) in settings {
        let mut given = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        if given.any(|(parameter, _)| parameter == *name) {
            return Err(invalid(format!(
                "`{name}` is given twice, as a setting and as a parameter of the URL; leave out one"
            )));
        }
        if !known.settings.contains(name) {
            tracing::info!("`{}:` has no `{name}`: the setting is ignored", known.name);
            continue;
        }
        whole.push(separator);
        whole.push_str(name);
        whole.push('=');
        whole.extend(form_urlencoded::byte_serialize(value.as_bytes()));
        separator = '&';
    }
    Ok(whole)
}

/// Returns the scheme with which a URL begins, if it is one that is known. All else in a URL may be
/// a secret.
pub(crate) fn known_scheme(url: &str) -> Option<&'static str> {
    let (scheme, _) = url.split_once(':')?;
    find(scheme).map(|known| known.name)
}

fn find(scheme: &str) -> Option<&'static Scheme> {
    SCHEMES
        .iter()
        .find(|known| known.name.eq_ignore_ascii_case(scheme))
}

fn compiled_in() -> String {
    let names: Vec<_> = SCHEMES
        .iter()
        .filter(|scheme| scheme.connect.is_some())
        .map(|scheme| format!("`{}:`", scheme.name))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// However a URL is mistyped.
    #[tokio::test]
    async fn no_error_shows_a_password() {
        let forms = [
            "://u:hunter2@127.0.0.1:1/?connect_timeout=100ms",
            "://u:hunter2@127.0.0.1:1/?application_name=x",
            "://u:hunter2@127.0.0.1:1/d?lease=hunter2@h",
            "://u:hunter2@127.0.0.1:port/d",
            "://u:hunter2@127.0.0.1:1#d",
            "://u:hunter2@[::1/d",
            // What comes before the mark could be a port.
            "://u:54321#hunter2@127.0.0.1:1",
            "://u:54321#hunter2@127.0.0.1:1/d?connect_timeout=100ms",
            "://u:54321/hunter2@127.0.0.1:1/d?connect_timeout=100ms",
            "://u:54321/3?hunter2@127.0.0.1:1/d",
            "://u:54321?hunter2@127.0.0.1:1/d",
            "://u:54321?lease=5s@127.0.0.1:1/d",
            "://u:54321\\hunter2@127.0.0.1:1/d",
            "://:54321#hunter2@127.0.0.1:1",
            "://54321#hunter2@127.0.0.1:1",
            "://u:hunter2@",
            "://u:hunter2",
            "://u:hun/ter2@127.0.0.1/d",
            "://u:%zzhunter2@127.0.0.1:1/%zz",
            "://u :hunter2@127.0.0.1:1",
            "://:hunter2@/d?x=y",
            ":///u:hunter2@127.0.0.1/d",
            ":/u:hunter2=@127.0.0.1/d?x=y",
            ":u:hunter2@127.0.0.1/d?x=y",
            ":hunter2",
            "//u:hunter2@127.0.0.1/d",
        ];
        let beside = [
            ("key_prefix", "shop:".to_owned()),
            ("lease", "5s".to_owned()),
        ];
        let lower = SCHEMES.iter().map(|scheme| scheme.name.to_owned());
        let upper = SCHEMES.iter().map(|scheme| scheme.name.to_uppercase());
        for scheme in lower.chain(upper) {
            for form in forms {
                for url in [
                    format!("{scheme}{form}"),
                    format!(" {scheme}{form}"),
                    format!("\"{scheme}{form}\""),
                ] {
                    for settings in [&[][..], &beside] {
                        let connecting = connect_with(&url, settings);
                        let bound = Duration::from_millis(500);
                        let connected = tokio::time::timeout(bound, connecting);
                        let Ok(Err(error)) = connected.await else {
                            continue;
                        };
                        let shown = format!("{error} {error:?}");
                        // A part of it would be too much.
                        let shows = ["ter2", "54321"].iter().any(|part| shown.contains(part));
                        assert!(!shows, "{url}: {shown}");
                    }
                }
            }
        }
    }
}
