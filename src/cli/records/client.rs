//! A small HTTP/1.1 client for the admin API: one request a connection.

use std::{fmt, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::cli::{Exit, Failure};

/// For the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_MOST: usize = 64 << 20;

/// Finds a record.
pub(super) const FIND: &str = "/records/find";

/// Where an admin API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// `HOST:PORT`
    Tcp(String),
    /// A socket's path.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Asks one admin API.
pub(super) struct Client {
    place: Place,
    token: Option<String>,
}

/// An answer that is not a success: an RFC 9457 problem.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) problem: Value,
}

impl Refused {
    /// What the server says of it.
    pub(super) fn detail(&self) -> &str {
        self.problem["detail"].as_str().unwrap_or("the server says no more")
    }
}

impl Client {
    pub(super) fn new(place: Place, token: Option<String>) -> Self {
        Self { place, token }
    }

    /// What is at `target`.
    pub(super) async fn get(&self, target: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, target, None, None).await
    }

    /// Asks, and takes every refusal as the command's end.
    pub(super) async fn ask(
        &self,
        method: Method,
        target: &str,
        version: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        self.send(method, target, version, body).await?.map_err(|refused| self.refused(&refused))
    }

    /// Asks; a refusal other than of the caller itself is handed back.
    pub(super) async fn send(
        &self,
        method: Method,
        target: &str,
        version: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Result<Value, Refused>, Failure> {
        // To find a record is no change, though what is looked for stands in a body.
        let changes = method != Method::GET && target != FIND;
        let request = self.request(method, target, version, body);
        let (status, bytes) = timeout(ANSWER_TIMEOUT, self.exchange(request, changes))
            .await
            .map_err(|_| self.broken("no answer came in time", changes))??;
        // Whatever else answers there is told by what it says.
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|_| self.broken(format!("its answer ({status}) is not JSON: that is no admin API"), changes))?;
        match status {
            _ if status.is_success() => Ok(Ok(value)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(&Refused { status, problem: value })),
            _ => Ok(Err(Refused { status, problem: value })),
        }
    }

    /// What a refusal says to people.
    pub(super) fn refused(&self, refused: &Refused) -> Failure {
        let Self { place, token } = self;
        let (what, remedy) = match refused.status {
            StatusCode::UNAUTHORIZED if token.is_none() => (
                format!("{place} asks for a token, and none was named"),
                "name the file that holds it with --token-file, or with -c the configuration that does",
            ),
            StatusCode::UNAUTHORIZED => (
                format!("{place} does not take this token"),
                "name the file of the Oncegate that runs there with --token-file",
            ),
            StatusCode::FORBIDDEN => (
                format!("{place} shows no records to anybody"),
                "do so and restart it; without a file, run it with --admin unix:admin.sock",
            ),
            StatusCode::NOT_FOUND => {
                ("there is no such record".to_owned(), "look for it with `oncegate records list` or `find`")
            }
            StatusCode::CONFLICT if refused.problem.get("ids").is_some() => {
                ("several records begin with these digits".to_owned(), "name it by all 64 digits: see `list --json`")
            }
            StatusCode::CONFLICT => {
                ("the record's state does not allow that".to_owned(), "look at it with `oncegate records show`")
            }
            StatusCode::PRECONDITION_FAILED => (
                "the record has changed meanwhile; nothing was done to it".to_owned(),
                "look at it with `oncegate records show`, and decide anew",
            ),
            StatusCode::SERVICE_UNAVAILABLE if refused.problem["damaged"] == true => (
                "the record cannot be read".to_owned(),
                "find out what became of its request; `oncegate records forget ID --force` throws the record away",
            ),
            StatusCode::SERVICE_UNAVAILABLE => {
                let remedy = "look at its log, and at `/readyz?store`; then try again";
                (format!("the Oncegate at {place} cannot do that now"), remedy)
            }
            StatusCode::BAD_REQUEST => ("that cannot be asked".to_owned(), ""),
            status => (format!("{place} refuses that with {status}"), ""),
        };
        let known = ["routes", "scope"].into_iter().find_map(|member| {
            let names: Vec<_> = refused.problem[member].as_array()?.iter().filter_map(Value::as_str).collect();
            Some(if names.is_empty() { "it has none".to_owned() } else { format!("name one of: {}", names.join(", ")) })
        });
        let remedy = known.as_deref().unwrap_or(remedy);
        let exit = match refused.status {
            StatusCode::SERVICE_UNAVAILABLE => Exit::Unavailable,
            StatusCode::BAD_REQUEST => Exit::Usage,
            _ => Exit::Failure,
        };
        Failure::new(exit, what, refused.detail().trim_end_matches('.'), remedy)
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        version: Option<&str>,
        body: Option<&Value>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(body.map(Value::to_string).unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().expect("targets are made of encoded parts");
        let headers = request.headers_mut();
        let mut set = |name, text: &str| {
            let mut value = HeaderValue::from_str(text).expect("tokens, versions and hosts are visible ASCII");
            value.set_sensitive(name == header::AUTHORIZATION);
            headers.insert(name, value);
        };
        match &self.place {
            Place::Tcp(address) if address.bytes().all(|byte| byte.is_ascii_graphic()) => set(header::HOST, address),
            Place::Tcp(_) | Place::Unix(_) => set(header::HOST, "localhost"),
        }
        if let Some(token) = &self.token {
            set(header::AUTHORIZATION, &format!("Bearer {token}"));
        }
        if let Some(version) = version {
            set(header::IF_MATCH, &format!("\"{version}\""));
        }
        if body.is_some() {
            set(header::CONTENT_TYPE, "application/json");
        }
        set(header::CONNECTION, "close");
        request
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, changes: bool) -> Result<(StatusCode, Bytes), Failure> {
        let stream = self.connect().await?;
        let broken = |error: hyper::Error| self.broken(error.to_string(), changes);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MOST).collect().await;
            let body = body.map_err(|error| self.broken(error.to_string(), changes))?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answered);
        tokio::select! {
            biased;
            answer = &mut answered => answer,
            // What the connection has to say is in the answer, or in its error.
            _ = connection => answered.await,
        }
    }

    async fn connect(&self) -> Result<Box<dyn Wire>, Failure> {
        let connecting = async {
            Ok::<Box<dyn Wire>, io::Error>(match &self.place {
                Place::Tcp(address) => Box::new(TcpStream::connect(address.as_str()).await?),
                Place::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        let connected =
            timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|error| {
            let remedy = if error.kind() == io::ErrorKind::PermissionDenied {
                "ask as the user that Oncegate runs as"
            } else {
                "start it with `oncegate run`, or name where it is with --admin or -c"
            };
            let what = format!("the admin API at {} cannot be reached", self.place);
            Failure::new(Exit::Unavailable, what, error.to_string(), remedy)
        })
    }

    fn broken(&self, why: impl Into<String>, changes: bool) -> Failure {
        let remedy = match changes {
            true => {
                "see whether --admin names Oncegate's admin address; a change may have happened, so look before repeating it"
            }
            false => "see whether --admin names Oncegate's admin address, and try again",
        };
        Failure::new(Exit::Unavailable, format!("the admin API at {} did not answer", self.place), why, remedy)
    }
}

/// A connection's bytes, whatever carries them.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A path or query of these parts, percent-encoded.
pub(super) fn target<'p>(path: &str, query: impl IntoIterator<Item = (&'p str, String)>) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// The path of one record.
///
/// # Errors
///
/// A name that no record can have.
pub(super) fn record_path(name: &str) -> Result<String, Failure> {
    let digits = name.trim().trim_start_matches("urn:oncegate:record:");
    let is_name = matches!(digits.len(), 16 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_name {
        return Err(Failure::new(
            Exit::Usage,
            format!("{name:?} names no record"),
            "a record is named by 64 hex digits, or by its first 16",
            "take it from `oncegate records list`, or from a problem's `instance`",
        ));
    }
    Ok(format!("/records/{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_named_by_its_digits_or_as_problems_name_it() {
        assert_eq!(record_path("0123456789abcdef").unwrap(), "/records/0123456789abcdef");
        assert_eq!(record_path("urn:oncegate:record:0123456789ABCDEF").unwrap(), "/records/0123456789ABCDEF");
        assert_eq!(record_path(&"a".repeat(64)).unwrap(), format!("/records/{}", "a".repeat(64)));
        for bad in ["", "find", "0123", "0123456789abcdeg", "../../livez", "0123456789abcdef/resolve"] {
            assert!(record_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(target("/records", [("route", "a&b c".to_owned())]), "/records?route=a%26b+c");
        assert_eq!(target("/records", []), "/records");
    }
}
