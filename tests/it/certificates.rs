//! Callers told apart by their certificates, over real TLS.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::harness::*;

/// An authority for both sides, with its files and a server's in a directory.
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
        let this = Self { issuer: Issuer::new(params, key), certificate: certificate.der().clone(), directory };
        std::fs::write(this.path("ca.crt"), certificate.pem()).unwrap();
        let key = this.issue();
        std::fs::write(this.path("tls.key"), key).unwrap();
        this
    }

    /// Writes a new certificate for the server; its key.
    fn issue(&self) -> String {
        let server = named(&[SanType::DnsName("localhost".try_into().unwrap())], "server");
        let key = KeyPair::generate().unwrap();
        std::fs::write(self.path("tls.crt"), server.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        key.serialize_pem()
    }

    fn path(&self, file: &str) -> String {
        self.directory.path().join(file).display().to_string()
    }

    /// `[server]` lines for TLS with client certificates.
    pub(crate) fn lines(&self) -> String {
        let [cert, key, ca] = ["tls.crt", "tls.key", "ca.crt"].map(|file| self.path(file));
        format!("tls = {{ cert = \"{cert}\", key = \"{key}\", client_ca = \"{ca}\" }}")
    }

    /// A caller with a new key and a certificate of these names; without any certificate with `None`.
    fn caller(&self, params: Option<CertificateParams>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match params {
            None => builder.with_no_client_auth(),
            Some(params) => {
                let key = KeyPair::generate().unwrap();
                let certificate = params.signed_by(&key, &self.issuer).unwrap();
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        })
    }
}

fn named(names: &[SanType], subject: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

/// Sends a charge in a TLS session of its own; status, outcome and body.
async fn charge(proxy: &Proxy, caller: &Arc<ClientConfig>) -> std::io::Result<(String, String, String)> {
    let stream = tokio::net::TcpStream::connect(proxy.address()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(caller)).connect(name, stream).await?;
    stream.write_all(&proxy.post("/v1/charges").key("k").field("Connection", "close").bytes()).await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
    let outcome = head.split("idempotency-status: ").nth(1).unwrap_or_default();
    let outcome = outcome.split([';', '\r']).next().unwrap_or_default();
    Ok((head.get(9..12).unwrap_or_default().to_owned(), outcome.to_owned(), body.to_owned()))
}

// contract: P-3
// contract: R-5
#[tokio::test]
async fn callers_of_one_key_never_see_each_others_answers_and_a_renewed_certificate_is_the_same_caller() {
    let authority = Authority::new();
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream).server(&authority.lines()).policy("scope = [\"tls:subject\"]");
    let proxy = Proxy::start(config).await;
    let uri = |name: &str| SanType::URI(format!("spiffe://test/{name}").try_into().unwrap());
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    // Each pair differs in what counts, and is equal in what comes after it.
    let callers = [
        named(&[dns("same.test"), uri("a")], "same"),
        named(&[dns("same.test"), uri("b")], "same"),
        named(&[dns("a.test")], "same"),
        named(&[dns("b.test")], "same"),
        named(&[dns("a.test"), dns("b.test")], "same"),
        named(&[dns("a.test"), dns("c.test")], "same"),
        named(&[], "a"),
        named(&[], "b"),
    ];
    let mut bodies = Vec::new();
    for params in &callers {
        let (status, outcome, body) = soon(charge(&proxy, &authority.caller(Some(params.clone())))).await.unwrap();
        assert_eq!((&*status, &*outcome), ("200", "executed"), "{params:?}");
        assert!(!bodies.contains(&body), "{body}");
        bodies.push(body);
    }
    assert_eq!(upstream.executions(), callers.len());
    for (params, body) in callers.iter().zip(&bodies) {
        let again = soon(charge(&proxy, &authority.caller(Some(params.clone())))).await.unwrap();
        assert_eq!(again, ("200".to_owned(), "replayed".to_owned(), body.clone()), "{params:?}");
    }
    // What comes after the name that counts changes nothing.
    let moved = named(&[dns("other.test"), uri("a")], "other");
    let again = soon(charge(&proxy, &authority.caller(Some(moved)))).await.unwrap();
    assert_eq!((&*again.1, &again.2), ("replayed", &bodies[0]));
    assert_eq!(upstream.executions(), callers.len());
}

