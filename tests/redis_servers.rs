//! The Redis servers that other tests are run on do what those tests take for granted.

#![expect(clippy::disallowed_methods, reason = "other processes are watched here: time is real")]

#[path = "support/redis.rs"]
mod servers;

use std::time::{Duration, Instant};

use servers::{Cluster, Options, Sentinel, Single, eventually, is_installed};

#[test]
fn a_server_comes_up_dies_and_comes_back() {
    if !is_installed() {
        return;
    }
    let redis = Single::start(Options::new().append_only("always").max_memory(64 << 20));
    assert_eq!(redis.cli(&["SET", "a", "1"]), "OK");
    redis.kill();
    assert!(redis.try_cli(&["PING"]).is_err());
    redis.restart();
    assert_eq!(redis.cli(&["GET", "a"]), "1");
    redis.set("maxmemory", "1mb");
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]).lines().nth(1), Some("1048576"));
    assert!(redis.toml().contains(&format!("url = \"redis://127.0.0.1:{}\"", redis.port())));
}

#[test]
fn a_frozen_server_answers_after_it_is_thawed() {
    if !is_installed() {
        return;
    }
    let redis = Single::start(Options::new());
    redis.freeze();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| redis.cli(&["PING"]));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!asked.is_finished());
        redis.thaw();
        assert_eq!(asked.join().unwrap(), "PONG");
    });
}

#[test]
fn what_was_started_ends_with_its_owner() {
    if !is_installed() {
        return;
    }
    let redis = Single::start(Options::new());
    let (address, directory) = (redis.address(), redis.directory().to_owned());
    assert!(std::net::TcpStream::connect(address).is_ok());
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _owner = redis;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(ended.is_err());
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(!directory.exists());
}

#[test]
fn a_server_serves_only_its_user_and_only_tls() {
    if !is_installed() {
        return;
    }
    let redis = Single::start(Options::new().user("oncegate", "secret", "~oncegate:* +@all").tls());
    let ca = redis.common().tls_ca().unwrap().display().to_string();
    let port = redis.port().to_string();
    let ask = |words: &[&str]| {
        let output = std::process::Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    assert!(!ask(&["PING"]).contains("PONG"));
    assert!(ask(&["--tls", "--cacert", &ca, "PING"]).contains("NOAUTH"));
    let login = ["--tls", "--cacert", &ca, "--user", "oncegate", "--pass", "secret", "--no-auth-warning"];
    assert_eq!(ask(&[&login[..], &["SET", "oncegate:a", "1"]].concat()).trim(), "OK");
    assert!(ask(&[&login[..], &["SET", "b", "1"]].concat()).contains("NOPERM"));
    let toml = redis.toml();
    assert!(toml.contains("rediss://") && toml.contains("username") && toml.contains("password_file"), "{toml}");
}

#[test]
fn sentinels_replace_a_master_that_was_killed() {
    if !is_installed() {
        return;
    }
    let start = Instant::now();
    let set = Sentinel::start(Options::new());
    eprintln!("sentinel set up in {:?}", start.elapsed());
    let old = set.master();
    assert_eq!(old.cli(&["SET", "a", "1"]), "OK");
    // WAIT would tell of the writes of its own connection only, and each command here has one to itself.
    for replica in set.replicas() {
        eventually("the replica has what the master has", || match replica.try_cli(&["GET", "a"])?.as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        });
    }
    old.kill();
    let start = Instant::now();
    set.await_other_master(old.port());
    eprintln!("a killed master was replaced in {:?}", start.elapsed());
    assert_eq!(set.master().cli(&["GET", "a"]), "1");
    old.restart();
    let start = Instant::now();
    set.await_replicas(2);
    eprintln!("the old master followed after {:?}", start.elapsed());
    set.failover();
    assert_eq!(set.master().cli(&["GET", "a"]), "1");
}

#[test]
fn sentinels_work_with_users_and_tls() {
    if !is_installed() {
        return;
    }
    let set = Sentinel::start(Options::new().user("oncegate", "secret", "~* &* +@all").tls());
    set.failover();
    assert_eq!(set.toml().matches("rediss://").count(), 3);
}

#[test]
fn a_cluster_replaces_a_master_and_moves_slots() {
    if !is_installed() {
        return;
    }
    let start = Instant::now();
    let cluster = Cluster::start(Options::new());
    eprintln!("cluster up in {:?}", start.elapsed());
    let masters = cluster.masters();
    assert_eq!(masters.len(), 3);
    let start = Instant::now();
    cluster.reshard(masters[0], masters[1], 50);
    eprintln!("50 slots moved in {:?}", start.elapsed());
    cluster.failover(masters[1]);
    let start = Instant::now();
    masters[2].kill();
    eventually("a replica takes the killed master's place", || match cluster.masters().len() {
        3 => Ok(()),
        count => Err(format!("{count} masters")),
    });
    eprintln!("a killed master was replaced in {:?}", start.elapsed());
    masters[2].restart();
    cluster.await_whole();
}

#[test]
fn a_cluster_works_with_users_and_tls() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::start(Options::new().user("oncegate", "secret", "~* &* +@all").tls());
    assert_eq!(cluster.toml().matches("rediss://").count(), 6);
    cluster.flush();
}
