//! HTTP/2 with prior knowledge, by hyper's client.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Post, soon};

/// Opens a connection on which a stream's answer may be so many bytes ahead of its reader.
pub(crate) async fn http2(address: SocketAddr, window: u32) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    let opening = builder.initial_stream_window_size(window).handshake(TokioIo::new(stream));
    let (client, connection) = soon(opening).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Post {
    /// The same request, for HTTP/2.
    pub(crate) fn http2(&self) -> Request<Full<Bytes>> {
        let uri = format!("http://{}{}", self.host, self.target);
        let fields = self
            .fields
            .iter()
            .fold(Request::builder().method(&*self.method).uri(uri), |head, (name, value)| head.header(name, value));
        fields.body(Full::from(self.body.clone().unwrap_or_default())).unwrap()
    }
}
