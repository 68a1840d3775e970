//! Records that a change of the store leaves behind. Such a change needs a restart, and a restart asks nobody, so
//! `check --against` says so.

use redis::{ConnectionAddr, IntoConnectionInfo as _};
use serde_json::{Value, json};

use crate::{
    config::{
        secrets::{self, Secrets},
        settled::{Redis, RedisServers, Store, StoreKind},
    },
    rule::identity::IdKey,
};

/// What is changed, and what it does to the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftBehind {
    key: &'static str,
    pub(super) message: String,
}

impl LeftBehind {
    fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }

    /// For scripts.
    pub(super) fn to_json(&self) -> Value {
        json!({"key": self.key, "message": self.message})
    }
}

/// What of the old store's records a process with the new configuration would not find. `restart` is whether anything
/// that changes needs one.
pub(super) fn left_behind(old: &Store, new: &Store, restart: bool) -> Vec<LeftBehind> {
    match (&old.kind, &new.kind) {
        (StoreKind::Memory { .. }, _) if restart => vec![LeftBehind::new(
            "store.kind",
            "the memory store's records end with its process: the restart forgets them all, and retries of earlier \
             requests run again",
        )],
        (StoreKind::Memory { .. }, _) => Vec::new(),
        (StoreKind::Redis(_), StoreKind::Memory { .. }) => vec![LeftBehind::new(
            "store.kind",
            "`[store] kind` changes from redis to memory: the records stay in Redis, out of reach, and retries of earlier \
             requests run again",
        )],
        (StoreKind::Redis(was), StoreKind::Redis(is)) => {
            let mut found = Vec::new();
            found.extend(servers(&was.servers, &is.servers));
            if was.prefix != is.prefix {
                let message = "`prefix` of `[store.redis]` changes: records under the old one are out of reach, and \
                               retries of earlier requests run again";
                found.push(LeftBehind::new("store.redis.prefix", message));
            }
            found.extend(secret(old, new, was));
            found
        }
    }
}

/// Whether the records may be elsewhere. One server has many names: what differs may be the same all the same.
fn servers(was: &RedisServers, is: &RedisServers) -> Option<LeftBehind> {
    let (key, same) = match (was, is) {
        (RedisServers::Single(was), RedisServers::Single(is)) => ("store.redis.url", place(was) == place(is)),
        (RedisServers::Cluster(was), RedisServers::Cluster(is)) => ("store.redis.cluster", share(was, is)),
        (RedisServers::Sentinel { master: was, nodes: were }, RedisServers::Sentinel { master: is, nodes: are }) => {
            let database = |nodes: &[String]| nodes.first().and_then(|url| Some(place(url)?.1));
            ("store.redis.sentinel", was == is && database(were) == database(are) && share(were, are))
        }
        (_, RedisServers::Single(_)) => ("store.redis.url", false),
        (_, RedisServers::Cluster(_)) => ("store.redis.cluster", false),
        (_, RedisServers::Sentinel { .. }) => ("store.redis.sentinel", false),
    };
    let name = key.rsplit('.').next().unwrap_or(key);
    let message = format!(
        "`{name}` of `[store.redis]` changes: unless it leads to the same servers and database as before, all records are \
         out of reach, and retries of earlier requests run again"
    );
    (!same).then(|| LeftBehind::new(key, message))
}

/// Where a URL leads, whoever asks there, and by TLS or not: host and port, and the database.
fn place(url: &str) -> Option<((String, u16), i64)> {
    let info = url.into_connection_info().ok()?;
    let address = if let ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } = info.addr() {
        (host.clone(), *port)
    } else {
        (info.addr().to_string(), 0)
    };
    Some((address, info.redis_settings().db()))
}

/// Whether two lists name a node in common: each leads to the rest.
fn share(one: &[String], other: &[String]) -> bool {
    let address = |url: &String| place(url).map(|(address, _)| address);
    one.iter().any(|url| other.iter().any(|other| address(url) == address(other)))
}

/// Whether records would have other ids, or their answers could not be opened.
fn secret(old: &Store, new: &Store, redis: &Redis) -> Option<LeftBehind> {
    const KEY: &str = "store.secret_file";
    let read = |store: &Store| store.secret_file.as_deref().map(secrets::read).transpose();
    let (Ok(was), Ok(is)) = (read(old), read(new)) else {
        // The file may be another machine's.
        let message = "`secret_file` names another file, and one of the two cannot be read here: unless its last secret \
                       is the same, all records are out of reach, and retries of earlier requests run again";
        return (old.secret_file != new.secret_file).then(|| LeftBehind::new(KEY, message));
    };
    let id_key = |secrets: &Option<Secrets>| {
        secrets.as_ref().map_or_else(IdKey::fixed, |secrets| IdKey::from_secret(secrets.id_key()))
    };
    if id_key(&was).0 != id_key(&is).0 {
        let message = "the last secret of `secret_file` changes: it keys the records' ids, so all records are out of reach, \
                       and the new process ends at once (exit 69) because they are another's; keep the last, and put a \
                       new one before it";
        return Some(LeftBehind::new(KEY, message));
    }
    let opens = |sealing: &[u8]| is.iter().flat_map(Secrets::opening).any(|secret| secret == sealing);
    let message = "`secret_file` no longer has the secret that sealed stored answers: they cannot be opened, and their \
                   retries are refused; keep it below the new first one";
    let sealed = was.as_ref().filter(|_| redis.encrypt);
    sealed.is_some_and(|was| !opens(was.sealing())).then(|| LeftBehind::new(KEY, message))
}
