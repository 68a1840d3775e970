//! The examination of real things: redis-server where it is installed, sockets, files.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::{Level, Report, files, redis, upstream};
use crate::{
    config::{
        secrets,
        settled::{
            HostHeader, Redis, RedisServers, Store, StoreKind, Upstream, UpstreamTarget, UpstreamTls, UpstreamUrl,
        },
    },
    rule::identity::IdKey,
    store::redis::{CENSUS, RedisOptions, RedisStore},
};

impl Report {
    /// The level of the only finding whose text holds `words`.
    fn level_of(&self, words: &str) -> Level {
        let found: Vec<_> = self.findings.iter().filter(|finding| finding.finding.contains(words)).collect();
        assert_eq!(found.len(), 1, "{words:?} in:\n{self}");
        found[0].level
    }
}

/// A redis-server of one test; killed when dropped.
struct Server {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts redis-server on a free port; `None`, with a word, where it is not installed.
    async fn start(arguments: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()])
            .args(arguments)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("skipped: redis-server is not installed");
            return None;
        };
        let server = Self { child, port, _dir: dir };
        tokio::time::timeout(Duration::from_secs(20), async {
            while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("redis-server starts");
        Some(server)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }
}

fn settled(url: String, replicas: u32) -> (Store, Redis) {
    let redis = Redis {
        servers: RedisServers::Single(url),
        prefix: "oncegate:".to_owned(),
        timeout: Duration::from_secs(2),
        settle_backlog: 1 << 20,
        username: None,
        password_file: None,
        tls_ca: None,
        encrypt: false,
        replicas,
    };
    let store = Store {
        kind: StoreKind::Redis(redis.clone()),
        lease: Duration::from_secs(15),
        allow_eviction: false,
        secret_file: None,
    };
    (store, redis)
}

async fn report_on(url: String, replicas: u32) -> Report {
    let (store, redis) = settled(url, replicas);
    let mut report = Report::default();
    redis::examine(&store, &redis, &mut report).await;
    report
}

#[tokio::test]
async fn a_redis_that_is_away_is_a_failure() {
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let report = report_on(format!("redis://127.0.0.1:{unused}"), 0).await;
    assert!(report.failed(), "{report}");
    assert!(report.to_string().contains("start it, or mend the url"), "{report}");
}

