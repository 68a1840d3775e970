//! Which server keeps which bucket: one server, the master that sentinels name, or the masters of a cluster.
//!
//! Read replicas are never asked (contract: S-7).

mod lookup;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use redis::{Cmd, ConnectionInfo, Value};
use tokio::time::{sleep, timeout_at};

pub(crate) use self::lookup::masters;
use super::{
    dialer::{Dialer, elsewhere},
    keys::{self, BUCKETS, Names},
    marks::Marks,
    script::Step,
    server::{Server, Terms},
    trouble::{Remedy, Trouble, told},
};
use crate::{
    clock::{self, Instant},
    config::settled::{Redis, RedisServers},
};

/// For one look at who serves what.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks, at least.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Before a step is sent again to a cluster that is changing.
const AGAIN: Duration = Duration::from_millis(20);
/// Servers that refused a write are said to be down for so long.
const REFUSED: Duration = Duration::from_secs(5);
/// A step is sent to so many servers at most: each refused it, so it ran nowhere.
const HOPS: u32 = 8;

/// All servers, and who serves what.
#[derive(Debug)]
pub(super) struct Servers {
    dialer: Dialer,
    layout: Layout,
    /// The slot of each bucket.
    slots: Vec<u16>,
    map: ArcSwap<Map>,
    /// When it was last looked up.
    looking: tokio::sync::Mutex<Option<Instant>>,
    terms: Arc<Terms>,
    names: Names,
    /// When a write was last refused.
    write_refused: ArcSwapOption<Instant>,
    /// Servers once met, by address: their connections outlive a change of the map.
    met: Mutex<HashMap<String, Arc<Server>>>,
}

#[derive(Debug)]
enum Layout {
    Single,
    Sentinel { master: String, nodes: Vec<SentinelNode> },
    Cluster { nodes: Vec<Place> },
}

/// A [`ConnectionInfo`] that shows no password.
#[derive(Clone)]
struct Place(ConnectionInfo);

/// A sentinel: where it may be asked, and what its server is like.
#[derive(Debug)]
struct SentinelNode {
    /// With the servers' credentials, and with none but the URL's own: which of them it wants is not said anywhere.
    asked: [Place; 2],
    server: Place,
}

/// Who serves what, as was last heard.
#[derive(Debug, Default)]
struct Map {
    /// Each server once.
    servers: Vec<Arc<Server>>,
    /// The server of each bucket, as an index; `None` where nobody serves it.
    owners: Vec<Option<usize>>,
}

impl Servers {
    /// # Errors
    ///
    /// A sentence, when the configuration's URLs or files cannot be used.
    pub(super) fn new(config: &Redis, names: Names, terms: (bool, Marks)) -> Result<Self, String> {
        let (allow_eviction, marks) = terms;
        let must_be_master = match &config.servers {
            RedisServers::Single(_) | RedisServers::Sentinel { .. } => true,
            RedisServers::Cluster(_) => false,
        };
        let terms = Arc::new(Terms { allow_eviction, must_be_master, marks });
        let dialer = Dialer::new(config).map_err(|error| format!("a file of [store.redis]: {error}"))?;
        let place = |url: &String| dialer.place(url).map(Place).map_err(|error| format!("a url: {}", told(&error)));
        let places = |urls: &[String]| urls.iter().map(place).collect::<Result<Vec<_>, _>>();
        let (layout, map) = match &config.servers {
            RedisServers::Single(url) => {
                let server = Arc::new(Server::new(place(url)?.0, dialer.clone(), Arc::clone(&terms)));
                server.set_mark(names.mark(0));
                (Layout::Single, Map::single(server))
            }
            RedisServers::Sentinel { master, nodes } => {
                let sentinel = |url: &String| {
                    let server = place(url)?;
                    let alone = Dialer::bare(url).map_err(|error| format!("a url: {}", told(&error)))?;
                    let asked = [server.0.clone(), alone].map(|place| Place(without_database(place)));
                    Ok(SentinelNode { asked, server })
                };
                let nodes = nodes.iter().map(sentinel).collect::<Result<_, String>>()?;
                (Layout::Sentinel { master: master.clone(), nodes }, Map::default())
            }
            RedisServers::Cluster(nodes) => (Layout::Cluster { nodes: places(nodes)? }, Map::default()),
        };
        let (map, looking, met) = (ArcSwap::from_pointee(map), tokio::sync::Mutex::default(), Mutex::default());
        let write_refused = ArcSwapOption::empty();
        Ok(Self { dialer, layout, slots: keys::slots(&names), names, map, looking, terms, write_refused, met })
    }

