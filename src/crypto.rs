//! Which cryptography TLS is made of: aws-lc-rs, or ring where that is built in instead. A leaf, and the only place that
//! knows.

use std::sync::Arc;

use rustls::{crypto::CryptoProvider, server::ProducesTickets, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

#[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
use rustls::crypto::aws_lc_rs as chosen;
#[cfg(feature = "ring")]
use rustls::crypto::ring as chosen;
#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("TLS needs cryptography: build with the feature \"aws-lc-rs\" (the default) or \"ring\"");

/// What TLS is to be made of, on every side. It is named wherever rustls is asked for something, rather than left to the
/// process: another dependency enables rustls without choosing.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(chosen::default_provider())
}

/// Whether a private key is that of the first certificate of a chain.
///
/// # Errors
///
/// It is another's, or one of them cannot be used.
pub fn fit(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), rustls::Error> {
    CertifiedKey::from_der(chain, key, &provider()).map(drop)
}

/// Makes tickets for the sessions of one server configuration, with keys of its own.
///
/// # Errors
///
/// The machine has no randomness.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    chosen::Ticketer::new()
}

/// Makes [`provider`] the process' own, for libraries that do not let it be named.
pub fn install() {
    // An error says that it was done before.
    _ = chosen::default_provider().install_default();
}
