//! How servers are to be set up, and the files that this needs.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;

/// An ACL user besides the one of these tests.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: String,
    /// As after `ACL SETUSER name on >password`: `~oncegate:* +@all`.
    pub(crate) rules: String,
}

/// What a server is started with. By default: no user, no TLS, nothing written to disk, no limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    user: Option<User>,
    tls: bool,
    settings: Vec<(String, String)>,
}

impl Options {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Nobody is served but that user (and these tests).
    pub(crate) fn user(mut self, name: &str, password: &str, rules: &str) -> Self {
        self.user = Some(User { name: name.into(), password: password.into(), rules: rules.into() });
        self
    }

    /// Only TLS is spoken, among the servers too.
    pub(crate) fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Keeps an append-only file, with `appendfsync` of `always`, `everysec` or `no`.
    pub(crate) fn append_only(self, fsync: &str) -> Self {
        self.set("appendonly", "yes").set("appendfsync", fsync)
    }

    /// `maxmemory`, in bytes.
    pub(crate) fn max_memory(self, bytes: u64) -> Self {
        self.set("maxmemory", &bytes.to_string())
    }

    /// Any other setting of `redis.conf`. One that is set again replaces the earlier.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(have, _)| have != name);
        self.settings.push((name.into(), value.into()));
        self
    }
}

const ADMIN: &str = "tests";
const ADMIN_PASSWORD: &str = "pw-of-the-tests";

/// What several servers of one deployment share: options, certificates, the password's file.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) options: Options,
    directory: TempDir,
}

impl Common {
    pub(crate) fn new(options: Options) -> Self {
        let directory = tempfile::Builder::new().prefix("redis-common-").tempdir().unwrap();
        if options.tls {
            write_certificates(directory.path());
        }
        if let Some(user) = &options.user {
            std::fs::write(directory.path().join("password"), format!("{}\n", user.password)).unwrap();
        }
        Self { options, directory }
    }

    /// `redis` or `rediss`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.options.tls { "rediss" } else { "redis" }
    }

    pub(crate) fn username(&self) -> Option<&str> {
        self.options.user.as_ref().map(|user| user.name.as_str())
    }

    pub(crate) fn password_file(&self) -> Option<PathBuf> {
        self.options.user.as_ref().map(|_| self.directory.path().join("password"))
    }

    pub(crate) fn tls_ca(&self) -> Option<PathBuf> {
        self.options.tls.then(|| self.directory.path().join("ca.crt"))
    }

    /// The lines of `[store.redis]` that say who one is and whom one trusts.
    pub(crate) fn credentials_toml(&self) -> String {
        let mut lines = String::new();
        if let Some(name) = self.username() {
            writeln!(lines, "username = \"{name}\"").unwrap();
        }
        for (key, path) in [("password_file", self.password_file()), ("tls_ca", self.tls_ca())] {
            if let Some(path) = path {
                writeln!(lines, "{key} = \"{}\"", path.display()).unwrap();
            }
        }
        lines
    }

    /// Lines of `redis.conf` about the port, TLS and users.
    pub(crate) fn conf(&self, port: u16) -> String {
        let mut lines = String::new();
        if self.options.tls {
            let path = |file| self.directory.path().join(file).display().to_string();
            write!(
                lines,
                "port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no\n\
                 tls-ca-cert-file {}\ntls-cert-file {}\ntls-key-file {}\n",
                path("ca.crt"),
                path("redis.crt"),
                path("redis.key")
            )
            .unwrap();
        } else {
            writeln!(lines, "port {port}").unwrap();
        }
        lines
    }

    /// Lines of `redis.conf` for a server that holds data.
    pub(crate) fn data_conf(&self) -> String {
        let mut lines = String::new();
        if let Some(User { name, password, rules }) = &self.options.user {
            write!(
                lines,
                "user default off\nuser {ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all\nuser {name} on >{password} {rules}\n\
                 masteruser {ADMIN}\nmasterauth {ADMIN_PASSWORD}\n"
            )
            .unwrap();
        }
        for (name, value) in &self.options.settings {
            writeln!(lines, "{name} {value}").unwrap();
        }
        lines
    }

    /// Lines of a sentinel's configuration about how it logs in to the servers.
    pub(crate) fn sentinel_conf(&self, master: &str) -> String {
        self.options.user.as_ref().map_or_else(String::new, |_| {
            format!("sentinel auth-user {master} {ADMIN}\nsentinel auth-pass {master} {ADMIN_PASSWORD}\n")
        })
    }

    /// What `redis-cli` needs to log in to a server that holds data.
    pub(crate) fn cli_login(&self) -> Vec<String> {
        self.options.user.as_ref().map_or_else(Vec::new, |_| {
            ["--user", ADMIN, "--pass", ADMIN_PASSWORD, "--no-auth-warning"].map(str::to_owned).to_vec()
        })
    }

    /// What `redis-cli` needs to reach a server by its port.
    pub(crate) fn cli_tls(&self) -> Vec<String> {
        self.tls_ca().map_or_else(Vec::new, |ca| vec!["--tls".into(), "--cacert".into(), ca.display().to_string()])
    }
}

fn write_certificates(directory: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate for self-signed whose subject is its issuer.
    params.distinguished_name.push(DnType::CommonName, "the authority of the tests");
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)), SanType::DnsName("localhost".try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    for (file, pem) in
        [("ca.crt", authority.pem()), ("redis.crt", certificate.pem()), ("redis.key", key.serialize_pem())]
    {
        std::fs::write(directory.join(file), pem).unwrap();
    }
}
