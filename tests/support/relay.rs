//! A relay of TCP that a test stands before a server, to do to its connections what networks do.
//!
//! It delays, holds, swallows and cuts what it carries, refuses connections, or does so by itself at places drawn from a
//! seed. It knows nothing of the protocol: a reply is lost by losing everything from some byte on, as on a real network,
//! so that a stream is never put out of step.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::luck::Luck;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the server.
    Requests,
    /// To the client.
    Replies,
}

/// What befalls a connection at some byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Both sides see it end.
    Cut,
    /// Nothing more passes that way; the connection stays open, and the other way goes on.
    Swallow,
}

/// A fate, the way it is counted on, and the byte after which it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    pub(crate) fate: Fate,
    pub(crate) after_bytes: u64,
}

/// What the test has asked for; each connection watches it.
#[derive(Debug, Clone, Default)]
struct Orders {
    delay: Duration,
    held: bool,
    refusing: bool,
    swallowing_replies: bool,
    /// Connections that began before this many orders to cut end.
    cuts: u64,
    /// What new connections get, by how many there were.
    plan: Option<Plan>,
    seeded: Option<(u64, Range<u64>)>,
}

impl Orders {
    /// The plan of the connection with that number.
    fn plan_of(&self, number: u64) -> Option<Plan> {
        let Some((seed, bytes)) = &self.seeded else { return self.plan };
        let mut luck = Luck::of(*seed, &["relay", &number.to_string()]);
        let (way, fate) = match luck.within(0..4) {
            0 => (Way::Requests, Fate::Cut),
            1 | 2 => (Way::Replies, Fate::Cut),
            _ => (Way::Replies, Fate::Swallow),
        };
        Some(Plan { way, fate, after_bytes: luck.within(bytes.clone()) })
    }
}

