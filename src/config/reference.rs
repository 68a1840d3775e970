//! Every key there is: its table, kind, default, meaning and an example. What reads a file, the schema and the
//! documentation are all made from, or tested against, this list, so that none of them can forget a key.

use crate::rule::policy::{
    AuthorityMatch, ErrorFormat, KeyFormat, Mode, OnBodyTooLarge, OnDuplicate, OnInFlight, OnStoreDown, OnUnknown,
};

use super::{
    settled::{ClientCertificate, HostHeader, LogFormat},
    value,
    words::{Kind as StoreKind, words},
};

/// The tables of a file. A policy key stands in `[defaults]` and in every `[[routes]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Outside every table.
    Top,
    /// `[server]`
    Server,
    /// `server.tls`
    ServerTls,
    /// `[admin]`
    Admin,
    /// `[log]`
    Log,
    /// `[store]`
    Store,
    /// `[store.memory]`
    StoreMemory,
    /// `[store.redis]`
    StoreRedis,
    /// `store.redis.sentinel`
    Sentinel,
    /// `[upstreams.NAME]`
    Upstream,
    /// `upstreams.NAME.tls`
    UpstreamTls,
    /// `[[routes]]`, beside the policy keys.
    Route,
    /// `[defaults]` and `[[routes]]`.
    Policy,
}

impl Table {
    /// Every table, in the order of the contract.
    pub const ALL: [Self; 13] = [
        Self::Top,
        Self::Server,
        Self::ServerTls,
        Self::Admin,
        Self::Log,
        Self::Store,
        Self::StoreMemory,
        Self::StoreRedis,
        Self::Sentinel,
        Self::Upstream,
        Self::UpstreamTls,
        Self::Route,
        Self::Policy,
    ];

    /// How people write it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Top => "the top of the file",
            Self::Server => "[server]",
            Self::ServerTls => "[server] tls",
            Self::Admin => "[admin]",
            Self::Log => "[log]",
            Self::Store => "[store]",
            Self::StoreMemory => "[store.memory]",
            Self::StoreRedis => "[store.redis]",
            Self::Sentinel => "[store.redis] sentinel",
            Self::Upstream => "[upstreams.NAME]",
            Self::UpstreamTls => "[upstreams.NAME] tls",
            Self::Route => "[[routes]]",
            Self::Policy => "[defaults] or a [[routes]]",
        }
    }

    /// The keys that may stand in this table, policy keys of `[[routes]]` not among them.
    pub fn keys(self) -> impl Iterator<Item = &'static KeyDoc> {
        REFERENCE.iter().filter(move |doc| doc.table == self)
    }
}

