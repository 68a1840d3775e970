//! What sending to an upstream tells, over real sockets with scripted upstreams that count what they were sent.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "upstream/balance.rs"]
mod balance;
#[path = "upstream/evidence.rs"]
mod evidence;
#[path = "upstream/http2.rs"]
mod http2;
#[path = "upstream/messages.rs"]
mod messages;
#[path = "upstream/pool.rs"]
mod pool;
#[path = "upstream/script.rs"]
mod script;
#[path = "upstream/tls.rs"]
mod tls;