    /// How servers are known again.
    pub(super) fn marks(&self) -> &Marks {
        &self.terms.marks
    }

    /// Every server that serves something.
    pub(super) fn all(&self) -> Vec<Arc<Server>> {
        self.map.load().servers.clone()
    }

    /// The buckets that a server serves.
    pub(super) fn buckets(&self, server: &Arc<Server>) -> Vec<u16> {
        let map = self.map.load();
        (0..BUCKETS).filter(|bucket| map.serves(server, *bucket)).collect()
    }

    /// Whether every bucket is served by somebody who answers, and who may be trusted with claims.
    pub(super) fn serve(&self) -> bool {
        let map = self.map.load();
        !map.owners.is_empty()
            && map.owners.iter().all(Option::is_some)
            && map.servers.iter().all(|server| server.answers() && server.is_fit())
            && self.write_refused.load().as_deref().is_none_or(|at| clock::now() >= *at + REFUSED)
    }

    /// The bucket in which the replicas tell each other what they do: the first whose server answers.
    pub(super) fn meeting(&self) -> u16 {
        let map = self.map.load();
        let answers = |bucket: &u16| map.serving(*bucket).is_some_and(|server| server.answers());
        (keys::FIRST..BUCKETS).find(answers).unwrap_or(keys::FIRST)
    }

    /// Whether each key has a slot, and each slot a server.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.layout, Layout::Cluster { .. })
    }

    /// A write was refused, or too few replicas have it: the servers may answer, and are of no use.
    pub(super) fn refused_write(&self) {
        self.write_refused.store(Some(Arc::new(clock::now())));
    }

    /// The server of a bucket, looked up where it is not known.
    pub(super) async fn serving(&self, bucket: u16, deadline: Instant) -> Result<Arc<Server>, Trouble> {
        if let Some(server) = self.map.load().serving(bucket) {
            return Ok(server);
        }
        let looked = timeout_at(deadline, self.look()).await;
        let why = match looked {
            Ok(Ok(())) => "nobody serves this record's slot".to_owned(),
            Ok(Err(why)) => why,
            Err(_) => "it took too long to find out who serves it".to_owned(),
        };
        self.map.load().serving(bucket).ok_or(Trouble::NotSent(why))
    }

    /// Sends a step to who serves its record, following the servers' directions. Only refusals are sent on: what may
    /// have run is the caller's to judge, who knows it again by its version.
    pub(super) async fn step(
        &self,
        step: &Step<'_>,
        replicas: u32,
        deadline: Instant,
    ) -> Result<(Value, bool), Trouble> {
        let mut whole = false;
        let mut asking: Option<Arc<Server>> = None;
        let mut last = Trouble::NotSent("the servers of the cluster point at each other".to_owned());
        for _ in 0..HOPS {
            let (server, ask) = match asking.take() {
                Some(server) => (server, true),
                None => (self.serving(step.keys.bucket, deadline).await?, false),
            };
            let sent = async {
                if step.claims {
                    server.fit(deadline).await?;
                }
                send(&server, step.command(whole), ask, replicas, deadline).await
            };
            let trouble = match sent.await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            match trouble.remedy() {
                Remedy::SendScript => {
                    whole = true;
                    asking = ask.then_some(server);
                }
                Remedy::Ask(address) => asking = self.neighbour(&server, &address),
                Remedy::Moved => self.look_again(deadline).await,
                Remedy::Again => {
                    sleep(AGAIN).await;
                    self.look_again(deadline).await;
                }
                Remedy::Elsewhere => {
                    server.hang_up();
                    self.look_again(deadline).await;
                }
                Remedy::None if matches!(trouble, Trouble::NotSent(_)) && self.moves() => {
                    sleep(AGAIN).await;
                    self.look_again(deadline).await;
                }
                Remedy::None => return Err(trouble),
            }
            last = trouble;
            if clock::now() >= deadline {
                break;
            }
        }
        Err(last)
    }

    /// Whether another server may take over.
    pub(super) fn moves(&self) -> bool {
        match self.layout {
            Layout::Single => false,
            Layout::Sentinel { .. } | Layout::Cluster { .. } => true,
        }
    }

    async fn look_again(&self, deadline: Instant) {
        if let Ok(Err(error)) = timeout_at(deadline, self.look()).await {
            tracing::debug!(error, "the servers of the store are not known");
        }
    }

    /// Finds out anew who serves what. Of many who ask at once, one looks.
    ///
    /// # Errors
    ///
    /// Why nobody could be asked; what was known stays.
    pub(super) async fn look(&self) -> Result<(), String> {
        let mut looked = self.looking.lock().await;
        if looked.is_some_and(|at| clock::now() < at + LOOK_PAUSE) {
            return Ok(());
        }
        let map = match &self.layout {
            Layout::Single => return Ok(()),
            Layout::Sentinel { master, nodes } => self.ask_sentinels(master, nodes).await,
            Layout::Cluster { nodes } => self.ask_cluster(nodes).await,
        };
        *looked = Some(clock::now());
        let map = map?;
        for server in &map.servers {
            if let Some(first) = (0..BUCKETS).find(|bucket| map.serves(server, *bucket)) {
                server.set_mark(self.names.mark(first));
            }
        }
        let known = self.map.load();
        if *known.addresses() != *map.addresses() {
            tracing::info!(servers = ?map.addresses(), "the store's servers");
        }
        self.map.store(Arc::new(map));
        Ok(())
    }

    /// The server that another one names as `HOST:PORT`; `:PORT` is on the same host.
    fn neighbour(&self, server: &Arc<Server>, address: &str) -> Option<Arc<Server>> {
        let (host, port) = address.rsplit_once(':')?;
        let own = server.address();
        let host = if host.is_empty() { own.rsplit_once(':')?.0 } else { host };
        Some(self.server(&elsewhere(&server.place, host, port.parse().ok()?)))
    }

    fn server(&self, place: &ConnectionInfo) -> Arc<Server> {
        let mut met = self.met.lock().expect("nothing panics under the lock");
        let new = || Arc::new(Server::new(place.clone(), self.dialer.clone(), Arc::clone(&self.terms)));
        Arc::clone(met.entry(place.addr().to_string()).or_insert_with(new))
    }
}

