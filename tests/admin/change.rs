//! What an operator may do to a record, and who wins when somebody else writes it too.

use std::time::Duration;

use oncegate::{
    rule::{Record, Stored, UnknownReason},
    store::{
        Store as _,
        faulty::{Fault, Step},
    },
};
use serde_json::json;

use crate::harness::{DAY, FINGERPRINT, Served, completed, first_version, id, unknown};

const FREE: &str = r#"{"executed": false}"#;

/// The answer that the store holds of a completed record.
async fn answer(served: &Served, number: u8) -> Stored {
    match served.held(id(number)).await.unwrap() {
        Record::Completed { fingerprint, response } => {
            assert_eq!(fingerprint, FINGERPRINT, "a retry is still told from a misuse of the key");
            response
        }
        other @ (Record::InFlight { .. } | Record::Unknown { .. }) => panic!("not completed: {other:?}"),
    }
}

#[tokio::test]
async fn not_executed_frees_the_key() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    let reply = served.resolve(id(1), FREE).await;
    assert_eq!(reply.json(), json!({"id": id(1).to_string(), "state": "absent", "was": "unknown"}));
    assert_eq!(served.held(id(1)).await, None);
    served.resolve(id(1), FREE).await.problem(404);
}

// contract: R-19, R-20
#[tokio::test]
async fn an_answer_is_kept_as_the_routes_own_are() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    let body = json!({"executed": true, "response": {
        "status": 201,
        "headers": [["Content-Type", "text/plain"], ["X-A", "1"], ["X-A", "2"], ["Connection", "x-hop"], ["X-Hop", "1"],
            ["Content-Length", "999"], ["Transfer-Encoding", "chunked"], ["X-Secret", "1"], ["Trailer", "x"],
            ["Idempotent-Replayed", "true"]],
        "body": "größe",
    }});
    let reply = served.resolve(id(1), &body.to_string()).await;
    let record = reply.json();
    assert_eq!((record["state"].as_str(), record["body_bytes"].as_u64()), (Some("completed"), Some(7)));
    assert!(
        record["expires_in_seconds"].as_f64().is_some_and(|left| (10_790.0..=10_800.0).contains(&left)),
        "{record}"
    );
    assert_ne!(record["version"], first_version(id(1)).to_string());
    let (headers, bytes) = answer(&served, 1).await.parts();
    let names: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(names, [("content-type", "text/plain"), ("x-a", "1"), ("x-a", "2")]);
    assert_eq!(bytes, "größe");
}

