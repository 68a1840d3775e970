//! The files that a configuration names: whether each can be read and holds what it is named for.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    diagnostic::{Diagnostic, Source},
    secrets::{self, SecretsError},
    section::Span,
};
use crate::crypto;

/// What a file is named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The admin interface's bearer token.
    Token,
    /// The Redis password.
    Password,
    /// Secrets that seal and key ids.
    Secrets,
    /// Certificates, PEM.
    Certificates,
    /// A private key, PEM.
    PrivateKey,
}

/// A file that a key names.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) path: PathBuf,
    pub(crate) purpose: Purpose,
    pub(crate) key: &'static str,
    pub(crate) span: Span,
    /// Of a private key: the certificate that it must fit.
    pub(crate) certificate: Option<PathBuf>,
}

impl Named {
    /// Looks into the file; `None` when all is well.
    pub(crate) fn check(&self, source: &Arc<Source>) -> Option<Diagnostic> {
        let (wrong, help) = self.look()?;
        let Self { path, purpose, key, span, certificate: _ } = self;
        let shown = path.display();
        let help = match purpose {
            Purpose::Token if !path.exists() => make(path),
            // A new secret is new ids.
            Purpose::Secrets if !path.exists() => format!("{}; all replicas need the same", make(path)),
            Purpose::Token | Purpose::Secrets | Purpose::Password | Purpose::Certificates | Purpose::PrivateKey => {
                help.to_owned()
            }
        };
        let message = format!("`{key}`: {shown} {wrong}");
        Some(Diagnostic::error(message).at(source, span.clone()).help(help))
    }

    fn look(&self) -> Option<(String, &'static str)> {
        const READABLE: &str =
            "name a file that the user oncegate runs as may read; relative paths begin at the configuration file";
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) => return Some((format!("cannot be read: {}", reason(&error)), READABLE)),
        };
        match self.purpose {
            Purpose::Token => {
                let token = bytes.trim_ascii();
                let one_word = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
                (!one_word).then(|| ("does not hold one word".to_owned(), "write the token alone, without blanks"))
            }
            Purpose::Password => bytes
                .trim_ascii()
                .is_empty()
                .then(|| ("holds no password".to_owned(), "write the password alone on its first line")),
            Purpose::Secrets => match secrets::read(&self.path) {
                Ok(_) => None,
                Err(SecretsError::Empty) => {
                    Some(("holds no secret".to_owned(), "write one secret a line: openssl rand -hex 32"))
                }
                Err(SecretsError::Unreadable(error)) => Some((format!("cannot be read: {}", reason(&error)), READABLE)),
            },
            Purpose::Certificates => {
                let mut certificates = CertificateDer::pem_slice_iter(&bytes).peekable();
                let sound = certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok());
                (!sound).then(|| {
                    ("holds no certificate in PEM".to_owned(), "it must have a block -----BEGIN CERTIFICATE-----")
                })
            }
            Purpose::PrivateKey => match PrivateKeyDer::from_pem_slice(&bytes) {
                Ok(key) => self.misfit(key),
                Err(_) => Some((
                    "holds no private key in PEM".to_owned(),
                    "it must have a block -----BEGIN PRIVATE KEY-----, not encrypted",
                )),
            },
        }
    }
}

impl Named {
    /// What is wrong with a private key beside its certificate, when both are there.
    fn misfit(&self, key: PrivateKeyDer<'static>) -> Option<(String, &'static str)> {
        let certificate = self.certificate.as_ref()?;
        let chain = CertificateDer::pem_slice_iter(&fs::read(certificate).ok()?).collect::<Result<Vec<_>, _>>().ok()?;
        if chain.is_empty() {
            return None;
        }
        let wrong = crypto::fit(chain, key).err()?;
        Some(if matches!(wrong, rustls::Error::InconsistentKeys(_)) {
            (
                format!("is not the key of the certificate in {}", certificate.display()),
                "name the key that the certificate was made for; while both are being replaced, replace both before the reload",
            )
        } else {
            (
                format!("cannot be used with the certificate in {}: {wrong}", certificate.display()),
                "name a certificate chain and its private key; RSA (2048 bits or more), ECDSA P-256 or P-384, Ed25519",
            )
        })
    }
}

/// How to make a secret that nobody guesses, and only its user may read.
fn make(path: &Path) -> String {
    let shown = path.display();
    format!("make it: openssl rand -hex 32 > {shown}; chmod 600 {shown}")
}

/// The system's words without the error's number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
