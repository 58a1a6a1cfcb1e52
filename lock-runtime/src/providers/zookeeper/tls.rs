//! TLS, with the authorities that the caller names.

use zookeeper_client::TlsOptions;

use crate::LockError;
use crate::providers::invalid;

#[derive(Default)]
pub(super) struct Tls {
    pub(super) authorities: Option<String>,
    /// Certificate and key.
    pub(super) identity: Option<(String, String)>,
}

impl Tls {
    pub(super) fn options(&self) -> Result<Option<TlsOptions>, LockError> {
        let Some(authorities) = &self.authorities else {
            return match self.identity {
                Some(_) => Err(invalid("a client certificate needs root certificates too")),
                None => Ok(None),
            };
        };
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Two are compiled in, so rustls does not know which one to take. If another thread is
            // quicker, its choice is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let wrong = |error| invalid(format!("the certificates cannot be used: {error}"));
        let mut options = TlsOptions::new().with_pem_ca(authorities).map_err(wrong)?;
        if let Some((certificate, key)) = &self.identity {
            options = options.with_pem_identity(certificate, key).map_err(wrong)?;
        }
        Ok(Some(options))
    }
}