/// A running relay, which ends with its test.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    accepted: watch::Receiver<u64>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Stands one before that server. It carries everything as it is until it is told otherwise.
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let orders = watch::Sender::new(Orders::default());
        let (count, accepted) = watch::channel(0);
        let told = orders.subscribe();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if told.borrow().refusing {
                    reset(&client);
                    continue;
                }
                count.send_modify(|count| *count += 1);
                let plan = told.borrow().plan_of(*count.borrow());
                connections.spawn(carry(client, server, told.clone(), plan));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, orders, accepted, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that were let in.
    pub(crate) fn accepted(&self) -> u64 {
        *self.accepted.borrow()
    }

    /// Each piece, either way, comes later by that much.
    pub(crate) fn delay(&self, time: Duration) {
        self.orders.send_modify(|orders| orders.delay = time);
    }

    /// Nothing passes, either way, and no connection ends.
    pub(crate) fn hold(&self) {
        self.orders.send_modify(|orders| orders.held = true);
    }

    /// What was held passes.
    pub(crate) fn release(&self) {
        self.orders.send_modify(|orders| orders.held = false);
    }

    /// From now on requests arrive and their replies do not.
    pub(crate) fn swallow_replies(&self) {
        self.orders.send_modify(|orders| orders.swallowing_replies = true);
    }

    /// Every connection breaks now.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// New connections are reset at once.
    pub(crate) fn refuse(&self) {
        self.orders.send_modify(|orders| orders.refusing = true);
    }

    /// What befalls each new connection.
    pub(crate) fn plan(&self, plan: Option<Plan>) {
        self.orders.send_modify(|orders| orders.plan = plan);
    }

    /// Each new connection is cut, or its replies are swallowed, after a number of bytes of that range; which, is drawn
    /// from the seed and the connection's number.
    pub(crate) fn plan_by(&self, seed: u64, bytes: Range<u64>) {
        self.orders.send_modify(|orders| orders.seeded = Some((seed, bytes)));
    }

    /// Carries everything as it is again. Connections whose bytes were swallowed break.
    pub(crate) fn heal(&self) {
        self.orders.send_modify(|orders| *orders = Orders { cuts: orders.cuts + 1, ..Orders::default() });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection until either side ends, or its fate strikes.
async fn carry(client: TcpStream, server: SocketAddr, orders: watch::Receiver<Orders>, plan: Option<Plan>) {
    let Ok(server) = TcpStream::connect(server).await else { return reset(&client) };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let cuts = orders.borrow().cuts;
    let of = |way| plan.filter(|plan| plan.way == way);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = orders.clone();
    let broken = tokio::select! {
        broken = pump(from_client, to_server, Way::Requests, orders.clone(), of(Way::Requests)) => broken,
        broken = pump(from_server, to_client, Way::Replies, orders, of(Way::Replies)) => broken,
        // An error means that the relay is gone, and every connection with it.
        _ = cut.wait_for(|orders| orders.cuts > cuts) => None,
    };
    drop(broken);
}

/// Moves bytes one way; returns when the connection is to end, with the halves that are still to be dropped.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut orders: watch::Receiver<Orders>,
    plan: Option<Plan>,
) -> Option<(OwnedReadHalf, OwnedWriteHalf)> {
    let mut buffer = vec![0; 16 << 10];
    let mut carried = 0;
    let mut swallowing = false;
    loop {
        let count = from.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        let (delay, swallows) = {
            let orders = orders.wait_for(|orders| !orders.held).await.ok()?;
            (orders.delay, orders.swallowing_replies && way == Way::Replies)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        swallowing |= swallows;
        if swallowing {
            continue;
        }
        let left = plan.map_or(u64::MAX, |plan| plan.after_bytes - carried);
        let pass = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        to.write_all(&buffer[..pass]).await.ok()?;
        carried += u64::try_from(pass).unwrap();
        if pass < count {
            match plan.map(|plan| plan.fate) {
                Some(Fate::Swallow) => swallowing = true,
                Some(Fate::Cut) | None => return Some((from, to)),
            }
        }
    }
}

/// Closing with nothing lingering sends RST.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

mod tests {
    use super::*;

    /// A server that answers each byte with the same byte, a relay before it, and a connection through both.
    async fn echo() -> (Relay, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        (Relay::before(address).await, address)
    }

    /// What comes back of those bytes, until the end or a short silence; and whether it was the end.
    async fn ask(stream: &mut TcpStream, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut got = Vec::new();
        if stream.write_all(bytes).await.is_err() {
            return (got, true);
        }
        loop {
            match tokio::time::timeout(Duration::from_millis(100), stream.read_buf(&mut got)).await {
                Err(_) => return (got, false),
                Ok(Ok(0) | Err(_)) => return (got, true),
                Ok(Ok(_)) => {}
            }
        }
    }

    #[tokio::test]
    async fn it_carries_holds_and_releases() {
        let (relay, _) = echo().await;
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        assert_eq!(ask(&mut stream, b"abc").await, (b"abc".to_vec(), false));
        relay.hold();
        assert_eq!(ask(&mut stream, b"def").await, (Vec::new(), false));
        relay.release();
        assert_eq!(ask(&mut stream, b"").await, (b"def".to_vec(), false));
        relay.delay(Duration::from_millis(150));
        assert_eq!(ask(&mut stream, b"g").await, (Vec::new(), false));
        assert_eq!(relay.accepted(), 1);
    }

    #[tokio::test]
    async fn it_cuts_and_swallows_at_the_byte_it_was_told() {
        let (relay, _) = echo().await;
        relay.plan(Some(Plan { way: Way::Replies, fate: Fate::Cut, after_bytes: 4 }));
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        assert_eq!(ask(&mut stream, b"abcdefg").await, (b"abcd".to_vec(), true));
        relay.plan(Some(Plan { way: Way::Requests, fate: Fate::Cut, after_bytes: 0 }));
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        assert_eq!(ask(&mut stream, b"abc").await, (Vec::new(), true));
        relay.plan(Some(Plan { way: Way::Replies, fate: Fate::Swallow, after_bytes: 2 }));
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        assert_eq!(ask(&mut stream, b"abc").await, (b"ab".to_vec(), false));
        assert_eq!(ask(&mut stream, b"d").await, (Vec::new(), false));
        relay.heal();
        assert_eq!(ask(&mut stream, b"e").await, (Vec::new(), true));
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        assert_eq!(ask(&mut stream, b"abc").await, (b"abc".to_vec(), false));
    }

    #[tokio::test]
    async fn it_refuses_and_cuts_everything() {
        let (relay, _) = echo().await;
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        assert_eq!(ask(&mut stream, b"abc").await, (b"abc".to_vec(), false));
        relay.refuse();
        relay.cut();
        assert_eq!(ask(&mut stream, b"abc").await, (Vec::new(), true));
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        assert_eq!(ask(&mut stream, b"abc").await, (Vec::new(), true));
        relay.heal();
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        relay.swallow_replies();
        assert_eq!(ask(&mut stream, b"abc").await, (Vec::new(), false));
    }

    #[test]
    fn a_seed_gives_the_same_plans_again() {
        let orders = |seed| Orders { seeded: Some((seed, 0..1000)), ..Orders::default() };
        let plans = |seed| (0..50).map(|number| orders(seed).plan_of(number)).collect::<Vec<_>>();
        assert_eq!(plans(7), plans(7));
        assert_ne!(plans(7), plans(8));
    }
}
