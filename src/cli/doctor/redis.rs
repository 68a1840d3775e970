//! The Redis servers: reachable, willing, lasting, ours, and of one mind about the time.

mod clocks;
mod commands;
pub(super) mod layout;
mod mark;

use std::{fs, io, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, InfoDict, IntoConnectionInfo as _,
    RedisError, RedisResult, TlsCertificates, aio::MultiplexedConnection, cmd,
};

use self::clocks::Clocks;
use super::Report;
use crate::{
    clock,
    config::settled::{Redis, RedisServers, Store},
};

/// For the connection itself; single commands have `store.redis.timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the key of the round trip lives if it cannot be deleted.
const PROBE_MS: u64 = 10_000;
/// A key drawn at random lies on a given master of a cluster with at least this many tries' luck.
const PROBE_TRIES: u8 = 100;
const SUBJECT: &str = "redis";
/// What the store needs to be allowed, as `docs/redis.md` has it.
const COMMANDS: &str = "+eval +evalsha +script|load +get +set +getrange +setrange +del +exists +pttl +pexpire +zadd \
                        +zrem +zrange +scan +dbsize +info +wait +select +asking +cluster|slots";

/// Examines every server of `[store.redis]`.
pub(super) async fn examine(store: &Store, redis: &Redis, report: &mut Report) {
    let doctor = match Doctor::new(store, redis) {
        Ok(doctor) => doctor,
        Err(error) => return report.failure(SUBJECT, error.to_string(), "mend store.redis.password_file or tls_ca"),
    };
    let masters = match &redis.servers {
        RedisServers::Single(url) => doctor.parsed(url, report).into_iter().collect(),
        RedisServers::Sentinel { master, nodes } => doctor.ask_sentinels(master, nodes, report).await,
        RedisServers::Cluster(nodes) => doctor.ask_cluster(nodes, report).await,
    };
    let mut clocks = Clocks::default();
    for master in masters {
        doctor.examine_master(master, &mut clocks, report).await;
    }
    clocks.compare(store, report);
}

struct Doctor<'a> {
    store: &'a Store,
    redis: &'a Redis,
    password: Option<String>,
    tls: Option<TlsCertificates>,
}

impl<'a> Doctor<'a> {
    fn new(store: &'a Store, redis: &'a Redis) -> io::Result<Self> {
        let password = redis.password_file.as_ref().map(fs::read_to_string).transpose()?;
        let root_cert = redis.tls_ca.as_ref().map(fs::read).transpose()?;
        Ok(Self {
            store,
            redis,
            password: password.map(|text| text.trim_end().to_owned()),
            tls: root_cert.map(|root_cert| TlsCertificates { client_tls: None, root_cert: Some(root_cert) }),
        })
    }

    /// A URL with the user and password of the file; says so when it is none.
    fn parsed(&self, url: &str, report: &mut Report) -> Option<ConnectionInfo> {
        match url.into_connection_info() {
            Ok(info) => Some(self.with_credentials(info)),
            // The URL may hold a password: it is not repeated.
            Err(error) => {
                report.failure(
                    SUBJECT,
                    format!("a url cannot be read: {error}"),
                    "write redis://HOST:PORT/DB or rediss://…",
                );
                None
            }
        }
    }

    fn with_credentials(&self, info: ConnectionInfo) -> ConnectionInfo {
        let mut settings = info.redis_settings().clone();
        if let Some(username) = &self.redis.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        info.set_redis_settings(settings)
    }