#[tokio::test]
async fn with_an_authority_for_clients_nobody_comes_without_a_certificate_of_it() {
    let authority = Authority::new();
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream).server(&authority.lines()).policy("scope = [\"tls:subject\"]");
    let proxy = Proxy::start(config).await;
    soon(charge(&proxy, &authority.caller(None))).await.unwrap_err();
    let stranger = Authority::new();
    let mut forged = (*stranger.caller(Some(named(&[], "a")))).clone();
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let trusting = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    forged = trusting.with_client_cert_resolver(Arc::clone(&forged.client_auth_cert_resolver));
    soon(charge(&proxy, &Arc::new(forged))).await.unwrap_err();
    assert_eq!(upstream.executions(), 0);
}

#[tokio::test]
async fn where_certificates_are_optional_a_caller_without_one_is_one_without_a_scope() {
    let authority = Authority::new();
    let upstream = Upstream::start().await;
    let lines = authority.lines().replace(" }", ", client_certificate = \"optional\" }");
    let proxy = Proxy::start(Config::new(&upstream).server(&lines).policy("scope = [\"tls:subject\"]")).await;
    let with = |name| authority.caller(Some(named(&[], name)));
    let (a, nobody) =
        (soon(charge(&proxy, &with("a"))).await.unwrap(), soon(charge(&proxy, &authority.caller(None))).await);
    assert_eq!((&*a.0, &*a.1), ("200", "executed"));
    let nobody = nobody.unwrap();
    assert_eq!((&*nobody.0, &*nobody.1), ("200", "executed"), "without a certificate it is nobody's");
    assert_ne!(nobody.2, a.2);
    let stranger = Authority::new();
    let mut forged = (*authority.caller(None)).clone();
    forged.client_auth_cert_resolver = Arc::clone(&stranger.caller(Some(named(&[], "a"))).client_auth_cert_resolver);
    soon(charge(&proxy, &Arc::new(forged))).await.unwrap_err();
    assert_eq!(upstream.executions(), 2);
    proxy.says(&["WARN", "turned away", "TLS handshake failed"]).await;
    let refused = proxy.metrics().await.sum("oncegate_refused_total", &[("reason", "tls-handshake")]);
    assert!(refused >= 1.0, "{refused}");
}

#[tokio::test]
async fn a_certificate_without_its_key_changes_nothing_and_is_taken_up_when_the_key_comes() {
    let authority = Authority::new();
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream).server(&authority.lines()).policy("scope = [\"tls:subject\"]");
    let proxy = Proxy::start(config.clone()).await;
    let caller = authority.caller(Some(named(&[], "a")));
    let reloads = |result| {
        let proxy = &proxy;
        async move { proxy.metrics().await.sum("oncegate_config_reloads_total", &[("result", result)]) }
    };
    let key = authority.issue();
    proxy.reload(&config.clone().policy("key_required = true"), "failed").await;
    proxy.says(&["error:", "is not the key of the certificate"]).await;
    soon(charge(&proxy, &caller)).await.unwrap();
    assert_eq!(reloads("ok").await, 0.0, "neither the policy nor the certificate");
    std::fs::write(authority.path("tls.key"), key).unwrap();
    eventually("both are taken up", || async { reloads("ok").await >= 1.0 }).await;
    soon(charge(&proxy, &caller)).await.unwrap();
    let before = reloads("ok").await;
    let key = authority.issue();
    std::fs::write(authority.path("tls.key"), key).unwrap();
    eventually("a renewed certificate is counted", || async { reloads("ok").await > before }).await;
}