// contract: S-3
#[tokio::test]
async fn a_redis_that_evicts_is_a_failure_and_one_without_persistence_a_warning() {
    let Some(server) = Server::start(&["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]).await else {
        return;
    };
    let report = report_on(server.url(), 0).await;
    assert_eq!(report.level_of("writes and reads"), Level::Ok);
    assert_eq!(report.level_of("maxmemory-policy is allkeys-lru"), Level::Failure);
    assert_eq!(report.level_of("has no persistence"), Level::Warning);
    assert_eq!(report.level_of("connected replicas: 0; 0 must acknowledge"), Level::Ok);
    assert_eq!(report.level_of("one server"), Level::Ok);
}

// contract: R-5
#[tokio::test]
async fn records_under_another_id_key_are_a_failure_and_under_ours_are_not() {
    let Some(server) = Server::start(&["--appendonly", "yes"]).await else { return };
    assert_eq!(report_on(server.url(), 0).await.level_of("holds no records"), Level::Ok);
    let dir = tempfile::tempdir().unwrap();
    let ours = written(dir.path(), "ours", "new\nours\n", 0o600);
    let (mut store, redis) = settled(server.url(), 0);
    store.secret_file = Some(written(dir.path(), "old", "ours\n", 0o600));
    leave_a_mark(&store, &redis).await;

    for (file, level, words) in [
        (Some(ours), Level::Ok, "under this id key"),
        (Some(written(dir.path(), "other", "other\n", 0o600)), Level::Failure, "keyed by another store.secret_file"),
        (None, Level::Failure, "keyed by a store.secret_file"),
    ] {
        let store = Store { secret_file: file, ..store.clone() };
        let mut report = Report::default();
        redis::examine(&store, &redis, &mut report).await;
        assert_eq!(report.level_of(words), level);
    }
}

/// As a process does at its start.
async fn leave_a_mark(store: &Store, redis: &Redis) {
    let secrets = secrets::read(store.secret_file.as_ref().unwrap()).unwrap();
    let id_key = IdKey::from_secret(secrets.id_key());
    let options =
        RedisOptions { config: redis, allow_eviction: false, secrets: Some(&secrets), id_key: &id_key, census: CENSUS };
    RedisStore::new(&options).unwrap().first_look(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_may_not_be_asked_is_told_of_where_there_are_several() {
    let Some(master) = Server::start(&["--rename-command", "TIME", ""]).await else { return };
    assert_eq!(report_on(master.url(), 0).await.level_of("one server"), Level::Ok);
    let Some(_replica) = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await else { return };
    let told = async {
        while !report_on(master.url(), 0).await.to_string().contains("not compared, since TIME is refused") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("the replica joins, and the clock stays silent");
}

#[test]
fn on_a_terminal_lines_hang_and_elsewhere_each_finding_is_one() {
    let mut report = Report::default();
    report.failure("redis 127.0.0.1:6379", "a word ".repeat(20).trim(), "mend it");
    report.ok("clocks", "one server");
    assert_eq!(report.to_string().lines().count(), 2);
    let shown = anstream::adapter::strip_str(&report.shown(Some(40))).to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].starts_with("failure redis 127.0.0.1:6379: a word"), "{shown}");
    assert!(lines[1..lines.len() - 1].iter().all(|line| line.starts_with("        ")), "{shown}");
    assert!(lines.iter().all(|line| line.chars().count() <= 40), "{shown}");
    assert_eq!(lines.last(), Some(&"ok      clocks: one server"));
}

#[tokio::test]
async fn a_redis_that_keeps_everything_is_ok_and_nothing_of_ours_stays_in_it() {
    let Some(server) = Server::start(&["--appendonly", "yes"]).await else { return };
    let report = report_on(server.url(), 0).await;
    assert!(report.findings.iter().all(|finding| finding.level == Level::Ok), "{report}");
    let client = ::redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: u64 = ::redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap();
    assert_eq!(keys, 0);
}

// contract: S-2
#[tokio::test]
async fn too_few_replicas_are_a_failure_and_those_that_are_there_are_compared_by_their_clocks() {
    let Some(master) = Server::start(&[]).await else { return };
    assert_eq!(report_on(master.url(), 1).await.level_of("wants 1 to acknowledge"), Level::Failure);

    let Some(_replica) = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await else { return };
    tokio::time::timeout(Duration::from_secs(20), async {
        while report_on(master.url(), 1).await.failed() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the replica joins");
    let report = report_on(master.url(), 1).await;
    assert_eq!(report.level_of("connected replicas: 1; 1 must acknowledge"), Level::Ok);
    assert_eq!(report.level_of("2 servers differ by"), Level::Ok);
    assert_eq!(report_on(master.url(), 0).await.level_of("a failover can lose some"), Level::Warning);
}

// contract: S-7
#[tokio::test]
async fn a_replica_named_as_the_store_is_a_failure() {
    let Some(master) = Server::start(&[]).await else { return };
    let Some(replica) = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await else { return };
    let report = report_on(replica.url(), 0).await;
    assert_eq!(report.level_of("is a replica"), Level::Failure);
    assert_eq!(report.level_of("the round trip failed"), Level::Failure);
}

#[tokio::test]
async fn a_wrong_password_is_a_failure_that_does_not_repeat_it() {
    let Some(server) = Server::start(&["--requirepass", "right-one"]).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut redis) = settled(server.url(), 0);
    redis.password_file = Some(written(dir.path(), "password", "wrong-one\n", 0o600));
    store.kind = StoreKind::Redis(redis.clone());
    let mut report = Report::default();
    redis::examine(&store, &redis, &mut report).await;
    let text = report.to_string();
    assert!(text.contains("set store.redis.username and password_file") && !text.contains("wrong-one"), "{text}");

    redis.password_file = Some(written(dir.path(), "password", "right-one\n", 0o600));
    let mut report = Report::default();
    redis::examine(&store, &redis, &mut report).await;
    assert_eq!(report.level_of("writes and reads"), Level::Ok);
}

#[test]
fn of_a_clusters_nodes_the_masters_that_are_up_are_examined() {
    let nodes = "07c3 127.0.0.1:30004@31004,host-4 slave e7d1 0 1426238317239 4 connected\n\
                 67ed 10.0.0.2:30002@31002 master - 0 1426238316232 2 connected 5461-10922\n\
                 292f 10.0.0.3:30003@31003 master,fail - 0 1426238318243 3 disconnected\n\
                 6ec2 :0@0 master,noaddr - 0 0 5 disconnected\n\
                 e7d1 ::1:30001@31001 myself,master - 0 0 1 connected 0-5460\n";
    let masters: Vec<_> = redis::layout::masters(nodes).collect();
    assert_eq!(masters, [("10.0.0.2".to_owned(), 30002), ("::1".to_owned(), 30001)]);
}

fn written(dir: &Path, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn upstream_at(target: UpstreamTarget) -> Upstream {
    Upstream {
        name: "payments".to_owned(),
        urls: vec![UpstreamUrl { target, tls: false, authority: "payments".to_owned() }],
        connect_timeout: Duration::from_secs(1),
        queue_timeout: Duration::from_secs(1),
        max_connections: 512,
        max_idle_guarded: Duration::from_secs(1),
        http2: false,
        host: HostHeader::Preserve,
        tls: UpstreamTls::default(),
    }
}

#[tokio::test]
async fn an_upstream_that_listens_is_ok_and_one_that_does_not_is_a_failure() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut report = Report::default();
    upstream::examine(&upstream_at(UpstreamTarget::Tcp("127.0.0.1".to_owned(), port)), &mut report).await;
    assert_eq!(report.level_of("takes connections"), Level::Ok);

    drop(listener);
    upstream::examine(&upstream_at(UpstreamTarget::Tcp("127.0.0.1".to_owned(), port)), &mut report).await;
    upstream::examine(&upstream_at(UpstreamTarget::Unix("/nowhere/at.sock".into())), &mut report).await;
    let text = report.to_string();
    assert!(text.contains("mend the port") && text.contains("mend the path"), "{text}");
}

#[test]
fn a_secret_that_all_can_read_is_a_warning_and_a_missing_or_empty_one_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let examined = |path: &Path| {
        let mut report = Report::default();
        files::secret("store.secret_file", path, &mut report);
        report.findings.pop().unwrap()
    };
    assert_eq!(examined(&written(dir.path(), "good", "x", 0o600)).level, Level::Ok);
    assert_eq!(examined(&written(dir.path(), "mounted", "x", 0o440)).level, Level::Ok);
    let open = examined(&written(dir.path(), "open", "x", 0o644));
    assert_eq!(open.level, Level::Warning);
    assert!(open.remedy.unwrap().starts_with("chmod 600 "));
    assert_eq!(examined(&written(dir.path(), "empty", "\n", 0o600)).level, Level::Failure);
    assert_eq!(examined(&dir.path().join("missing")).level, Level::Failure);
}
