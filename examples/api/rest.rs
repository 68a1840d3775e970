//! A plain API: it executes whatever arrives, as often as it arrives, and never looks at an idempotency key.
//!
//! POST makes a thing, PUT and PATCH change one, DELETE deletes one. `GET /log` lists what was executed, a line each.
//! `X-Lose: answer` executes the request and then breaks the connection, as an API does that dies before it answers;
//! `X-Lose: request` breaks it at once. `X-Fail: 500` executes nothing and says so, as an API does that undoes its work
//! when it fails.

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// What examples send is far shorter.
const BODY_BYTES_MAX: u64 = 64 << 10;

#[derive(Default)]
struct Shop {
    log: Vec<String>,
    made: usize,
    deleted: BTreeSet<String>,
}

struct Request {
    method: String,
    path: String,
    body: String,
    loses: Option<String>,
    fails: bool,
}

/// Answers one request for each connection, until the process ends.
pub(crate) fn serve(listener: &TcpListener) {
    let shop = Arc::new(Mutex::new(Shop::default()));
    for stream in listener.incoming().flatten() {
        let shop = Arc::clone(&shop);
        // A client that leaves is no concern of an API's.
        thread::spawn(move || _ = answer(&stream, &shop));
    }
}

fn answer(mut stream: &TcpStream, shop: &Mutex<Shop>) -> io::Result<()> {
    let Some(request) = read(stream)? else { return Ok(()) };
    if request.loses.as_deref() == Some("request") {
        return Ok(());
    }
    let (status, body) = match request.fails {
        true => ("500 Internal Server Error", "{\"error\": \"nothing was done\"}\n".to_owned()),
        false => shop.lock().unwrap_or_else(PoisonError::into_inner).execute(&request),
    };
    if request.loses.is_some() {
        return Ok(());
    }
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
    let framing = match status {
        "204 No Content" => String::new(),
        _ => format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len()),
    };
    write!(stream, "HTTP/1.1 {status}\r\n{framing}Connection: close\r\n\r\n{body}")
}

fn read(stream: &TcpStream) -> io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (mut length, mut loses, mut fails) = (0, None, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "x-fail" => fails = value.trim() == "500",
            "x-lose" => loses = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = String::new();
    reader.take(u64::min(length, BODY_BYTES_MAX)).read_to_string(&mut body)?;
    Ok(Some(Request { method, path, body, loses, fails }))
}

impl Shop {
    fn execute(&mut self, request: &Request) -> (&'static str, String) {
        let Request { method, path, body, .. } = request;
        if method == "GET" {
            return ("200 OK", self.log.iter().map(|line| format!("{line}\n")).collect());
        }
        self.log.push(format!("{method} {path} {body}").trim_end().to_owned());
        match method.as_str() {
            "POST" => {
                self.made += 1;
                ("201 Created", format!("{{\"id\": {}}}\n", self.made))
            }
            "DELETE" if self.deleted.insert(path.clone()) => ("204 No Content", String::new()),
            "DELETE" => ("404 Not Found", "{\"error\": \"there is no such thing\"}\n".to_owned()),
            _ => ("200 OK", format!("{{\"revision\": {}}}\n", self.log.len())),
        }
    }
}