#[tokio::test]
async fn executed_without_an_answer_is_not_kept() {
    let served = Served::start();
    for (number, body, status) in [(1, r#"{"executed": true}"#, 200), (2, r#"{"executed": true, "status": 202}"#, 202)]
    {
        served.put_unknown(id(number)).await;
        assert_eq!(served.resolve(id(number), body).await.status, 200);
        let answer = answer(&served, number).await;
        assert_eq!((answer.status(), answer.is_kept()), (status, false));
    }
}

#[tokio::test]
async fn an_answer_that_no_upstream_could_give_is_refused_and_changes_nothing() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    let long = "x".repeat(1025);
    for (response, status) in [
        (json!({"status": 199}), 400),
        (json!({"status": 600}), 400),
        (json!({"status": "201"}), 400),
        (json!({"headers": []}), 400),
        (json!({"status": 204, "body": "x"}), 400),
        (json!({"status": 200, "body": "x", "body_base64": "eA=="}), 400),
        (json!({"status": 200, "body_base64": "eA"}), 400),
        (json!({"status": 200, "headers": [["a b", "1"]]}), 400),
        (json!({"status": 200, "headers": [["a", "1\r\nb: 2"]]}), 400),
        (json!({"status": 200, "headers": {"a": "1"}}), 400),
        (json!({"status": 200, "boddy": "x"}), 400),
        (json!({"status": 200, "body": long}), 413),
    ] {
        let body = json!({"executed": true, "response": response}).to_string();
        served.resolve(id(1), &body).await.problem(status);
    }
    for body in [
        r#"{"executed": false, "response": {"status": 200}}"#,
        r#"{"executed": false, "status": 200}"#,
        r#"{"executed": true, "status": 200, "response": {"status": 200}}"#,
        r#"{"executed": null}"#,
        r#"{"response": {"status": 200}}"#,
    ] {
        served.resolve(id(1), body).await.problem(400);
    }
    assert_eq!(served.held(id(1)).await, Some(unknown()));
}

#[tokio::test]
async fn only_what_is_unknown_is_resolved() {
    let served = Served::start();
    served.put(id(1), "charges", completed(200), DAY).await;
    served.put_in_flight(id(2), DAY).await;
    for (number, state) in [(1, "completed"), (2, "in_flight")] {
        for body in [FREE, r#"{"executed": true}"#] {
            assert_eq!(served.resolve(id(number), body).await.problem(409)["state"], state);
        }
    }
    served.resolve(id(3), FREE).await.problem(404);
}

// contract: R-18
#[tokio::test]
async fn a_lapsed_record_is_resolved_as_the_unknown_that_it_reads_as() {
    let served = Served::start();
    served.put_in_flight(id(1), Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(served.resolve(id(1), r#"{"executed": true}"#).await.status, 200);
    assert_eq!(answer(&served, 1).await.status(), 200);
}

// contract: R-4
#[tokio::test]
async fn a_content_keys_record_is_kept_no_longer_than_its_window() {
    let served = Served::start();
    let window = Duration::from_secs(10 * 60);
    served.put(id(1), "legacy", unknown(), window).await;
    assert_eq!(served.resolve(id(1), r#"{"executed": true}"#).await.status, 200);
    let cell = served.store.inner().load(&id(1)).await.unwrap().unwrap();
    assert!(cell.left <= window, "{cell:?}");
}

#[tokio::test]
async fn a_record_of_a_route_that_is_gone_can_still_be_resolved() {
    let served = Served::start();
    served.put(id(1), "a route of last week", unknown(), DAY).await;
    let body = r#"{"executed": true, "response": {"status": 200}}"#;
    let record = served.resolve(id(1), body).await.json();
    assert_eq!((record["state"].as_str(), record["route"].as_str()), (Some("completed"), Some("a route of last week")));
}

#[tokio::test]
async fn a_version_that_moved_on_is_412_and_nothing_is_done() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    let version = first_version(id(1)).to_string();
    let with = |tag: String, method, target| {
        let served = &served;
        async move { served.ask(method, target, &format!("If-Match: {tag}\r\n"), FREE).await }
    };
    let (record, resolve) = (format!("/records/{}", id(1)), format!("/records/{}/resolve", id(1)));
    let other = "0".repeat(32);
    for tag in [format!("\"{other}\""), other.clone(), "W/\"x\"".to_owned(), "\"\"".to_owned()] {
        assert_eq!(with(tag.clone(), "DELETE", &record).await.problem(412)["version"], version, "{tag}");
        with(tag, "POST", &resolve).await.problem(412);
    }
    assert_eq!(served.held(id(1)).await, Some(unknown()));
    assert_eq!(with(format!("\"{other}\", \"{version}\""), "POST", &resolve).await.status, 200);
    served.put_unknown(id(2)).await;
    assert_eq!(with("*".to_owned(), "DELETE", &format!("/records/{}", id(2))).await.status, 200);
}

#[tokio::test]
async fn what_is_settled_between_look_and_write_is_not_overwritten() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    served.store.script(Step::Free, Fault::Hang);
    let settled_meanwhile = async {
        while served.store.hanging() == 0 {
            tokio::task::yield_now().await;
        }
        served.settle_behind(id(1)).await;
        served.store.release();
    };
    let (reply, ()) = tokio::join!(served.resolve(id(1), FREE), settled_meanwhile);
    assert_eq!(reply.problem(409)["state"], "completed");
    assert_eq!(served.held(id(1)).await, Some(completed(200)));
}

#[tokio::test]
async fn a_change_whose_fate_is_uncertain_is_not_called_done() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    for fault in [Fault::LoseRequest, Fault::LoseReply] {
        served.store.script(Step::Free, fault);
        let problem = served.resolve(id(1), FREE).await.problem(503);
        assert!(problem["detail"].as_str().unwrap().contains("may have happened"), "{problem}");
    }
    served.put_unknown(id(2)).await;
    served.store.script(Step::Free, Fault::Refuse);
    let problem = served.resolve(id(2), FREE).await.problem(503);
    assert!(problem["detail"].as_str().unwrap().contains("Nothing was changed"), "{problem}");
}

#[tokio::test]
async fn a_change_that_was_made_is_called_done_though_the_store_cannot_show_it() {
    let served = Served::start();
    for (number, fault) in [(1, Fault::Refuse), (2, Fault::LoseReply)] {
        served.put_unknown(id(number)).await;
        // Looked at for the change, and again for the answer.
        served.store.script(Step::Manage, Fault::Delay(Duration::ZERO));
        served.store.script(Step::Manage, fault);
        let reply = served.resolve(id(number), r#"{"executed": true, "status": 202}"#).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json(), json!({"id": id(number).to_string(), "state": "completed", "was": "unknown"}));
        assert_eq!(answer(&served, number).await.status(), 202);
    }
}

#[tokio::test]
async fn forgetting_asks_for_force_only_while_an_owner_is_at_work() {
    let served = Served::start();
    served.put_in_flight(id(1), DAY).await;
    let target = format!("/records/{}", id(1));
    assert_eq!(served.ask("DELETE", &target, "", "").await.problem(409)["state"], "in_flight");
    assert_eq!(served.ask("DELETE", &format!("{target}?force=false"), "", "").await.status, 409);
    assert!(served.held(id(1)).await.is_some());
    let forgotten = served.ask("DELETE", &format!("{target}?force=true"), "", "").await;
    assert_eq!(forgotten.json(), json!({"id": id(1).to_string(), "state": "absent", "was": "in_flight"}));
    let drained = Record::Unknown { fingerprint: FINGERPRINT, reason: UnknownReason::Drained, status: None };
    for (number, record) in [(2, drained), (3, completed(200))] {
        served.put(id(number), "charges", record, DAY).await;
        let reply = served.ask("DELETE", &format!("/records/{}", id(number).short()), "", "").await;
        assert_eq!((reply.status, served.held(id(number)).await), (200, None));
    }
}
