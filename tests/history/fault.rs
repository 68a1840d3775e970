//! What goes wrong in a round, and when.

use std::{thread::sleep, time::Duration};

use crate::{
    history::Trouble,
    luck::Luck,
    servers::{Cluster, Sentinel, Server, Single},
    world::{Deployment, World},
};

/// A kind of round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One process with its memory, and nothing goes wrong.
    Alone,
    /// Three processes and one Redis, and nothing goes wrong.
    Quiet,
    /// Processes are killed and started again.
    ProcessKilled,
    /// Processes stand still for longer than their leases.
    ProcessFrozen,
    /// Processes end by SIGTERM, one by one, and others take their places.
    ProcessesReplaced,
    /// Redis is killed and comes back with its append-only file, which it syncs with every write.
    RedisKilled,
    /// The same, synced every second: nothing is lost but what was still to be written.
    RedisKilledEverysec,
    /// Redis stands still for 5 s.
    RedisFrozen,
    /// Redis is at `maxmemory`.
    RedisFull,
    /// Somebody runs FLUSHALL.
    RedisFlushed,
    /// Somebody runs SCRIPT FLUSH, again and again.
    ScriptsFlushed,
    /// Connections to Redis break, or their replies are lost, after bytes that the seed draws.
    NetworkCuts,
    /// Sentinel: the master is killed; `replicas = 1`.
    MasterKilled,
    /// The same while no replica follows any more.
    MasterKilledLagging,
    /// Sentinel: the master stands still, is replaced, and goes on as if nothing had been; `replicas = 1`.
    MasterFrozen,
    /// Sentinel: the master is killed; `replicas = 0`.
    FailoverUnacknowledged,
    /// The same after a second in which no replica followed.
    FailoverUnacknowledgedLagging,
    /// Cluster: a master is killed; `replicas = 1`.
    ClusterMasterKilled,
    /// Cluster: slots move between masters.
    ClusterResharded,
}

impl Kind {
    pub(crate) fn processes(self) -> usize {
        if self == Self::Alone { 1 } else { 3 }
    }

    /// `replicas` of `[store.redis]`.
    pub(crate) fn replicas(self) -> u32 {
        let acknowledged =
            [Self::MasterKilled, Self::MasterKilledLagging, Self::MasterFrozen, Self::ClusterMasterKilled];
        u32::from(acknowledged.contains(&self))
    }

    pub(crate) fn lease(self) -> Duration {
        Duration::from_millis(if self == Self::ProcessFrozen { 1000 } else { 2000 })
    }

    /// How long there must be load for the trouble to come and go.
    pub(crate) fn load_min(self) -> Duration {
        Duration::from_secs(match self {
            Self::Alone | Self::Quiet | Self::ScriptsFlushed | Self::RedisFlushed | Self::RedisFull => 2,
            Self::ProcessKilled | Self::ProcessesReplaced | Self::NetworkCuts | Self::ClusterResharded => 3,
            Self::RedisKilled | Self::RedisKilledEverysec => 4,
            Self::ProcessFrozen => 5,
            Self::MasterKilled
            | Self::MasterKilledLagging
            | Self::MasterFrozen
            | Self::FailoverUnacknowledged
            | Self::FailoverUnacknowledgedLagging
            | Self::ClusterMasterKilled => 6,
            Self::RedisFrozen => 7,
        })
    }
}

/// Makes the trouble of the world's kind within about that time, and ends it; returns how often.
pub(crate) fn strike(world: &World, mut luck: Luck, time: Duration) -> usize {
    let until = world.log.now() + time.mul_f64(0.7);
    sleep(time.mul_f64(0.2));
    let mut times = 0;
    loop {
        times += 1;
        let left = until.saturating_sub(world.log.now());
        once(world, &mut luck, left);
        // Trouble that takes long comes again only where there is time for it.
        sleep(luck.millis(200..500));
        if world.log.now() + world.kind.load_min().mul_f64(0.7) > until {
            return times;
        }
    }
}

