//! Several urls.

use std::{sync::Arc, time::Duration};

use oncegate::upstream::{SendError, Upstreams};
use tokio::net::TcpListener;

use crate::script::{GUARDED, Peer, Script, exchange, post, settings, url};

async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

// contract: R-11
#[tokio::test]
async fn an_url_that_refuses_leaves_the_attempt_to_another() {
    let script = Script::start(Peer::serve).await;
    let urls = vec![url(closed_port().await), url(script.port), url(closed_port().await)];
    let upstreams = Upstreams::new(&[Arc::new(settings(urls))], 1).unwrap();
    for _ in 0..20 {
        assert_eq!(exchange(upstreams.get(0), post(), GUARDED).await.unwrap(), "ok");
    }
    assert_eq!(script.requests(), 20);
}

// contract: P-6
#[tokio::test]
async fn a_request_that_one_url_lost_is_not_sent_to_another() {
    let play = |mut peer: Peer| async move { drop(peer.request().await) };
    let (one, other) = (Script::start(play).await, Script::start(play).await);
    let urls = vec![url(one.port), url(other.port)];
    let upstreams = Upstreams::new(&[Arc::new(settings(urls))], 1).unwrap();
    for sent in 1..=10 {
        let error = upstreams.get(0).send(post(), GUARDED).await.unwrap_err();
        assert!(matches!(error, SendError::Lost(_)), "{error:?}");
        assert_eq!(one.requests() + other.requests(), sent);
    }
}

#[tokio::test]
async fn an_idle_connection_to_one_url_makes_room_for_another() {
    let (one, other) = (Script::start(Peer::serve).await, Script::start(Peer::serve).await);
    let mut settings = settings(vec![url(one.port), url(other.port)]);
    settings.max_connections = 1;
    settings.queue_timeout = Duration::from_secs(2);
    let upstreams = Upstreams::new(&[Arc::new(settings)], 1).unwrap();
    for _ in 0..40 {
        exchange(upstreams.get(0), post(), GUARDED).await.unwrap();
    }
    assert!(one.requests() > 0 && other.requests() > 0);
    assert_eq!(one.requests() + other.requests(), 40);
}
