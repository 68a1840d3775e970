//! The API that the documentation's examples talk to: `cargo run --example api` serves it on 127.0.0.1:9000.

mod rest;

use std::{io, net::TcpListener};

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:9000")?;
    println!("an API that knows nothing of idempotency: http://127.0.0.1:9000, what it executed: /log");
    rest::serve(&listener);
    Ok(())
}
