//! Carries requests to [`Admin`] and answers back, within bounds: connections, heads, bodies, and time.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    Admin, Call, Listener,
    access::{Caller, Peer},
    answer::{Answer, Problem},
    endpoint::Endpoint,
    listener::Wire,
};
use crate::store::Store;

/// Open at a time; others wait to be accepted.
const CONNECTIONS_MOST: usize = 256;
/// Bytes of a request's body.
const BODY_MOST: usize = 2 << 20;
/// Bytes of a request's head, and of what is read ahead.
const HEAD_MOST: usize = 16 << 10;
/// To the whole head, and from one answer to the next head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// To the whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection lives, so that neither a silent nor an unread one is held for ever.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// What the answer under way has after that.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// Between two tries to accept when descriptors or memory are short.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves operators; ends only when the socket cannot be used, or the future is dropped.
///
/// # Cancel safety
///
/// Dropping the future stops the accepting; connections that were accepted go on, in tasks of the runtime.
pub async fn serve<S: Store>(listener: Listener, admin: Arc<Admin<S>>) {
    let listener = match listener.register() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin socket cannot be served"),
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MOST));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    attend(stream, peer, &admin).await;
                    drop(permit);
                });
            }
            Err(error) => {
                let hung_up = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
                if !hung_up {
                    tracing::error!(%error, "the admin socket cannot accept connections; pausing");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn attend<S: Store>(stream: Box<dyn Wire>, peer: Peer, admin: &Admin<S>) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(respond(admin, peer, request).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MOST)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is its peer's affair: whatever it asked for has its own place in the log.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = sleep(LIFETIME) => {
            connection.as_mut().graceful_shutdown();
            _ = timeout(LAST_ANSWER, connection).await;
        }
    }
}

async fn respond<S: Store>(admin: &Admin<S>, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match handle(admin, peer, request).await {
        Ok(answer) => answer.into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// The whole way of a request: what, who, with what.
async fn handle<S: Store>(admin: &Admin<S>, peer: Peer, request: Request<Incoming>) -> Result<Answer, Problem> {
    let (head, body) = request.into_parts();
    let endpoint = Endpoint::find(&head.method, head.uri.path())?;
    let caller = if endpoint.is_open() {
        Caller::anybody(peer)
    } else {
        Caller::admit(peer, &head.headers, admin.token_file.as_deref()).await?
    };
    let body = read(body).await?;
    let if_match = head.headers.get(header::IF_MATCH).map(http::HeaderValue::as_bytes);
    admin.answer(endpoint, Call { caller, query: head.uri.query(), if_match, body: &body }).await
}

async fn read(body: Incoming) -> Result<Bytes, Problem> {
    let read = timeout(BODY_TIMEOUT, Limited::new(body, BODY_MOST).collect()).await;
    match read {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The body is longer than {BODY_MOST} bytes.")))
        }
        Ok(Err(_)) => Err(Problem::bad_request("The body is not whole.")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The body did not come in time.")),
    }
}
