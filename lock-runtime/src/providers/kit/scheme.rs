//! URL schemes that other libraries know and this one refuses, with or without its feature.

use super::error::unsupported;
use crate::LockError;

/// Says why there are no locks behind a scheme that other libraries know.
pub(crate) fn not_supported(scheme: &str) -> Option<LockError> {
    let scheme = scheme.to_ascii_lowercase();
    let rest = ["redis", "valkey"]
        .iter()
        .find_map(|name| scheme.strip_prefix(name))?;
    // As in `redis-cluster`, `redis+cluster`, `rediss+cluster`.
    let rest = rest.strip_prefix('s').unwrap_or(rest);
    let detail = match rest.strip_prefix(['-', '+'])? {
        "cluster" => {
            "Redis Cluster is not supported: expected one server that is no cluster, such as \
             redis://host:6379"
        }
        _ => return None,
    };
    Some(unsupported(detail))
}
