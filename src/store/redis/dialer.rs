//! How a connection to a Redis server is made.

use std::{fs, io, path::PathBuf, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    RedisResult, TlsCertificates, aio::MultiplexedConnection, io::tcp::TcpSettings,
};

use crate::{config::settled::Redis, crypto};

/// For name look-up, TCP, TLS and the first commands.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Commands that wait for the connection's writer, at most; more wait for their turn, until their time is over.
const QUEUE: usize = 1024;

/// Credentials and certificates, and what to do with them.
#[derive(Clone)]
pub(super) struct Dialer {
    username: Option<String>,
    password: Option<String>,
    /// Where the password was read, and is read again: it may have changed when a new connection is made.
    password_file: Option<PathBuf>,
    tls: Option<TlsCertificates>,
}

impl Dialer {
    /// Reads the files that the configuration names.
    pub(super) fn new(config: &Redis) -> io::Result<Self> {
        crypto::install();
        let password = config.password_file.as_ref().map(fs::read_to_string).transpose()?;
        let root_cert = config.tls_ca.as_ref().map(fs::read).transpose()?;
        Ok(Self {
            username: config.username.clone(),
            password: password.map(|text| text.trim_end().to_owned()),
            password_file: config.password_file.clone(),
            tls: root_cert.map(|root_cert| TlsCertificates { client_tls: None, root_cert: Some(root_cert) }),
        })
    }

    /// Where a URL leads, with none but its own credentials.
    pub(super) fn bare(url: &str) -> RedisResult<ConnectionInfo> {
        let info = url.into_connection_info()?;
        // RESP3 notices an idle connection's end.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Ok(info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true)))
    }

    /// Where a URL leads, with the credentials of the configuration.
    pub(super) fn place(&self, url: &str) -> RedisResult<ConnectionInfo> {
        let info = Self::bare(url)?;
        let mut settings = info.redis_settings().clone();
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        Ok(info.set_redis_settings(settings))
    }

    /// The same place, with what the password's file says now, if it was the file's.
    fn with_password_of_today(&self, place: &ConnectionInfo) -> ConnectionInfo {
        let settings = place.redis_settings();
        let is_files = self.password.is_some() && settings.password() == self.password.as_deref();
        let file = self.password_file.as_ref().filter(|_| is_files);
        match file.and_then(|file| fs::read_to_string(file).ok()) {
            Some(password) => place.clone().set_redis_settings(settings.clone().set_password(password.trim_end())),
            None => place.clone(),
        }
    }

    /// A connection, whose driver runs on the calling task's runtime. It has no time-outs of its own.
    pub(super) async fn dial(&self, place: &ConnectionInfo) -> RedisResult<MultiplexedConnection> {
        let place = &self.with_password_of_today(place);
        let client = match &self.tls {
            Some(tls) if matches!(place.addr(), ConnectionAddr::TcpTls { .. }) => {
                Client::build_with_tls(place.clone(), tls.clone())?
            }
            Some(_) | None => Client::open(place.clone())?,
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE);
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// The same server in all but its address.
pub(super) fn elsewhere(template: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let address = if let ConnectionAddr::TcpTls { insecure, tls_params, .. } = template.addr() {
        ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    template.clone().set_addr(address)
}