/// What values a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text with a form of its own.
    Text,
    /// A file's path.
    File,
    /// `30s`
    Duration,
    /// `30s`, or `off`.
    DurationOrOff,
    /// `64MiB`
    Size,
    /// A whole number within these bounds.
    Integer {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(fn() -> Vec<&'static str>),
    /// A list of texts.
    Texts,
    /// A list of texts, or this word.
    TextsOr(&'static str),
    /// A list of statuses.
    Statuses,
    /// A table of its own.
    Table(Table),
    /// A table of tables, each under a name of its own.
    Named(Table),
    /// A list of tables.
    Tables(Table),
}

/// What there is to say of one key.
#[derive(Debug, Clone, Copy)]
pub struct KeyDoc {
    /// Where it stands.
    pub table: Table,
    /// Its name.
    pub key: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What it is when left out, in TOML; `None` where it then is not set, or must be given.
    pub default: Option<&'static str>,
    /// What it means, in one or two sentences.
    pub meaning: &'static str,
    /// A value other than the default, in TOML.
    pub example: &'static str,
    /// The first version that has it.
    pub since: &'static str,
}

/// Every key, in the order of the contract.
#[must_use]
pub fn reference() -> &'static [KeyDoc] {
    REFERENCE
}

macro_rules! keys {
    ($($table:ident { $($key:literal : $kind:expr, $default:expr, $example:literal, $meaning:literal;)+ })+) => {
        &[$($(KeyDoc {
            table: Table::$table,
            key: $key,
            kind: $kind,
            default: $default,
            meaning: $meaning,
            example: $example,
            since: "0.1.0",
        }),+),+]
    };
}

/// A whole number of at least one.
const COUNT: Kind = Kind::Integer { min: 1, max: u32::MAX as u64 };

static REFERENCE: &[KeyDoc] = keys! {
    Top {
        "version": Kind::Integer { min: 1, max: 1 }, Some("1"), "1", "The version of the configuration's language. May be left out.";
        "server": Kind::Table(Table::Server), None, "{}", "Where clients connect, and the bounds they meet.";
        "admin": Kind::Table(Table::Admin), None, "{}", "Health, metrics and the operator's interface.";
        "log": Kind::Table(Table::Log), None, "{}", "What is written to stderr.";
        "store": Kind::Table(Table::Store), None, "{}", "Where records are kept.";
        "upstreams": Kind::Named(Table::Upstream), None, "{}", "The services behind Oncegate, each under a name of its own.";
        "defaults": Kind::Table(Table::Policy), None, "{}", "Policy for every route, and for requests that no route matches when there is only one upstream.";
        "routes": Kind::Tables(Table::Route), None, "[]", "Which requests are handled how. The most specific route wins, not the first.";
    }
    Server {
        "listen": Kind::Text, Some("\"0.0.0.0:8080\""), "\"unix:/run/oncegate.sock\"", "Where clients connect: an address and a port, or `unix:PATH`. A change needs a restart.";
        "max_connections": COUNT, Some("10000"), "2000", "Open client connections. One more is answered 503 and closed.";
        "max_connections_per_address": Kind::Integer { min: 0, max: u32::MAX as u64 }, Some("0"), "100", "Open connections of one client: an IPv4 address, or an IPv6 network of 64 bits. One more is answered 503 and closed. 0 is no limit: behind a gateway all clients have its address. Addresses of `trusted_proxies` have none.";
        "max_in_flight": COUNT, Some("4096"), "512", "Guarded exchanges under way, whether their clients are still there or not; waiters do not count. One more is answered 503 `overloaded`.";
        "max_buffered": Kind::Size, Some("\"64MiB\""), "\"256MiB\"", "Bytes of bodies of guarded requests and answers being held, and as many again of answers from Redis that clients have yet to take. Beyond, 503 `overloaded`.";
        "max_head": Kind::Size, Some("\"32KiB\""), "\"64KiB\"", "Bytes of a request's head. From 8KiB to 16MiB.";
        "header_timeout": Kind::Duration, Some("\"10s\""), "\"5s\"", "From accept, or the first byte of a later request, to the whole head.";
        "body_timeout": Kind::Duration, Some("\"30s\""), "\"10s\"", "The longest silence while a request's body arrives, passed or guarded. One that is guarded, or says its length, is waited for ten times as long altogether (or 10 s), and a second for each KiB that came.";
        "idle_timeout": Kind::Duration, Some("\"75s\""), "\"2m\"", "Between an answer and the first byte of the next request.";
        "max_connection_age": Kind::DurationOrOff, Some("\"off\""), "\"1h\"", "From accept until a connection is asked to end, with up to a tenth more: by `Connection: close` on its next answer, by GOAWAY, or, when nothing was under way for a second, by closing. No exchange is cut; tunnels stay.";
        "drain_timeout": Kind::Duration, Some("\"25s\""), "\"55s\"", "How long exchanges under way may take to finish after SIGTERM. Keep it below the supervisor's own patience.";
        "accept_identity_change": Kind::Boolean, Some("false"), "true", "Lets a reload through that puts live records out of reach, so that retries of earlier requests run again.";
        "tls": Kind::Table(Table::ServerTls), None, "{ cert = \"tls.crt\", key = \"tls.key\" }", "TLS for clients. Reloaded when the files change.";
        "trusted_proxies": Kind::Texts, Some("[]"), "[\"10.0.0.0/8\"]", "Networks of proxies whose `X-Forwarded-*` and `Forwarded` are believed. From everyone else these are replaced.";
        "proxy_protocol": Kind::Boolean, Some("false"), "true", "Each connection from an address of `trusted_proxies`, and each on a `unix:` socket, must begin with a PROXY protocol header, version 1 or 2, which names the client; without one it is closed.";
    }
    ServerTls {
        "cert": Kind::File, None, "\"tls.crt\"", "The certificate chain, PEM. Relative paths begin at the configuration file.";
        "key": Kind::File, None, "\"tls.key\"", "The private key, PEM.";
        "client_ca": Kind::File, None, "\"ca.crt\"", "The authority of client certificates, PEM. With it every client needs a certificate, but for `client_certificate = \"optional\"`.";
        "client_certificate": Kind::Choice(words::<ClientCertificate>), Some("\"required\""), "\"optional\"", "With `client_ca`: whether a client may come without a certificate. One that is shown must be the authority's either way.";
    }
    Admin {
        "listen": Kind::Text, Some("\"127.0.0.1:9464\""), "\"unix:/run/oncegate-admin.sock\"", "Where health and metrics are served, open to whoever connects. Never the data port. A change needs a restart.";
        "token_file": Kind::File, None, "\"/etc/oncegate/admin.token\"", "Holds the bearer token of `/records` and `/config`, which exist only with a token, or on a unix socket. A change needs a restart.";
    }
    Log {
        "format": Kind::Choice(words::<LogFormat>), Some("\"text\""), "\"json\"", "For people, or one JSON object a line.";
        "level": Kind::Choice(words::<tracing::Level>), Some("\"info\""), "\"debug\"", "The least that is logged.";
        "access": Kind::Boolean, Some("true"), "false", "One line for each request. It never holds a key, scope value, query, header value or body.";
    }
    Store {
        "kind": Kind::Choice(words::<StoreKind>), Some("\"memory\""), "\"redis\"", "`memory` lives in this process only: a restart or a second replica forgets or misses records. `redis` is shared and survives. A change needs a restart, as for everything in `[store]`.";
        "lease": Kind::Duration, Some("\"15s\""), "\"60s\"", "How long an owner may stay silent before its record reads as unknown; renewed every third of it.";
        "allow_eviction": Kind::Boolean, Some("false"), "true", "A full store may forget live records instead of refusing new ones: at-most-once ends there.";
        "secret_file": Kind::File, None, "\"/etc/oncegate/secret\"", "Secrets, one a line: the first seals, all open, the last keys the record ids. Without it, memory draws one at random and Redis uses a fixed public key.";
        "memory": Kind::Table(Table::StoreMemory), None, "{ max_bytes = \"1GiB\" }", "The memory store's own keys.";
        "redis": Kind::Table(Table::StoreRedis), None, "{ prefix = \"pay:\" }", "The Redis store's own keys.";
    }
    StoreMemory {
        "max_bytes": Kind::Size, Some("\"256MiB\""), "\"1GiB\"", "Bytes that records may take. A full store first drops the bodies of the longest-settled records, then refuses new claims.";
    }
    StoreRedis {
        "url": Kind::Text, Some("\"redis://127.0.0.1:6379/0\""), "\"rediss://redis.internal:6379/0\"", "The server, with `rediss://` for TLS.";
        "cluster": Kind::Texts, None, "[\"redis://a:6379\", \"redis://b:6379\"]", "Nodes of a Redis Cluster, instead of `url`.";
        "sentinel": Kind::Table(Table::Sentinel), None, "{ master = \"m\", nodes = [\"redis://s1:26379\"] }", "Sentinels that know the server, instead of `url`.";
        "prefix": Kind::Text, Some("\"oncegate:\""), "\"pay:\"", "Begins every key.";
        "timeout": Kind::Duration, Some("\"250ms\""), "\"1s\"", "Of one operation.";
        "settle_backlog": Kind::Size, Some("\"64MiB\""), "\"256MiB\"", "Bytes of answers that may wait for Redis to come back.";
        "username": Kind::Text, None, "\"oncegate\"", "The ACL user.";
        "password_file": Kind::File, None, "\"/etc/oncegate/redis.password\"", "Holds the password.";
        "tls_ca": Kind::File, None, "\"redis-ca.crt\"", "The authority of the servers' certificates, PEM. Without it, the system's.";
        "encrypt": Kind::Boolean, Some("false"), "true", "Stored responses are sealed with a key derived from `secret_file`.";
        "replicas": Kind::Integer { min: 0, max: 100 }, Some("0"), "1", "Replicas that must acknowledge a claim and a completion (WAIT).";
    }
    Sentinel {
        "master": Kind::Text, None, "\"m\"", "The name the sentinels know the master by.";
        "nodes": Kind::Texts, None, "[\"redis://s1:26379\"]", "The sentinels.";
    }
    Upstream {
        "url": Kind::Text, None, "\"http://127.0.0.1:9000\"", "Where the service is: `http://`, `https://` or `unix:PATH`, without a path of requests.";
        "urls": Kind::Texts, None, "[\"http://10.0.0.1:9000\", \"http://10.0.0.2:9000\"]", "Several of them, instead of `url`.";
        "connect_timeout": Kind::Duration, Some("\"1s\""), "\"3s\"", "For name look-up, connect and TLS handshake.";
        "queue_timeout": Kind::Duration, Some("\"1s\""), "\"5s\"", "How long a request waits for a free connection.";
        "max_connections": COUNT, Some("512"), "64", "Open connections to the service.";
        "max_idle_guarded": Kind::Duration, Some("\"1s\""), "\"4s\"", "A guarded request reuses only a connection that was idle for less: an older one may be closing.";
        "http2": Kind::Boolean, Some("false"), "true", "HTTP/2 with prior knowledge, or by ALPN on https.";
        "host": Kind::Choice(words::<HostHeader>), Some("\"preserve\""), "\"upstream\"", "The `Host` that the service sees: the client's, or the url's.";
        "tls": Kind::Table(Table::UpstreamTls), None, "{ ca = \"ca.crt\" }", "TLS to the service.";
    }
    UpstreamTls {
        "ca": Kind::File, None, "\"ca.crt\"", "The authority of its certificate, PEM. Without it, the system's.";
        "cert": Kind::File, None, "\"c.crt\"", "Our certificate chain, PEM, for services that ask for one.";
        "key": Kind::File, None, "\"c.key\"", "Our private key, PEM.";
        "server_name": Kind::Text, None, "\"api\"", "The name that its certificate must have, when it is not the url's host.";
    }
    Route {
        "name": Kind::Text, None, "\"create charge\"", "The route's name, and its label in metrics. Must be given.";
        "id": Kind::Text, None, "\"create-charge\"", "Part of every record's identity; the name when left out. Keep it when you rename the route.";
        "host": Kind::Text, None, "\"api.example.com\"", "Only requests for this host, or with `*.example.com` every name below it.";
        "path": Kind::Text, None, "\"/v1/charges/{id}\"", "Which paths: literal segments, `{name}` for one segment, `{*name}` for the rest, which is one segment at least: `/v1/{*rest}` is not for `/v1` itself. Must be given.";
        "methods": Kind::Texts, None, "[\"POST\"]", "Which methods this route is for; all when left out.";
        "upstream": Kind::Text, None, "\"payments\"", "Where its requests go. May be left out when there is only one upstream.";
    }
    Policy {
        "mode": Kind::Choice(words::<Mode>), Some("\"enforce\""), "\"observe\"", "`enforce` guards; `observe` passes everything and counts what guarding would have done; `off` passes.";
        "guard": Kind::TextsOr("non-idempotent"), Some("\"non-idempotent\""), "[\"POST\", \"PUT\"]", "Which methods are deduplicated: those that HTTP calls neither safe nor idempotent, or exactly these.";
        "key": Kind::Texts, Some("[\"header:Idempotency-Key\"]"), "[\"header:X-Request-Id\"]", "Where the idempotency key is, tried in order: `header:NAME`, `query:NAME`, `json:/pointer`, `form:FIELD`, several joined by `+`, or last `content:WINDOW`. `json:` and `form:` are looked at only where the Content-Type fits, and no body above `max_request_body` is: what is not looked at yields no key. Without a key the request passes unguarded, unless `key_required` is set.";
        "key_required": Kind::Boolean, Some("false"), "true", "A guarded request without a key is refused instead of passed.";
        "key_format": Kind::Choice(words::<KeyFormat>), Some("\"any\""), "\"uuid\"", "What keys must look like.";
        "scope": Kind::TextsOr("shared"), None, "[\"header:authorization\"]", "Whose keys these are: `header:NAME`, `cookie:NAME`, `query:NAME`, `tls:subject`, several, or \"shared\" when all callers are one. Has no default: a guarded route needs one. A part that a request lacks is a value like any other; with none of them, callers without a credential share one scope, and a request with another credential is refused (`scope-missing`). `tls:subject` is the first URI name of the client's certificate, else its first DNS name, else its subject.";
        "authority": Kind::Choice(words::<AuthorityMatch>), Some("\"match\""), "\"ignore\"", "Whether the host name is part of the record's identity.";
        "fingerprint": Kind::Texts, Some("[\"method\", \"path\", \"query\", \"content-type\", \"body\"]"), "[\"method\", \"path\", \"json-body\"]", "What must be equal for a request to be a retry: `method`, `path`, `query`, `content-type`, `body` or `json-body`, `header:NAME`.";
        "on_in_flight": Kind::Choice(words::<OnInFlight>), Some("\"wait\""), "\"reject\"", "A duplicate of a request under way waits for its answer, or gets 409 at once.";
        "wait_timeout": Kind::Duration, None, "\"10s\"", "How long a duplicate waits; `response_timeout` when left out.";
        "max_waiters": Kind::Integer { min: 0, max: u32::MAX as u64 }, Some("100"), "10", "Duplicates that may wait for one record.";
        "on_duplicate": Kind::Choice(words::<OnDuplicate>), Some("\"replay\""), "\"ack\"", "A duplicate of an executed request gets the stored answer, 409, or an empty 200 for senders that only look at 2xx.";
        "on_unknown": Kind::Choice(words::<OnUnknown>), Some("\"hold\""), "\"retry\"", "A duplicate of a request whose outcome nobody knows is held back, or run again: `retry` gives up at-most-once.";
        "on_store_down": Kind::Choice(words::<OnStoreDown>), Some("\"reject\""), "\"forward\"", "Without the store, guarded requests are refused, or forwarded unguarded: `forward` gives up at-most-once, but for what this very process is executing or holds the outcome of.";
        "on_body_too_large": Kind::Choice(words::<OnBodyTooLarge>), Some("\"reject\""), "\"pass\"", "A request with a key and a body above `max_request_body` is refused, or passed unguarded, marked and counted. A key within such a body is not looked at: without another the request passes as one that has none, or is refused (413) where `key_required` is set.";
        "release_on": Kind::Statuses, Some("[401, 403, 407, 421, 425, 429, \"503+retry-after\"]"), "[401, 429]", "Answers that say: not executed. They free the key. With `on_duplicate = \"ack\"` put 500 here too where a handler that fails has undone its work: recorded as the outcome, it would be acknowledged with a 200, and the event lost.";
        "unknown_on": Kind::Statuses, Some("[408, 502, 503, 504]"), "[502, 504]", "Answers of a hop, not of the application: nobody knows whether the request was executed.";
        "retention": Kind::Duration, Some("\"24h\""), "\"72h\"", "How long an answer is kept, from settlement. Longer than clients retry. Under a `content:WINDOW` key the window takes its place.";
        "unknown_retention": Kind::Duration, Some("\"30d\""), "\"90d\"", "How long an unknown record is held. Under a `content:WINDOW` key it is held for the window only.";
        "response_timeout": Kind::Duration, Some("\"30s\""), "\"10s\"", "How long a guarded request's client waits for its answer.";
        "outcome_timeout": Kind::Duration, Some("\"5m\""), "\"10m\"", "How long Oncegate itself waits for the upstream, client or no client.";
        "pass_timeout": Kind::DurationOrOff, Some("\"off\""), "\"60s\"", "Unguarded requests: to the response's head.";
        "max_request_body": Kind::Size, Some("\"1MiB\""), "\"4MiB\"", "The longest body of a guarded request.";
        "max_response_body": Kind::Size, Some("\"1MiB\""), "\"4MiB\"", "The most that is kept of a response for replay.";
        "stream_types": Kind::Texts, Some("[\"text/event-stream\", \"application/x-ndjson\", \"multipart/x-mixed-replace\"]"), "[\"text/event-stream\"]", "Media types of answers that are never held back.";
        "drop_headers": Kind::Texts, Some("[\"set-cookie\"]"), "[\"set-cookie\", \"x-trace\"]", "Headers of a response that are not stored.";
        "error_format": Kind::Choice(words::<ErrorFormat>), Some("\"problem\""), "\"stripe\"", "The shape of refusals: RFC 9457, or as Stripe's clients read them. What cannot be read, and what no route matches, is refused as `[defaults]` say.";
        "docs_url": Kind::Text, None, "\"https://docs.example.com/idempotency\"", "Sent with refusals as `Link: <…>; rel=\"describedby\"`.";
    }
};

/// The schema's pattern for a value of this kind, where it has one.
pub(crate) fn pattern(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Duration | Kind::DurationOrOff => Some(value::DURATION_PATTERN),
        Kind::Size => Some(value::SIZE_PATTERN),
        Kind::Text
        | Kind::File
        | Kind::Integer { .. }
        | Kind::Boolean
        | Kind::Choice(_)
        | Kind::Texts
        | Kind::TextsOr(_)
        | Kind::Statuses
        | Kind::Table(_)
        | Kind::Named(_)
        | Kind::Tables(_) => None,
    }
}