fn once(world: &World, luck: &mut Luck, left: Duration) {
    match world.kind {
        Kind::Alone | Kind::Quiet => sleep(left),
        Kind::ProcessKilled => world.kill(luck.index(world.processes()), luck.millis(50..600)),
        Kind::ProcessFrozen => {
            let lease = world.kind.lease();
            world.freeze(luck.index(world.processes()), lease * 2 + luck.millis(0..500));
        }
        Kind::ProcessesReplaced => {
            for process in 0..world.processes() {
                world.terminate(process, Duration::ZERO);
            }
        }
        Kind::RedisKilled => kill(world, single(world), luck.millis(100..1500)),
        Kind::RedisKilledEverysec => {
            world.log.during(Trouble::StoreForgot, || kill(world, single(world), luck.millis(100..1500)));
        }
        Kind::RedisFrozen => {
            let redis = single(world);
            world.log.during(Trouble::StoreAway, || {
                redis.freeze();
                sleep(Duration::from_secs(5));
                redis.thaw();
            });
        }
        Kind::RedisFull => {
            let redis = single(world);
            let used = redis.info("used_memory").expect("Redis says so");
            redis.set("maxmemory", &used);
            sleep(luck.millis(300..700));
            redis.set("maxmemory", "0");
        }
        Kind::RedisFlushed => {
            world.log.during(Trouble::StoreForgot, || single(world).cli(&["FLUSHALL"]));
            sleep(left / 2);
        }
        Kind::ScriptsFlushed => {
            single(world).cli(&["SCRIPT", "FLUSH"]);
        }
        Kind::NetworkCuts => {
            let Deployment::Relayed(_, relay) = &world.store else { unreachable!("it is reached through one") };
            world.log.during(Trouble::StoreAway, || {
                relay.plan_by(luck.next(), 100..30_000);
                relay.cut();
                sleep(left.max(Duration::from_millis(500)));
                relay.heal();
            });
        }
        Kind::MasterKilled => fail_over(world, || kill_master(sentinel(world), luck)),
        Kind::MasterKilledLagging => {
            let set = sentinel(world);
            fail_over(world, || {
                lag(set, luck.millis(300..1000));
                kill_master(set, luck);
            });
        }
        Kind::MasterFrozen => {
            let set = sentinel(world);
            let old = set.master();
            fail_over(world, || {
                old.freeze();
                set.await_other_master(old.port());
                sleep(luck.millis(0..1000));
                old.thaw();
                set.await_replicas(2);
            });
        }
        Kind::FailoverUnacknowledged => {
            world.log.during(Trouble::StoreForgot, || fail_over(world, || kill_master(sentinel(world), luck)));
        }
        Kind::FailoverUnacknowledgedLagging => {
            let set = sentinel(world);
            world.log.during(Trouble::StoreForgot, || {
                lag(set, Duration::from_secs(1));
                fail_over(world, || kill_master(set, luck));
            });
        }
        Kind::ClusterMasterKilled => {
            let Deployment::Cluster(cluster) = &world.store else { unreachable!("it is one") };
            let masters = cluster.masters();
            let old = masters[luck.index(masters.len())];
            fail_over(world, || {
                old.kill();
                while cluster.masters().len() < masters.len() {
                    sleep(Duration::from_millis(20));
                }
                sleep(luck.millis(0..500));
                old.restart();
                cluster.await_whole();
            });
        }
        Kind::ClusterResharded => {
            let Deployment::Cluster(cluster) = &world.store else { unreachable!("it is one") };
            move_slots(cluster, luck);
        }
    }
}

fn kill(world: &World, redis: &Server, pause: Duration) {
    world.log.during(Trouble::StoreAway, || {
        redis.kill();
        sleep(pause);
        redis.restart();
    });
}

/// Kills the master, waits for another, and lets the old one come back: sometimes at once.
fn kill_master(set: &Sentinel, luck: &mut Luck) {
    let old = set.master();
    old.kill();
    set.await_other_master(old.port());
    sleep(luck.millis(0..500));
    old.restart();
    set.await_replicas(2);
}

fn fail_over(world: &World, work: impl FnOnce()) {
    world.log.during(Trouble::StoreAway, || world.log.during(Trouble::FailedOver, work));
}

/// Breaks replication, and lets the master go on alone for that time. A frozen replica would not do: what was sent to it
/// lies in its socket, and is read when it thaws.
fn lag(set: &Sentinel, time: Duration) {
    let master = set.master();
    master.cli(&["ACL", "SETUSER", "default", "-psync", "-sync"]);
    master.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    sleep(time);
}

fn move_slots(cluster: &Cluster, luck: &mut Luck) {
    let masters = cluster.masters();
    let from = luck.index(masters.len());
    let to = (from + 1 + luck.index(masters.len() - 1)) % masters.len();
    let slots = usize::try_from(luck.within(50..400)).expect("it is small");
    cluster.reshard(masters[from], masters[to], slots);
}

fn single(world: &World) -> &Single {
    match &world.store {
        Deployment::Single(redis) | Deployment::Relayed(redis, _) => redis,
        Deployment::Memory | Deployment::Sentinel(_) | Deployment::Cluster(_) => unreachable!("it is one server"),
    }
}

fn sentinel(world: &World) -> &Sentinel {
    match &world.store {
        Deployment::Sentinel(set) => set,
        Deployment::Memory | Deployment::Single(_) | Deployment::Relayed(..) | Deployment::Cluster(_) => {
            unreachable!("sentinels watch it")
        }
    }
}