impl Map {
    fn single(server: Arc<Server>) -> Self {
        Self { servers: vec![server], owners: vec![Some(0); usize::from(BUCKETS)] }
    }

    fn serves(&self, server: &Arc<Server>, bucket: u16) -> bool {
        let owner = self.owners.get(usize::from(bucket)).copied().flatten();
        owner.is_some_and(|owner| Arc::ptr_eq(&self.servers[owner], server))
    }

    fn serving(&self, bucket: u16) -> Option<Arc<Server>> {
        let owner = (*self.owners.get(usize::from(bucket))?)?;
        Some(Arc::clone(&self.servers[owner]))
    }

    fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.address()).collect()
    }
}

/// Sentinels know no databases.
fn without_database(place: ConnectionInfo) -> ConnectionInfo {
    let settings = place.redis_settings().clone().set_db(0);
    place.set_redis_settings(settings)
}

/// Sends a step's command to one server. With `replicas`, says also whether so many of them have it (contract: S-2).
async fn send(
    server: &Arc<Server>,
    command: Cmd,
    asking: bool,
    replicas: u32,
    deadline: Instant,
) -> Result<(Value, bool), Trouble> {
    if !asking && replicas == 0 {
        return Ok((server.ask(&command, deadline).await?, true));
    }
    let mut commands = redis::pipe();
    if asking {
        commands.cmd("ASKING");
    }
    commands.add_command(command);
    if replicas > 0 {
        let left = deadline.saturating_duration_since(clock::now()).as_millis();
        // The server gives up well before the caller does, so that its count arrives: its timers are up to 100 ms late.
        commands.cmd("WAIT").arg(replicas).arg(u64::try_from(left / 2).unwrap_or(1).max(1));
    }
    let answers = if replicas > 0 {
        server.ask_alone(&commands, deadline).await?
    } else {
        server.ask_all(&commands, deadline).await?
    };
    let mut answers = answers.into_iter().skip(usize::from(asking));
    let odd = || Trouble::Doubt("the server answered fewer commands than it was sent".to_owned());
    let step = answers.next().ok_or_else(odd)?.extract_error().map_err(Trouble::of)?;
    if replicas == 0 {
        return Ok((step, true));
    }
    let acknowledged = answers.next().ok_or_else(odd)?;
    Ok((step, matches!(acknowledged, Value::Int(count) if count >= i64::from(replicas))))
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.addr().fmt(f)
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer(..)")
    }
}
