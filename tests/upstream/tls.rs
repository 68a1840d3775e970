//! TLS to an upstream.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use oncegate::{
    config::settled::UpstreamTls,
    upstream::{SendError, StartError, Unsent, Upstreams},
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::script::{GUARDED, exchange, post, settings, url};

struct Authority {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), certificate.pem()).unwrap();
        Self { folder, issuer: rcgen::Issuer::new(params, key), certificate }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate for `name`, with its key.
    fn issue(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        (rcgen::CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Serves over TLS, telling the version it spoke; the port.
    async fn serve(&self, alpn: &[&[u8]], wants_client: bool) -> u16 {
        let (certificate, key) = self.issue("api.internal");
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                        let said = format!("{:?}", request.version());
                        Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(said))))
                    });
                    let io = TokioIo::new(stream);
                    if http2 {
                        _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await;
                    } else {
                        _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    }
                });
            }
        });
        port
    }

    fn upstream(&self, port: u16, http2: bool, change: impl FnOnce(&mut UpstreamTls)) -> Result<Upstreams, StartError> {
        let mut url = url(port);
        url.tls = true;
        let mut settings = settings(vec![url]);
        settings.http2 = http2;
        settings.tls.ca = Some(self.path("ca.crt"));
        settings.tls.server_name = Some("api.internal".into());
        change(&mut settings.tls);
        Upstreams::new(&[Arc::new(settings)], 1)
    }
}

#[tokio::test]
async fn the_version_is_what_both_sides_speak() {
    let authority = Authority::new();
    for (alpn, http2, spoken) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], true, "HTTP/2.0"),
        (&[b"h2".as_slice(), b"http/1.1"][..], false, "HTTP/1.1"),
        (&[b"http/1.1".as_slice()][..], true, "HTTP/1.1"),
        (&[][..], true, "HTTP/1.1"),
    ] {
        let upstreams = authority.upstream(authority.serve(alpn, false).await, http2, |_| {}).unwrap();
        for _ in 0..2 {
            assert_eq!(exchange(upstreams.get(0), post(), GUARDED).await.unwrap(), spoken);
        }
        assert_eq!(upstreams.get(0).connections(), 1, "{spoken}");
    }
}

// contract: R-11
#[tokio::test]
async fn a_certificate_that_is_not_to_be_trusted_is_never_sent_anything() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let port = authority.serve(&[], false).await;
    for upstreams in [
        authority.upstream(port, false, |tls| tls.ca = Some(stranger.path("ca.crt"))),
        authority.upstream(port, false, |tls| tls.server_name = Some("other.internal".into())),
        authority.upstream(port, false, |tls| tls.ca = None),
    ] {
        let upstreams = upstreams.unwrap();
        let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
        assert!(matches!(error, SendError::NeverSent(Unsent::Tls(_))), "{error:?}");
        assert_eq!(upstreams.get(0).connections(), 0);
    }
}

#[tokio::test]
async fn our_certificate_is_shown_to_who_asks_for_it() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("oncegate");
    std::fs::write(authority.path("c.crt"), certificate.pem()).unwrap();
    std::fs::write(authority.path("c.key"), key.serialize_pem()).unwrap();
    let port = authority.serve(&[], true).await;
    let upstreams = authority
        .upstream(port, false, |tls| {
            tls.cert = Some(authority.path("c.crt"));
            tls.key = Some(authority.path("c.key"));
        })
        .unwrap();
    assert_eq!(exchange(upstreams.get(0), post(), GUARDED).await.unwrap(), "HTTP/1.1");
    let without = authority.upstream(port, false, |_| {}).unwrap();
    assert!(without.get(0).send(post(), GUARDED).await.is_err());
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let authority = Authority::new();
    std::fs::write(authority.path("empty.crt"), "").unwrap();
    let missing = authority.upstream(1, false, |tls| tls.ca = Some("/nowhere/ca.crt".into())).unwrap_err();
    assert_eq!(missing.to_string(), "upstream payments: cannot read /nowhere/ca.crt");
    let empty = authority.upstream(1, false, |tls| tls.ca = Some(authority.path("empty.crt"))).unwrap_err();
    assert!(matches!(empty, StartError::NoCertificate { .. }), "{empty}");
    let (one, _) = authority.issue("a");
    let (_, other) = authority.issue("b");
    std::fs::write(authority.path("c.crt"), one.pem()).unwrap();
    std::fs::write(authority.path("c.key"), other.serialize_pem()).unwrap();
    let mismatch = authority.upstream(1, false, |tls| {
        tls.cert = Some(authority.path("c.crt"));
        tls.key = Some(authority.path("c.key"));
    });
    assert!(matches!(mismatch, Err(StartError::Tls { .. })));
}
