//! New configuration under way: under load, broken, refused.

use super::{certificates::Authority, harness::*};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Charges and reads without pause until it is told to stop; returns how many it made, and every answer that was not 200.
fn load(proxy: &Proxy) -> (Arc<AtomicBool>, tokio::task::JoinHandle<(usize, Vec<String>)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, address) = (stop.clone(), proxy.address());
    let task = tokio::spawn(async move {
        let mut failures = Vec::new();
        let mut count = 0;
        let mut connection = Connection::open(address).await;
        while !stopped.load(Ordering::Relaxed) {
            count += 1;
            let post = Post::new(address, "POST", "/v1/charges").auth("a").key(format!("load-{count}")).body("x");
            let get = Post::new(address, "GET", "/v1/charges");
            for request in [post.clone(), post, get] {
                // Now on a connection that is kept, now on one of its own.
                let reply =
                    if count % 2 == 0 { request.send().await } else { connection.exchange(request.bytes()).await };
                if reply.status != 200 {
                    failures.push(format!("{reply:?}"));
                }
            }
        }
        (count, failures)
    });
    (stop, task)
}

// contract: R-9
#[tokio::test]
async fn reloads_under_load_fail_no_request() {
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream);
    let proxy = Proxy::start(config.clone()).await;
    let (stop, load) = load(&proxy);
    for number in 0..20 {
        proxy.reload(&config.clone().policy(&format!("max_waiters = {}", 10 + number)), "ok").await;
    }
    stop.store(true, Ordering::Relaxed);
    let (count, failures) = load.await.unwrap();
    assert!(failures.is_empty(), "{} of {count}: {failures:#?}", failures.len());
    assert!(upstream.executions_by_key().values().filter(|runs| **runs > 1).count() <= 1, "only the keyless repeat");
}

#[tokio::test]
async fn a_changed_file_is_read_within_five_seconds() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    proxy.post("/v1/a").auth("a").send().await.was(200, "");
    proxy.rewrite(&Config::new(&upstream).policy("key_required = true"));
    eventually("the new rule holds", || async { proxy.post("/v1/a").auth("a").send().await.code() == "key-missing" })
        .await;
    assert_eq!(proxy.metrics().await.sum("oncegate_config_reloads_total", &[("result", "ok")]), 1.0);
}

#[tokio::test]
async fn a_config_map_swap_is_read() {
    use std::os::unix::fs::symlink;
    let upstream = Upstream::start().await;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    let mount = root.join("config");
    let put = |version: &str, config: &Config| {
        std::fs::create_dir_all(mount.join(version)).unwrap();
        std::fs::write(mount.join(version).join("oncegate.toml"), config.toml()).unwrap();
        std::fs::write(mount.join(version).join("admin.token"), "t0k3n-of-the-tests\n").unwrap();
    };
    // As the kubelet lays it out: the file is a link through `..data`, which is swapped as a whole.
    let config = Config::new(&upstream).admin(&format!("token_file = \"{}\"", mount.join("admin.token").display()));
    put("..2026_a", &config);
    symlink("..2026_a", mount.join("..data")).unwrap();
    for file in ["oncegate.toml", "admin.token"] {
        symlink(format!("..data/{file}"), mount.join(file)).unwrap();
    }
    let proxy = Proxy::launch(directory, &mount.join("oncegate.toml"), None)
        .await
        .unwrap_or_else(|(code, said)| panic!("{code:?}\n{said}"));
    proxy.post("/v1/a").auth("a").send().await.was(200, "");
    put("..2026_b", &config.clone().policy("key_required = true"));
    symlink("..2026_b", mount.join("..data_tmp")).unwrap();
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    std::fs::remove_dir_all(mount.join("..2026_a")).unwrap();
    eventually("the new rule holds", || async { proxy.post("/v1/a").auth("a").send().await.code() == "key-missing" })
        .await;
    // And once more: the watch must outlive the directory it began with.
    put("..2026_c", &config);
    symlink("..2026_c", mount.join("..data_tmp")).unwrap();
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    eventually("the old rule holds again", || async { proxy.post("/v1/a").auth("a").send().await.status == 200 }).await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_logged_and_counted() {
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream);
    let proxy = Proxy::start(config.clone()).await;
    proxy.charge("k").send().await.was(200, "executed");
    for broken in ["this is not TOML", "[server]\nlistn = \"127.0.0.1:0\""] {
        proxy.reload(&Config::raw(broken.to_owned()), "failed").await;
        proxy.charge("k").send().await.was(200, "replayed");
        assert_eq!(proxy.open_admin("GET", "/readyz").send().await.status, 200);
    }
    assert!(proxy.said().contains("listn"), "{}", proxy.said());
    proxy.reload(&config.policy("key_required = true"), "ok").await;
    proxy.post("/v1/a").auth("a").send().await.refused(400, "key-missing");
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_whole() {
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream);
    let proxy = Proxy::start(config.clone()).await;
    for change in [
        config.clone().server("listen = \"127.0.0.1:1\""),
        config.clone().admin("listen = \"127.0.0.1:1\""),
        config.clone().store("lease = \"20s\""),
        config.clone().memory("max_bytes = \"1GiB\""),
        config.clone().server(&Authority::new().lines()),
    ] {
        // A change that would be fine by itself must not slip in with it.
        proxy.reload(&change.policy("key_required = true"), "refused").await;
        proxy.post("/v1/a").auth("a").send().await.was(200, "");
    }
    proxy.says(&["needs a restart"]).await;
}

