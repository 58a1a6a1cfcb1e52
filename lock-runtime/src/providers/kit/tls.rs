//! TLS: certificates in PEM format, and the library that does the cryptography.

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
