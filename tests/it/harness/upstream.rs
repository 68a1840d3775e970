//! A scripted upstream: raw TCP that does to a connection what real servers do on their worst days.

use std::{
    collections::{HashMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::watch,
};

use super::{
    eventually,
    wire::{Body, Fields, Framing, Head, Reader, field},
};

/// A request as the upstream saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Counted from 1.
    pub(crate) number: usize,
    /// The connection it came on, counted from 1.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// The whole request was read: the charge was made.
    pub(crate) executed: bool,
    /// What its execution yielded: `tok_N`; empty when it was not executed.
    pub(crate) token: String,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }
}

/// What the upstream does with one request, step by step.
#[derive(Debug, Clone)]
pub(crate) struct Script(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    /// Reads the request's body; only then it was executed. Every script without it begins with it.
    Read,
    Send(Vec<u8>),
    /// An answer whose body is the execution's token.
    Token {
        status: u16,
        fields: String,
        /// Sent of it; all where there is none.
        bytes: Option<usize>,
    },
    Hold,
    Pause(Duration),
    Drip(Duration),
    Close,
    Reset,
}

impl Script {
    /// An answer whose body is `tok_N`, N counting executions.
    pub(crate) fn token() -> Self {
        Self::answer(200)
    }

    /// An answer whose body is the token, until another is given.
    pub(crate) fn answer(status: u16) -> Self {
        Self(vec![Step::Token { status, fields: String::new(), bytes: None }])
    }

    /// Bytes as they are.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Step::Send(bytes.into())])
    }

    /// Waits for [`Upstream::release`], then answers with the token.
    pub(crate) fn hold() -> Self {
        Self(vec![Step::Read, Step::Hold]).then(Self::token())
    }

    /// Waits, then answers with the token.
    pub(crate) fn slow(milliseconds: u64) -> Self {
        Self(vec![Step::Read, Step::Pause(Duration::from_millis(milliseconds))]).then(Self::token())
    }

    /// Never answers.
    pub(crate) fn hang() -> Self {
        Self(vec![Step::Read, Step::Pause(Duration::from_secs(3600))])
    }

    /// Resets the connection after the whole request was read: the charge was made, the answer is lost.
    pub(crate) fn reset() -> Self {
        Self(vec![Step::Read, Step::Reset])
    }

    /// Resets the connection as soon as the head is there.
    pub(crate) fn reset_before_body() -> Self {
        Self(vec![Step::Reset])
    }

    /// Closes the connection properly, without an answer.
    pub(crate) fn close() -> Self {
        Self(vec![Step::Read, Step::Close])
    }

    /// Sends so many bytes of the answer, then resets the connection.
    pub(crate) fn cut(bytes: usize) -> Self {
        let answer = Step::Token { status: 200, fields: String::new(), bytes: Some(bytes) };
        Self(vec![Step::Read, answer, Step::Pause(Duration::from_millis(20)), Step::Reset])
    }

    /// Closes the connection in the middle of the answer's body.
    pub(crate) fn cut_body() -> Self {
        Self::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").close_after()
    }

    /// Sends one byte of the answer at a time.
    pub(crate) fn drip(milliseconds: u64) -> Self {
        Self(vec![Step::Read, Step::Drip(Duration::from_millis(milliseconds))])
    }

    /// Adds a field to the last answer.
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        let Some(Step::Token { fields, .. }) = self.0.last_mut() else { panic!("no answer to add a field to") };
        fields.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Gives the last answer this body, with a Content-Length.
    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        let (status, fields) = self.take_answer();
        let body = body.as_ref();
        self.send(format!("HTTP/1.1 {status} Scripted\r\n{fields}Content-Length: {}\r\n\r\n", body.len()), body)
    }

    /// Gives the last answer this body in chunks of at most 7 bytes.
    pub(crate) fn chunked(mut self, body: impl AsRef<[u8]>) -> Self {
        let (status, fields) = self.take_answer();
        let mut bytes = Vec::new();
        for chunk in body.as_ref().chunks(7) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        self.send(format!("HTTP/1.1 {status} Scripted\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"), &bytes)
    }

    fn take_answer(&mut self) -> (u16, String) {
        let Some(Step::Token { status, fields, .. }) = self.0.pop() else { panic!("no answer to give a body") };
        (status, fields)
    }

    fn send(mut self, head: String, body: &[u8]) -> Self {
        let mut bytes = head.into_bytes();
        bytes.extend(body);
        self.0.push(Step::Send(bytes));
        self
    }

    /// Goes on with another script.
    pub(crate) fn then(mut self, next: Self) -> Self {
        self.0.extend(next.0);
        self
    }

    /// Waits for [`Upstream::release`].
    pub(crate) fn then_hold(mut self) -> Self {
        self.0.push(Step::Hold);
        self
    }

    pub(crate) fn then_pause(mut self, milliseconds: u64) -> Self {
        self.0.push(Step::Pause(Duration::from_millis(milliseconds)));
        self
    }

    /// Begins before the request's body was read.
    pub(crate) fn early(mut self) -> Self {
        self.0.insert(0, Step::Pause(Duration::ZERO));
        self
    }

    pub(crate) fn close_after(mut self) -> Self {
        self.0.push(Step::Close);
        self
    }

    pub(crate) fn reset_after(mut self) -> Self {
        self.0.push(Step::Reset);
        self
    }

    fn reads_first(&self) -> bool {
        !matches!(self.0.first(), Some(Step::Read | Step::Pause(Duration::ZERO) | Step::Reset))
    }
}