// contract: R-5
#[tokio::test]
async fn a_change_that_puts_live_records_out_of_reach_is_refused_unless_accepted() {
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream)
        .policy("key = [\"header:Idempotency-Key\"]")
        .route("name = \"extra\"\npath = \"/extra\"");
    let proxy = Proxy::start(config.clone()).await;
    let route = |name: &str, more: &str| {
        config
            .clone()
            .no_routes()
            .route(&format!("name = \"{name}\"\npath = \"/v1/{{*rest}}\"\n{more}"))
            .route("name = \"extra\"\npath = \"/extra\"")
    };
    let changes = [
        route("renamed", ""),
        route("charges", "id = \"other\""),
        config.clone().policy("scope = [\"header:x-tenant\"]"),
        config.clone().policy("key = [\"header:X-Key\"]"),
        config.clone().policy("fingerprint = [\"body\"]"),
        config.clone().policy("authority = \"ignore\""),
        config.clone().no_routes().route("name = \"charges\"\npath = \"/v1/{*rest}\""),
    ];
    proxy.charge("k").send().await.was(200, "executed");
    for change in &changes {
        proxy.reload(change, "refused").await;
        proxy.charge("k").send().await.was(200, "replayed");
    }
    // A new name with the old id reaches them all the same.
    proxy.reload(&route("renamed", "id = \"charges\""), "ok").await;
    proxy.charge("k").send().await.was(200, "replayed");
    proxy.reload(&changes[4].clone().server("accept_identity_change = true"), "ok").await;
    assert_eq!(upstream.executions(), 1);
}

// contract: R-9
// contract: R-10
#[tokio::test]
async fn requests_under_way_keep_the_rules_they_started_with() {
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream);
    let proxy = Proxy::start(config.clone()).await;
    upstream.next(Script::raw("").then_hold().then(Script::answer(418)));
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    proxy
        .reload(&config.policy("release_on = [418]\nresponse_timeout = \"100ms\"\non_duplicate = \"reject\""), "ok")
        .await;
    pass(200).await;
    upstream.release();
    owner.await.unwrap().was(418, "executed");
    proxy.charge("k").send().await.refused(409, "duplicate");
}

// contract: R-24
#[tokio::test]
async fn a_reload_that_goes_back_to_observing_says_what_that_does_to_retries() {
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream);
    let proxy = Proxy::start(config.clone()).await;
    proxy.charge("k").send().await.was(200, "executed");
    proxy.reload(&config.clone().policy("max_waiters = 7"), "ok").await;
    assert!(!proxy.said().contains("runs again"), "{}", proxy.said());
    proxy.reload(&config.policy("mode = \"observe\""), "ok").await;
    proxy.charge("k").send().await;
    assert_eq!(upstream.executions(), 2, "what was executed under enforcing runs again");
    eventually("the log says so", || async { proxy.said().contains("a retry of what was executed before runs again") })
        .await;
}
