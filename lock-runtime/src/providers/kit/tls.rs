//! TLS: certificates in PEM format, and the library that does the cryptography.

#[cfg(any(feature = "postgres", feature = "redis"))]
use std::sync::Arc;

#[cfg(any(feature = "postgres", feature = "redis"))]
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::{LockError, providers::kit::error::invalid};

/// A certificate and its key, in PEM format.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// Has rustls use ring, unless the program has made its choice.
///
/// Without a choice rustls panics where two libraries are compiled in, since it does not know which
/// one to take; a program's other crates may bring the second one.
#[cfg(any(feature = "redis", feature = "zookeeper-tls"))]
pub(crate) fn choose_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // If another thread is quicker, its choice is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Makes the settings of connections whose server shows a certificate by a trusted authority: one
/// of these roots, in PEM format, or else of the system's.
///
/// # Errors
///
/// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if a certificate or key cannot be used.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn client_config(
    roots: Option<&[u8]>,
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, LockError> {
    let wrong = |what: &str, why: &dyn std::fmt::Display| {
        invalid(format!("the {what} cannot be used: {why}"))
    };
    let mut trusted = RootCertStore::empty();
    match roots {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate =
                    certificate.map_err(|error| wrong("root certificates", &error))?;
                trusted
                    .add(certificate)
                    .map_err(|error| wrong("root certificates", &error))?;
            }
            if trusted.is_empty() {
                return Err(invalid(
                    "expected root certificates in PEM format, found none",
                ));
            }
        }
        // One of the system's that cannot be read only means that it is not trusted.
        None => {
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let chosen = rustls::crypto::CryptoProvider::get_default().cloned();
    let provider = chosen.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("TLS library", &error))?
        .with_root_certificates(trusted);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&identity.certificate).collect();
            let chain = chain.map_err(|error| wrong("client certificate", &error))?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key)
                .map_err(|error| wrong("client certificate's key", &error))?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong("client certificate", &error))?
        }
    };
    Ok(Arc::new(config))
}