    async fn connect(&self, info: ConnectionInfo) -> RedisResult<MultiplexedConnection> {
        let client = match &self.tls {
            Some(tls) if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) => {
                Client::build_with_tls(info, tls.clone())?
            }
            Some(_) | None => Client::open(info)?,
        };
        let timeouts = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.redis.timeout));
        client.get_multiplexed_async_connection_with_config(&timeouts).await
    }

    async fn examine_master(&self, info: ConnectionInfo, clocks: &mut Clocks, report: &mut Report) {
        let subject = format!("redis {}", info.addr());
        let template = info.clone();
        let mut master = match self.connect(info).await {
            Ok(connection) => connection,
            Err(error) => return report.failure(&subject, told(&error), remedy(&error)),
        };
        self.round_trip(&subject, &mut master, report).await;
        commands::examine(self.redis, &subject, &mut master, report).await;
        mark::examine(self.store, &self.redis.prefix, &subject, &mut master, report).await;
        let facts: InfoDict = match cmd("INFO").query_async(&mut master).await {
            Ok(facts) => facts,
            Err(error) => {
                return report.failure(
                    &subject,
                    format!("INFO: {}", told(&error)),
                    "let this user run INFO, or guarded requests are refused",
                );
            }
        };
        let fact = |name: &str| facts.get::<String>(name).unwrap_or_default();

        if fact("role") == "slave" {
            report.failure(&subject, "is a replica: it takes no writes", "name its master, or use sentinel");
        }
        let version = fact("redis_version");
        if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < 7) {
            report.failure(
                &subject,
                format!("is Redis {version}: the store's script needs 7"),
                "upgrade it, or guarded requests are refused",
            );
        }
        self.eviction(&subject, &fact, report);
        let saves: Option<(String, String)> = cmd("CONFIG").arg("GET").arg("save").query_async(&mut master).await.ok();
        persistence(&subject, &fact, saves.map(|(_, value)| value), report);
        self.replicas(&subject, &fact, report);

        clocks.ask(&mut master, subject).await;
        for (host, port) in replicas(&facts) {
            let subject = format!("redis replica {host}:{port}");
            match self.connect(elsewhere(&template, host, port)).await {
                Ok(mut replica) => clocks.ask(&mut replica, subject).await,
                Err(error) => report.warning(&subject, told(&error), "start it, or take it out: it cannot take over"),
            }
        }
    }

    /// Writes and reads one key in a script, as a claim does.
    async fn round_trip(&self, subject: &str, master: &mut MultiplexedConnection, report: &mut Report) {
        const SCRIPT: &str = "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return redis.call('GET', KEYS[1])";
        let mut tries = 0;
        let outcome = loop {
            tries += 1;
            let token = format!("{:08x}", getrandom::u32().unwrap_or_default());
            let key = format!("{}doctor:{token}", self.redis.prefix);
            let begun = clock::now();
            let read: RedisResult<String> =
                cmd("EVAL").arg(SCRIPT).arg(1).arg(&key).arg(&token).arg(PROBE_MS).query_async(master).await;
            match read {
                Ok(read) if read == token => {
                    let took = begun.elapsed();
                    self.acknowledged(subject, master, report).await;
                    // It would expire by itself.
                    let _: RedisResult<i64> = cmd("DEL").arg(&key).query_async(master).await;
                    break Ok(took);
                }
                Ok(read) => {
                    break Err((format!("wrote {token} and read {read}"), "find what else writes to it".to_owned()));
                }
                // The slot is another master's: draw another key.
                Err(error) if error.redirect_node().is_some() && tries < PROBE_TRIES => {}
                Err(error) => break Err((told(&error), remedy(&error))),
            }
        };
        let shown = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1_000.0);
        match outcome {
            Ok(took) if took > self.redis.timeout / 4 => report.warning(
                subject,
                format!("a round trip took {}, near store.redis.timeout ({:?})", shown(took), self.redis.timeout),
                "bring it nearer, or raise the timeout",
            ),
            Ok(took) => report.ok(subject, format!("writes and reads ({})", shown(took))),
            Err((error, remedy)) => report.failure(subject, format!("the round trip failed: {error}"), remedy),
        }
    }

    /// Whether as many replicas as a claim needs have what was written last on this connection (contract: S-2).
    async fn acknowledged(&self, subject: &str, master: &mut MultiplexedConnection, report: &mut Report) {
        let wanted = self.redis.replicas;
        if wanted == 0 {
            return;
        }
        let patience = u64::try_from(self.redis.timeout.as_millis() / 2).unwrap_or(u64::MAX).max(1);
        let answer: RedisResult<u32> = cmd("WAIT").arg(wanted).arg(patience).query_async(master).await;
        if let Ok(count) = answer
            && count < wanted
        {
            report.failure(
                subject,
                format!("replicas that acknowledged a write: {count}; store.redis.replicas wants {wanted}"),
                "start them, or see why they are slow: every guarded request is refused",
            );
        }
    }

    /// Contract: S-3.
    fn eviction(&self, subject: &str, fact: &impl Fn(&str) -> String, report: &mut Report) {
        let policy = fact("maxmemory_policy");
        let evicted = fact("evicted_keys").parse::<u64>().unwrap_or(0);
        match policy.as_str() {
            "" => report.warning(
                subject,
                "does not say its maxmemory-policy",
                "see that INFO tells it, or guarded requests are refused",
            ),
            "noeviction" => report.ok(subject, "maxmemory-policy is noeviction"),
            policy if self.store.allow_eviction => report.warning(
                subject,
                format!("maxmemory-policy is {policy}: when full, it forgets live records (allow_eviction = true)"),
                "CONFIG SET maxmemory-policy noeviction, for at most once",
            ),
            policy => report.failure(
                subject,
                format!("maxmemory-policy is {policy}: when full, it forgets live records"),
                "CONFIG SET maxmemory-policy noeviction, or guarded requests are refused",
            ),
        }
        if evicted > 0 {
            report.warning(
                subject,
                format!("has evicted {evicted} keys since its start"),
                "see whether they were Oncegate's",
            );
        }
    }

    /// Contract: S-2, S-9.
    fn replicas(&self, subject: &str, fact: &impl Fn(&str) -> String, report: &mut Report) {
        let connected = fact("connected_slaves").parse::<u32>().unwrap_or(0);
        let wanted = self.redis.replicas;
        if connected < wanted {
            report.failure(
                subject,
                format!("connected replicas: {connected}; store.redis.replicas wants {wanted} to acknowledge"),
                "start them, or every guarded request is refused",
            );
        } else if wanted == 0 && connected > 0 {
            report.warning(
                subject,
                format!("connected replicas: {connected}; claims wait for none, so a failover can lose some"),
                "set store.redis.replicas = 1",
            );
        } else {
            report.ok(subject, format!("connected replicas: {connected}; {wanted} must acknowledge"));
        }
    }
}

