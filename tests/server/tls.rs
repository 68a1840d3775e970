//! TLS towards clients.

use std::{path::Path, sync::Arc};

use oncegate::{
    config::settled::{ClientCertificate, ServerTls},
    server::{Tls, TlsError},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{Server, limits};

/// An authority that signs certificates into a directory.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key), certificate: certificate.der().clone() }
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.directory.path().join(file)
    }

    fn sign(&self, names: Vec<SanType>) -> (CertificateDer<'static>, String, KeyPair) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), certificate.pem(), key)
    }

    /// Writes a certificate for `localhost` and its key.
    pub(crate) fn issue(&self) -> (CertificateDer<'static>, ServerTls) {
        let (der, pem, key) = self.sign(vec![SanType::DnsName("localhost".try_into().unwrap())]);
        std::fs::write(self.path("tls.crt"), pem).unwrap();
        std::fs::write(self.path("tls.key"), key.serialize_pem()).unwrap();
        (
            der,
            ServerTls {
                cert: self.path("tls.crt"),
                key: self.path("tls.key"),
                client_ca: None,
                client_certificate: ClientCertificate::Required,
            },
        )
    }

    pub(crate) fn client(&self, protocols: &[&str], names: Option<Vec<SanType>>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match names {
            None => builder.with_no_client_auth(),
            Some(names) => {
                let (certificate, _, key) = self.sign(names);
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    pub(crate) async fn connect(
        &self,
        stream: tokio::net::TcpStream,
        config: ClientConfig,
    ) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

async fn connect(server: &Server, config: ClientConfig) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let stream = tokio::net::TcpStream::connect(server.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

async fn who(server: &Server, config: ClientConfig) -> std::io::Result<String> {
    let mut client = connect(server, config).await?;
    client.write_all(b"GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
    let mut said = String::new();
    client.read_to_string(&mut said).await?;
    Ok(said)
}

fn shown(client: &TlsStream<tokio::net::TcpStream>) -> CertificateDer<'static> {
    client.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn http1_is_spoken_within_tls() {
    let authority = Authority::new();
    let server = Server::with_tls(limits(), Arc::new(Tls::load(&authority.issue().1).unwrap()));
    let said = who(&server, authority.client(&[], None)).await.unwrap();
    assert!(said.contains("tls: true, tls_subject: None, http2: false"), "{said}");
}

#[tokio::test]
async fn http2_is_agreed_on_by_alpn() {
    let authority = Authority::new();
    let server = Server::with_tls(limits(), Arc::new(Tls::load(&authority.issue().1).unwrap()));
    let stream = connect(&server, authority.client(&["h2", "http/1.1"], None)).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/who").body(()).unwrap();
    let mut body = sender.send_request(request, true).unwrap().0.await.unwrap().into_body();
    let said = body.data().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&said).contains("tls: true, tls_subject: None, http2: true"), "{said:?}");
}

#[tokio::test]
async fn the_strongest_cipher_suite_is_chosen_whatever_a_client_prefers() {
    let authority = Authority::new();
    let server = Server::with_tls(limits(), Arc::new(Tls::load(&authority.issue().1).unwrap()));
    let strongest = [
        (&rustls::version::TLS13, rustls::CipherSuite::TLS13_AES_256_GCM_SHA384),
        (&rustls::version::TLS12, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ];
    for (version, expected) in strongest {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.reverse();
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]).unwrap();
        let client = connect(&server, builder.with_root_certificates(roots).with_no_client_auth()).await.unwrap();
        assert_eq!(client.get_ref().1.negotiated_cipher_suite().unwrap().suite(), expected);
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    let authority = Authority::new();
    let files = ServerTls { client_ca: Some(authority.path("ca.crt")), ..authority.issue().1 };
    let server = Server::with_tls(limits(), Arc::new(Tls::load(&files).unwrap()));
    who(&server, authority.client(&[], None)).await.unwrap_err();
    let stranger = Authority::new();
    let mut of_another = stranger.client(&[], Some(vec![]));
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    of_another.dangerous().set_certificate_verifier(
        rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(aws_lc_rs::default_provider()),
        )
        .build()
        .unwrap(),
    );
    who(&server, of_another).await.unwrap_err();
    assert_eq!(server.handled(), 0);
}

// contract: R-5
#[tokio::test]
async fn a_client_is_named_by_the_uri_then_the_dns_name_then_the_subject_of_its_certificate() {
    let authority = Authority::new();
    let files = ServerTls { client_ca: Some(authority.path("ca.crt")), ..authority.issue().1 };
    let server = Server::with_tls(limits(), Arc::new(Tls::load(&files).unwrap()));
    let dns = || SanType::DnsName("client.example".try_into().unwrap());
    let uri = || SanType::URI("spiffe://example/shop".try_into().unwrap());
    for (names, subject) in [
        (vec![dns(), uri()], r#"Some("uri:spiffe://example/shop")"#),
        (vec![dns()], r#"Some("dns:client.example")"#),
        (vec![], r#"Some("subject:311f301d06035504030c16"#),
    ] {
        let said = who(&server, authority.client(&[], Some(names))).await.unwrap();
        assert!(said.contains(subject), "{said}");
    }
}

#[tokio::test]
async fn a_reload_changes_the_certificate_and_drops_no_connection() {
    let authority = Authority::new();
    let (first, files) = authority.issue();
    let tls = Arc::new(Tls::load(&files).unwrap());
    let server = Server::with_tls(limits(), Arc::clone(&tls));
    let mut old = connect(&server, authority.client(&[], None)).await.unwrap();
    assert_eq!(shown(&old), first);

    let (second, files) = authority.issue();
    tls.reload(&files).unwrap();
    let new = connect(&server, authority.client(&[], None)).await.unwrap();
    assert_eq!(shown(&new), second);
    old.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut said = String::new();
    old.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

#[tokio::test]
async fn a_reload_of_wrong_files_says_which_and_keeps_the_old() {
    let authority = Authority::new();
    let (first, files) = authority.issue();
    let tls = Arc::new(Tls::load(&files).unwrap());
    let server = Server::with_tls(limits(), Arc::clone(&tls));

    let good_key = std::fs::read(&files.key).unwrap();
    std::fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = tls.reload(&files).unwrap_err();
    assert!(matches!(&error, TlsError::Pair { key, .. } if *key == files.key), "{error}");

    let missing = ServerTls { cert: authority.path("none.crt"), ..files.clone() };
    let error = tls.reload(&missing).unwrap_err();
    assert!(matches!(&error, TlsError::Read { path, .. } if *path == missing.cert), "{error}");

    std::fs::write(&files.key, "not a key").unwrap();
    let error = tls.reload(&files).unwrap_err();
    assert_eq!(error.to_string(), format!("{} holds no private key in PEM form", files.key.display()));

    std::fs::write(&files.key, good_key).unwrap();
    let no_authority = ServerTls { client_ca: Some(empty(&authority.path("empty.crt"))), ..files };
    assert!(matches!(tls.reload(&no_authority).unwrap_err(), TlsError::Pem { what: "certificate", .. }));

    let client = connect(&server, authority.client(&[], None)).await.unwrap();
    assert_eq!(shown(&client), first);
}

fn empty(path: &Path) -> std::path::PathBuf {
    std::fs::write(path, "").unwrap();
    path.to_owned()
}

#[test]
fn a_handshake_that_does_not_begin_is_closed_in_time() {
    let authority = Authority::new();
    let limits = oncegate::server::Limits { header_timeout: std::time::Duration::from_millis(300), ..limits() };
    let server = Server::with_tls(limits, Arc::new(Tls::load(&authority.issue().1).unwrap()));
    let mut silent = server.client();
    assert_eq!(silent.read_to_end().unwrap(), "");
    let mut half = server.client();
    half.send([0x16, 3, 1, 2, 0]);
    assert_eq!(half.read_to_end().unwrap(), "");
}
