//! TLS, with the authorities that the caller names.

use std::fmt::Display;

use zookeeper_client::TlsOptions;

use crate::LockError;
use crate::providers::kit::error::invalid;
use crate::providers::kit::settings::CommonOptions;
use crate::providers::kit::tls::choose_crypto_provider;

/// Makes the client's options, if there is to be TLS.
pub(super) fn tls_options(options: &CommonOptions) -> Result<Option<TlsOptions>, LockError> {
    let Some(authorities) = &options.root_certificates else {
        return match options.client_certificate {
            Some(_) => Err(invalid("a client certificate needs root certificates too")),
            None => Ok(None),
        };
    };
    choose_crypto_provider();
    let mut tls = TlsOptions::new()
        .with_pem_ca(text(authorities)?)
        .map_err(wrong)?;
    if let Some(identity) = &options.client_certificate {
        tls = tls
            .with_pem_identity(text(&identity.certificate)?, text(&identity.key)?)
            .map_err(wrong)?;
    }
    Ok(Some(tls))
}

fn text(pem: &[u8]) -> Result<&str, LockError> {
    std::str::from_utf8(pem).map_err(wrong)
}

fn wrong(error: impl Display) -> LockError {
    invalid(format!("the certificates cannot be used: {error}"))
}
