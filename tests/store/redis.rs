//! The suite on real Redis servers: a single one, a Sentinel set, a cluster.
//!
//! A test's clock is the server's, so hours are let go by by shortening what all keys of the test are kept for: a record's
//! age is reckoned from that.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use oncegate::{
    config::settled::{Redis, RedisServers},
    rule::identity::IdKey,
    store::{
        Figures, Store,
        redis::{RedisOptions, RedisStore},
    },
};

use crate::{
    servers::{Cluster, Options, Sentinel, Server, Single},
    subject::Subject,
};

/// Servers that a test has to itself, or shares with the other cases of a run.
pub(crate) enum Servers {
    Single(Single),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

impl Servers {
    pub(crate) fn masters(&self) -> Vec<&Server> {
        match self {
            Self::Single(single) => vec![single],
            Self::Sentinel(sentinel) => vec![sentinel.master()],
            Self::Cluster(cluster) => cluster.masters(),
        }
    }

    pub(crate) fn config(&self) -> Redis {
        let servers = match self {
            Self::Single(single) => RedisServers::Single(single.url()),
            Self::Sentinel(sentinel) => {
                RedisServers::Sentinel { master: Sentinel::MASTER.to_owned(), nodes: sentinel.urls() }
            }
            Self::Cluster(cluster) => RedisServers::Cluster(cluster.urls()),
        };
        // Tests share two cores: slowness is not what they are about.
        Redis { servers, timeout: Duration::from_secs(5), ..Redis::default() }
    }
}

/// A store on real servers.
pub(crate) struct OnRedis {
    servers: Arc<Servers>,
    store: Arc<RedisStore>,
    prefix: String,
}

impl OnRedis {
    pub(crate) fn on(servers: &Arc<Servers>, change: impl FnOnce(&mut Redis)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("case{}:", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut config = Redis { prefix: prefix.clone(), ..servers.config() };
        change(&mut config);
        Self { servers: Arc::clone(servers), store: Arc::new(open(&config)), prefix }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// A store of these settings, which looks for lapsed leases whenever it is looked after.
pub(crate) fn open(config: &Redis) -> RedisStore {
    let id_key = IdKey::fixed();
    let options =
        RedisOptions { config, allow_eviction: false, secrets: None, id_key: &id_key, census: Duration::ZERO };
    RedisStore::new(&options).unwrap()
}

const SHIFT: &str = "for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do \
    local left = redis.call('PTTL', key) \
    if left >= 0 then \
      if left > tonumber(ARGV[2]) then redis.call('PEXPIRE', key, left - ARGV[2]) else redis.call('DEL', key) end \
    end \
  end";

impl Subject for OnRedis {
    type Store = RedisStore;

    const TICK: Duration = Duration::from_millis(700);
    const SOON: Duration = Duration::from_secs(3);
    const KNOWS_BYTES: bool = false;

    async fn empty() -> Self {
        let shared = SHARED.lock().unwrap().clone();
        if let Some(servers) = &shared {
            tokio::task::block_in_place(|| servers.masters().iter().for_each(|master| _ = master.cli(&["FLUSHALL"])));
        }
        let servers = shared.unwrap_or_else(|| Arc::new(Servers::Single(Single::start(Options::new()))));
        let subject = Self::on(&servers, |_| {});
        // The first look: the servers are known and answer.
        subject.store.upkeep().await.unwrap();
        subject
    }

    fn store(&self) -> &Arc<RedisStore> {
        &self.store
    }

    async fn advance(&self, time: Duration) {
        let (pattern, ms) = (self.prefix.clone(), time.as_millis().to_string());
        tokio::task::block_in_place(|| {
            for master in self.servers.masters() {
                master.cli(&["EVAL", SHIFT, "0", &pattern, &ms]);
            }
        });
    }

    async fn figures(&self) -> Figures {
        self.store.upkeep().await.unwrap();
        self.store.figures()
    }
}

/// Cases that do not hold here, each with the reason.
pub(crate) const LEFT_OUT: [&str; 4] = [
    // Whether a key was freed or its record's time was over is told by this process's clock, which runs on by itself.
    "an_unknown_record_whose_key_is_claimed_anew_is_reported",
    // The script compares versions and knows no leases: who looks for lapsed ones sees what is there then.
    "a_lapse_is_reported_though_its_owner_came_back_first",
    // SCAN may show a key twice while its table grows.
    "a_record_that_stays_is_seen_once_while_others_come_and_go",
    // Redis tells of its memory as a whole.
    "figures_forget_what_expired",
];

/// Servers that all cases of one test share.
static SHARED: Mutex<Option<Arc<Servers>>> = Mutex::new(None);

/// Starts servers for many cases, and ends them when it is dropped.
pub(crate) struct Share;

impl Share {
    pub(crate) fn new(servers: Servers) -> Self {
        *SHARED.lock().unwrap() = Some(Arc::new(servers));
        Self
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
}