/// The same server in all but its address.
fn elsewhere(template: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = if let ConnectionAddr::TcpTls { insecure, tls_params, .. } = template.addr() {
        ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
    } else {
        // A replica of a server on a unix socket is told by its TCP address too.
        ConnectionAddr::Tcp(host, port)
    };
    template.clone().set_addr(address)
}

/// The replicas in an answer of `INFO`: `slave0:ip=HOST,port=PORT,state=online,…`.
fn replicas(facts: &InfoDict) -> Vec<(String, u16)> {
    let value = |line: &str, name: &str| line.split(',').find_map(|pair| Some(pair.strip_prefix(name)?.to_owned()));
    (0..)
        .map_while(|nth| facts.get::<String>(&format!("slave{nth}")))
        .filter_map(|line| Some((value(&line, "ip=")?, value(&line, "port=")?.parse().ok()?)))
        .collect()
}

fn persistence(subject: &str, fact: &impl Fn(&str) -> String, saves: Option<String>, report: &mut Report) {
    let appends = fact("aof_enabled") == "1";
    match (appends, saves.as_deref()) {
        (true, _) if fact("aof_last_write_status") == "err" => {
            report.failure(subject, "cannot write its append-only file", "free its disk: it refuses writes");
        }
        (true, _) => report.ok(subject, "keeps an append-only file"),
        (false, Some("")) => {
            report.warning(subject, "has no persistence: a restart forgets every record", "CONFIG SET appendonly yes")
        }
        (false, Some(_)) => report.warning(
            subject,
            "saves snapshots only: a restart forgets what came after the last one",
            "CONFIG SET appendonly yes",
        ),
        (false, None) => report.warning(
            subject,
            "keeps no append-only file, and does not tell its snapshots",
            "CONFIG SET appendonly yes",
        ),
    }
}

/// What an error says, without what it was about.
fn told(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    }
}

fn remedy(error: &RedisError) -> String {
    let remedy = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            "set store.redis.username and password_file"
        }
        (_, Some("NOPERM")) => return format!("ACL SETUSER … {COMMANDS}, on keys of the prefix"),
        (_, Some("READONLY")) => "name its master, or use sentinel",
        (_, Some("OOM")) => "raise its maxmemory: new claims are refused until then",
        (_, Some("LOADING")) => "wait until it has read its data",
        (_, Some("MISCONF")) => "free its disk: it refuses writes",
        _ if error.is_timeout() => "see why it is slow, or raise store.redis.timeout",
        _ => "start it, or mend the url",
    };
    remedy.to_owned()
}
