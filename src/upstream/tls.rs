//! TLS to an upstream: rustls, with the system's roots or a given authority.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use super::error::StartError;
use crate::{
    config::settled::{Upstream, UpstreamTarget},
    crypto,
};

/// The client configuration of an upstream, and the name that each of its urls must have a certificate for.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    /// By url; `None` where TLS is not spoken.
    pub(super) names: Vec<Option<ServerName<'static>>>,
}

impl Tls {
    /// Reads the files that the upstream names. `None`: none of its urls speaks TLS.
    pub(super) fn load(upstream: &Upstream) -> Result<Option<Self>, StartError> {
        if upstream.urls.iter().all(|url| !url.tls) {
            return Ok(None);
        }
        let unusable = |source| StartError::Tls { upstream: upstream.name.clone(), source };
        let roots = roots(upstream)?;
        let builder = ClientConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots);
        let mut config = match (&upstream.tls.cert, &upstream.tls.key) {
            (Some(cert), Some(key)) => {
                let file = |source| StartError::File { upstream: upstream.name.clone(), path: key.clone(), source };
                let key = PrivateKeyDer::from_pem_file(key).map_err(file)?;
                builder.with_client_auth_cert(certificates(upstream, cert)?, key).map_err(unusable)?
            }
            // The configuration demands both or none.
            (Some(_), None) | (None, Some(_)) | (None, None) => builder.with_no_client_auth(),
        };
        config.alpn_protocols =
            if upstream.http2 { vec![b"h2".into(), b"http/1.1".into()] } else { vec![b"http/1.1".into()] };
        let names = upstream.urls.iter().map(|url| url.tls.then(|| name(upstream, &url.target)).transpose());
        Ok(Some(Self { names: names.collect::<Result<_, _>>()?, config: Arc::new(config) }))
    }
}

fn name(upstream: &Upstream, target: &UpstreamTarget) -> Result<ServerName<'static>, StartError> {
    let name = match (&upstream.tls.server_name, target) {
        (Some(name), UpstreamTarget::Tcp(..) | UpstreamTarget::Unix(_)) => name,
        (None, UpstreamTarget::Tcp(host, _)) => host,
        (None, UpstreamTarget::Unix(_)) => "localhost",
    };
    ServerName::try_from(name.to_owned())
        .map_err(|_| StartError::ServerName { upstream: upstream.name.clone(), name: name.to_owned() })
}

fn roots(upstream: &Upstream) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &upstream.tls.ca {
        for certificate in certificates(upstream, ca)? {
            roots.add(certificate).map_err(|source| StartError::Tls { upstream: upstream.name.clone(), source })?;
        }
        return Ok(roots);
    }
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a root certificate of the system cannot be read");
    }
    let (taken, _) = roots.add_parsable_certificates(system.certs);
    if taken == 0 {
        // An image built from nothing has no roots of its own.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

fn certificates(upstream: &Upstream, path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let file = |source| StartError::File { upstream: upstream.name.clone(), path: path.to_owned(), source };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(file)?.collect::<Result<_, _>>().map_err(file)?;
    if certificates.is_empty() {
        return Err(StartError::NoCertificate { upstream: upstream.name.clone(), path: path.to_owned() });
    }
    Ok(certificates)
}
