//! Raw requests with the verdict they must get: `tests/corpus/README.md` has the form.
//!
//! Each is shown to the guard in every split and sent to a server. A guard that lets through what hyper then refuses
//! shows up here too: the answer would not be the handler's.

use oncegate::server::guard::{Fed, Guard, Refused};

use self::reader::{Verdict, corpus};
use crate::harness::{Server, eventually};

#[path = "../corpus/reader.rs"]
mod reader;

/// What the guard says of pieces, and what it let on.
fn guarded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Verdict, Vec<u8>) {
    let mut guard = Guard::new(32 * 1024);
    let (mut held, mut passed, mut heads) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        held.extend_from_slice(piece);
        let Fed { pass, heads: ended, refused } = guard.feed(&held);
        passed.extend(held.drain(..pass));
        heads += usize::try_from(ended).unwrap();
        match refused {
            Some(Refused::Head(refusal)) => {
                return (Verdict::Refuse(refusal.reason.as_str().to_owned(), heads), passed);
            }
            Some(Refused::Body(refusal)) => {
                return (Verdict::Break(refusal.reason.as_str().to_owned(), heads), passed);
            }
            None => {}
        }
    }
    let whole = held.is_empty() && !guard.is_in_body();
    (if whole { Verdict::Pass(heads) } else { Verdict::Wait(heads) }, passed)
}

// contract: section 8
#[test]
fn the_guard_gives_each_payload_its_verdict_however_it_is_split() {
    let corpus = corpus();
    let wrong: Vec<_> = corpus
        .iter()
        .map(|payload| (payload, guarded([&payload.bytes[..]]).0))
        .filter(|(payload, verdict)| *verdict != payload.verdict)
        .map(|(payload, verdict)| format!("{verdict:?}: {payload}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    for payload in corpus {
        let bytes = &payload.bytes[..];
        let (verdict, passed) = guarded([bytes]);
        assert!(bytes.starts_with(&passed), "{payload}");
        if bytes.len() <= 2000 {
            for cut in 1..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                let (split_verdict, split_passed) = guarded([head, tail]);
                assert_eq!((&split_verdict, &split_passed), (&verdict, &passed), "cut at {cut}: {payload}");
            }
            assert_eq!(guarded(bytes.chunks(1)), (verdict, passed), "byte by byte: {payload}");
        }
    }
}

// contract: section 8
#[test]
fn a_server_answers_each_payload_by_its_verdict_and_nothing_refused_reaches_the_handler() {
    for payload in corpus() {
        let server = Server::start();
        let mut client = server.client();
        client.send(&payload.bytes);
        let answers = |client: &mut crate::harness::Client, count| {
            for _ in 0..count {
                let (status, head, body) = client.answer().unwrap_or_else(|error| panic!("{error}: {payload}"));
                assert_eq!(status, 200, "{head}{body}: {payload}");
            }
        };
        match &payload.verdict {
            Verdict::Pass(count) => {
                // HEAD is answered with a length and no body, and HTTP/1.0 with the connection's end.
                let closes = payload.line.contains("HTTP/1.0");
                if payload.bytes.starts_with(b"HEAD") {
                    continue;
                }
                answers(&mut client, *count);
                if !closes && !payload.line.contains("Connection: close") {
                    let canary = client.send("GET /canary HTTP/1.1\r\nHost: a\r\n\r\n").answer().unwrap();
                    assert_eq!(canary.2, "GET /canary ", "{payload}");
                    assert_eq!(server.handled(), count + 1, "{payload}");
                }
            }
            Verdict::Refuse(reason, count) => {
                answers(&mut client, *count);
                let (_, head, body) = client.answer().unwrap_or_else(|error| panic!("{error}: {payload}"));
                assert_eq!(body, *reason, "{payload}");
                assert!(head.contains("connection: close"), "{head}: {payload}");
                assert_eq!(client.read_to_end().unwrap(), "", "{payload}");
                assert_eq!((server.handled(), server.refused()), (*count, 1), "{payload}");
            }
            Verdict::Break(reason, count) => {
                answers(&mut client, *count - 1);
                let (status, head, body) = client.answer().unwrap_or_else(|error| panic!("{error}: {payload}"));
                assert_eq!((status, &body), (400, reason), "{payload}");
                assert!(head.contains("connection: close"), "{head}: {payload}");
                assert_eq!(client.read_to_end().unwrap(), "", "{payload}");
                assert_eq!(server.handled(), *count, "{payload}");
            }
            Verdict::Wait(count) => {
                eventually("the requests", || server.handled() == *count);
                client.half_close();
                client.read_to_end().unwrap();
                assert_eq!((server.handled(), server.refused()), (*count, 0), "{payload}");
            }
        }
    }
}
