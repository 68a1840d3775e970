//! TLS towards clients: certificate, protocol versions, client certificates, and their change while we run.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::stream::Stream;
use crate::{
    config::settled::{self, ClientCertificate},
    crypto,
};

/// The protocol name of HTTP/2 (RFC 9113 s3.1).
const H2: &[u8] = b"h2";

/// TLS for the clients of a listener. Handshakes use the certificate that is current when they begin; connections that
/// are open keep theirs.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<ServerConfig>,
}

/// Why TLS cannot be had with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be opened or read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or lacks what it is for.
    #[error("{path} holds no {what} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// The key is not the certificate's, or one of them cannot be used.
    #[error("the certificate in {cert} cannot be used with the key in {key}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        #[source]
        source: rustls::Error,
    },
    /// An authority for client certificates cannot be used.
    #[error("the certificates in {path} are no authority for client certificates")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// The authorities for client certificates cannot be used together.
    #[error("the certificates in {path} are no authority for client certificates")]
    Verifier {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: VerifierBuilderError,
    },
    /// The machine has no randomness for session tickets.
    #[error("no key for session tickets can be made")]
    Ticketer(#[source] rustls::Error),
}

/// Files that were read, and fit together.
#[derive(Debug)]
pub struct Fitting(Arc<ServerConfig>);

impl Tls {
    /// Reads the files and checks that they fit together. Blocks for the reading.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn load(files: &settled::ServerTls) -> Result<Self, TlsError> {
        Self::look(files).map(|Fitting(config)| Self { current: ArcSwap::new(config) })
    }

    /// Reads the files, for [`Tls::change`]. Blocks for the reading.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn look(files: &settled::ServerTls) -> Result<Fitting, TlsError> {
        server_config(files).map(Arc::new).map(Fitting)
    }

    /// Reads the files anew; later handshakes use what they hold. Blocks for the reading.
    ///
    /// # Errors
    /// Which file is wrong, and how: then all stays as it was.
    pub fn reload(&self, files: &settled::ServerTls) -> Result<(), TlsError> {
        Self::look(files).map(|fitting| self.change(fitting))
    }

    /// Later handshakes use what these files held.
    pub fn change(&self, Fitting(config): Fitting) {
        self.current.store(config);
    }

    /// # Errors
    /// The handshake failed, or the transport did.
    pub(super) async fn handshake(&self, stream: Stream) -> io::Result<TlsStream<Stream>> {
        TlsAcceptor::from(self.current.load_full()).accept(stream).await
    }
}

/// Whether the handshake agreed on HTTP/2.
pub(super) fn speaks_http2(stream: &TlsStream<Stream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

/// Who the client's certificate says it is: its URIs, else its DNS names, else its subject, else, of nobody by name, its
/// key. All names of a kind count, since callers may share one of several, and their order does not. The prefix keeps one
/// kind from being taken for another; the latter two are given as DER, since the texts that are made of distinguished
/// names differ from library to library.
pub(super) fn subject(stream: &TlsStream<Stream>) -> Option<Arc<str>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    // rustls has parsed it already, so it parses.
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let name = if let Some(uris) = listed("uri:", certificate.valid_uri_names()) {
        uris
    } else if let Some(names) = listed("dns:", certificate.valid_dns_names()) {
        names
    } else if !certificate.subject().is_empty() {
        hexadecimal("subject:", certificate.subject())
    } else {
        hexadecimal("key:", &certificate.subject_public_key_info())
    };
    Some(name.into())
}

/// Names in an order of their own, each but a single one with its length, so that no two lists are the same text. `None`
/// of no names.
fn listed<'a>(prefix: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: BTreeSet<_> = names.collect();
    let first = names.first()?;
    if names.len() == 1 {
        return Some(format!("{prefix}{first}"));
    }
    Some(names.iter().map(|name| format!("{prefix}{}:{name}", name.len())).collect())
}

fn hexadecimal(prefix: &str, bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    std::iter::once(prefix.to_owned()).chain(digits).collect()
}

fn server_config(files: &settled::ServerTls) -> Result<ServerConfig, TlsError> {
    let settled::ServerTls { cert, key, client_ca, client_certificate } = files;
    let chain = certificates(cert)?;
    let private_key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|source| TlsError::Pem {
        path: key.clone(),
        what: "private key",
        source,
    })?;
    let provider = crypto::provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has cipher suites for both versions");
    let builder = match client_ca {
        Some(path) => builder.with_client_cert_verifier(client_verifier(path, *client_certificate, &provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, private_key).map_err(|source| TlsError::Pair {
        cert: cert.clone(),
        key: key.clone(),
        source,
    })?;
    // All suites are strong. The strongest both sides know is used, whatever a client names first.
    config.ignore_client_order = true;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    // A ticketer of each configuration's own: a session that one client authority vouched for is not resumed under another.
    config.ticketer = crypto::ticketer().map_err(TlsError::Ticketer)?;
    Ok(config)
}

fn client_verifier(
    path: &Path,
    certificate: ClientCertificate,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match certificate {
        ClientCertificate::Required => builder,
        ClientCertificate::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|source| TlsError::Verifier { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem_error = |source| TlsError::Pem { path: path.to_owned(), what: "certificate", source };
    let text = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(pem_error)?;
    if certificates.is_empty() { Err(pem_error(pem::Error::NoItemsFound)) } else { Ok(certificates) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
