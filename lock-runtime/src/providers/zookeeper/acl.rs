//! Who may use the nodes of locks.

use zookeeper_client::{Acl, Acls, AuthId, Permission};

use crate::LockError;
use crate::providers::kit::error::invalid;

/// Who may see, create and delete the nodes of locks.
///
/// Everybody who is to queue for the same locks needs read, create and delete rights on their
/// nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ZooKeeperAcl {
    /// Anybody: `world:anyone:cdrwa`, the default of ZooKeeper's own tools.
    #[default]
    Open,
    /// Whoever has the same credentials as the provider.
    Creator,
    /// Whoever has these credentials, as ZooKeeper's scheme `digest` names them:
    /// `user:base64(sha1(user:password))`.
    Digest(String),
}

impl ZooKeeperAcl {
    pub(super) fn entries(&self) -> Result<Vec<Acl>, LockError> {
        match self {
            Self::Open => Ok(Acls::anyone_all().to_vec()),
            Self::Creator => Ok(Acls::creator_all().to_vec()),
            Self::Digest(id) if id.split_once(':').is_some_and(|(_, hash)| !hash.is_empty()) => {
                let id = AuthId::new("digest", id);
                Ok(vec![Acl::new(Permission::ALL, id)])
            }
            Self::Digest(_) => Err(invalid(
                "expected an ACL like `user:base64(sha1(user:password))`",
            )),
        }
    }
}