type Program = Box<dyn Fn(&Seen) -> Script + Send + Sync>;

struct State {
    seen: Mutex<Vec<Seen>>,
    executions: AtomicUsize,
    connections: AtomicUsize,
    queue: Mutex<VecDeque<Script>>,
    program: Mutex<Program>,
    released: watch::Sender<usize>,
}

/// A scripted upstream on a port of its own.
pub(crate) struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Upstream {
    /// Starts one that answers every request with `200` and the execution's token.
    pub(crate) async fn start() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts one at an address that was another's before.
    pub(crate) async fn at(address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        // Room for all whom a test has connect at once: beyond it, the kernel has them try again a second later.
        Self::on(socket.listen(4096).unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            seen: Mutex::default(),
            executions: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            queue: Mutex::default(),
            program: Mutex::new(Box::new(|_| Script::token())),
            released: watch::Sender::new(0),
        });
        let serving = state.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = serving.clone();
                connections.spawn(async move {
                    let connection = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
                    state.serve(connection, stream).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, state, accepting }
    }

    /// Takes the port away: what is open breaks, and connecting is refused.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.accepting.abort();
        let address = self.address;
        eventually("the port is closed", || async { TcpStream::connect(address).await.is_err() }).await;
        address
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request without a script of its own gets this one; several stand in line.
    pub(crate) fn next(&self, script: Script) {
        self.state.queue.lock().unwrap().push_back(script);
    }

    /// What every request gets for which none stands in line.
    pub(crate) fn program(&self, program: impl Fn(&Seen) -> Script + Send + Sync + 'static) {
        *self.state.program.lock().unwrap() = Box::new(program);
    }

    /// Lets everything go on that holds now.
    pub(crate) fn release(&self) {
        self.state.released.send_modify(|count| *count += 1);
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.requests().pop().expect("the upstream saw a request")
    }

    /// Requests that were read whole.
    pub(crate) fn executions(&self) -> usize {
        self.state.executions.load(Ordering::SeqCst)
    }

    /// Executions by idempotency key, as it was sent.
    pub(crate) fn executions_by_key(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for seen in self.requests().iter().filter(|seen| seen.executed) {
            *counts.entry(seen.field("idempotency-key").unwrap_or_default().to_owned()).or_default() += 1;
        }
        counts
    }

    /// Connections ever accepted.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many requests were seen.
    pub(crate) async fn saw(&self, count: usize) {
        eventually(&format!("the upstream saw {count} requests"), || async { self.requests().len() >= count }).await;
    }
}

