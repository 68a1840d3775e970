//! A Cluster of which a part is away.

use std::sync::Arc;

use oncegate::store::{Event, Store};

use crate::{
    redis::{OnRedis, Servers},
    servers::{Cluster, Options, is_installed},
    subject::{LEASE, Steps, Subject, in_flight},
};

const KEYS: u64 = 60;

// contract: R-18
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_away_hides_no_lapse_on_the_others() {
    if !is_installed() {
        return;
    }
    let options = Options::new().set("cluster-require-full-coverage", "no");
    let servers = Arc::new(Servers::Cluster(tokio::task::block_in_place(|| Cluster::start(options))));
    let subject = OnRedis::on(&servers, |_| {});
    let store = subject.store();
    store.upkeep().await.unwrap();
    for key in 0..KEYS {
        store.put(key, 1, in_flight()).await;
    }
    let Servers::Cluster(cluster) = &*servers else { unreachable!() };
    subject.advance(LEASE).await;
    // Of all masters that where the replicas tell each other whose turn it is.
    let key = format!("{}{{000}}census", subject.prefix());
    tokio::task::block_in_place(|| {
        let masters = cluster.masters();
        let first = *masters.iter().find(|master| master.try_cli(&["GET", &key]).is_ok()).unwrap();
        let replicas = cluster.replicas_of(first);
        replicas.iter().chain([&first]).for_each(|node| node.kill());
    });
    let mut lapsed = 0;
    for _ in 0..100 {
        let events = store.upkeep().await.unwrap_or_default();
        lapsed += events.iter().filter(|event| matches!(event, Event::Lapsed { .. })).count();
        if lapsed > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!((20..KEYS as usize).contains(&lapsed), "{lapsed} of {KEYS}: those of two masters out of three");
    assert!(store.figures().unknown >= 20);
}