impl State {
    async fn serve(&self, connection: usize, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut reader = Reader::new(reader);
        while let Ok(Some(head)) = reader.head().await {
            let index = self.note(connection, &head);
            let seen = self.seen.lock().unwrap()[index].clone();
            let script = self.queue.lock().unwrap().pop_front();
            let script = script.unwrap_or_else(|| self.program.lock().unwrap()(&seen));
            let mut read = false;
            let steps = script.reads_first().then_some(Step::Read).into_iter().chain(script.0);
            let mut token = String::new();
            for step in steps {
                match step {
                    Step::Read if read => {}
                    Step::Read => {
                        read = true;
                        match self.execute(index, &head, &mut reader).await {
                            Some(number) => token = format!("tok_{number}"),
                            None => return,
                        }
                    }
                    Step::Close => return,
                    Step::Reset => return reset(writer),
                    step @ (Step::Send(_) | Step::Token { .. } | Step::Hold | Step::Pause(_) | Step::Drip(_)) => {
                        if self.play(step, &token, &seen, &mut writer).await.is_err() {
                            return;
                        }
                    }
                }
            }
            if !read && self.execute(index, &head, &mut reader).await.is_none() {
                return;
            }
        }
    }

    fn note(&self, connection: usize, head: &Head) -> usize {
        let mut words = head.start.split(' ').map(str::to_owned);
        let mut seen = self.seen.lock().unwrap();
        let number = seen.len() + 1;
        seen.push(Seen {
            number,
            connection,
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            fields: head.fields.clone(),
            body: Vec::new(),
            trailers: Vec::new(),
            executed: false,
            token: String::new(),
        });
        number - 1
    }

    async fn execute(
        &self,
        index: usize,
        head: &Head,
        reader: &mut Reader<tokio::net::tcp::OwnedReadHalf>,
    ) -> Option<usize> {
        let mut body = Body::default();
        reader.body(Framing::of(&head.fields, Framing::Length(0)), &mut body).await;
        let mut all = self.seen.lock().unwrap();
        let seen = &mut all[index];
        seen.body = body.bytes;
        seen.trailers = body.trailers;
        if !body.whole {
            return None;
        }
        let number = self.executions.fetch_add(1, Ordering::SeqCst) + 1;
        seen.executed = true;
        seen.token = format!("tok_{number}");
        Some(number)
    }

    async fn play(&self, step: Step, token: &str, seen: &Seen, writer: &mut OwnedWriteHalf) -> std::io::Result<()> {
        match step {
            Step::Send(bytes) => writer.write_all(&bytes).await,
            Step::Token { status, fields, bytes } => {
                let body = match (status, seen.method.as_str()) {
                    (204 | 304, _) | (_, "HEAD") => "",
                    (_, _) => token,
                };
                let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", token.len()) };
                let answer = format!("HTTP/1.1 {status} Scripted\r\n{fields}{length}\r\n{body}");
                writer.write_all(&answer.as_bytes()[..bytes.unwrap_or(answer.len()).min(answer.len())]).await
            }
            Step::Drip(pause) => {
                for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".iter().chain([&b'x'; 1000]) {
                    writer.write_all(&[*byte]).await?;
                    tokio::time::sleep(pause).await;
                }
                Ok(())
            }
            Step::Hold => {
                let mut released = self.released.subscribe();
                released.changed().await.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
            }
            Step::Pause(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Step::Read | Step::Close | Step::Reset => unreachable!("these end or begin a script in `serve`"),
        }
    }
}

/// Closing with nothing lingering sends RST, and no FIN before it.
fn reset(writer: OwnedWriteHalf) {
    let stream: &TcpStream = writer.as_ref();
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    writer.forget();
}
