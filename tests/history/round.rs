//! One round: load, trouble, quiet, a last question for each record, and the verdict.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    client::{self, Client, Question},
    fault::{self, Kind},
    history::{Fate, History, Record, Rule, Told, Verdict},
    luck::Luck,
    servers,
    world::World,
};

const CLIENTS: usize = 16;
/// Between two calls of one client, at most.
const THINKING_MS: u64 = 40;
/// How many records are asked for at one time.
const RECORDS_AT_ONCE: u64 = 24;
/// How long a store that is back may take to be used, and what waited for it to be written.
const RECOVERY: Duration = Duration::from_secs(10);
/// How long it may take until a store that was emptied is noticed.
const ALARM: Duration = Duration::from_secs(15);

/// A short round: in the suite, with the same seed each time unless one is given.
pub(crate) fn short(kind: Kind) {
    run(kind, number_of("ONCEGATE_SEED").unwrap_or(1), kind.load_min());
}

/// Long rounds, as many and as long as the environment says, with seeds that follow each other.
pub(crate) fn long(kind: Kind) {
    let first = number_of("ONCEGATE_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let seconds = number_of("ONCEGATE_SECONDS").unwrap_or(60);
    for seed in first..first + number_of("ONCEGATE_ROUNDS").unwrap_or(1) {
        run(kind, seed, Duration::from_secs(seconds));
    }
}

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

fn run(kind: Kind, seed: u64, load: Duration) {
    if kind != Kind::Alone && !servers::is_installed() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(round(kind, seed, load));
}

async fn round(kind: Kind, seed: u64, load: Duration) {
    eprintln!("round {kind:?}: ONCEGATE_SEED={seed}, {load:?} of load");
    let world = Arc::new(World::start(kind, seed).await);
    await_serving(&world).await;
    let until = world.log.now() + load;
    let horizon = Arc::new(AtomicU64::new(RECORDS_AT_ONCE));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let luck = Luck::of(seed, &["client", &number.to_string()]);
        clients.spawn(work(world.clone(), luck, until, horizon.clone()));
    }
    let striking = world.clone();
    let strike = tokio::task::spawn_blocking(move || fault::strike(&striking, Luck::of(seed, &["fault"]), load));
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let strikes = strike.await.unwrap();
    world.upstream.calm_down();
    await_serving(&world).await;
    ask_all(&world, seed).await;
    let history = world.log.history();
    let verdict = history.check();
    eprintln!("{}", report(&world, (seed, strikes), &history, &verdict));
    judge(&world, &history, &verdict).await;
}

/// Waits until every process serves guarded requests.
async fn await_serving(world: &World) {
    let mut client = Client::default();
    let start = world.log.now();
    for process in 0..world.processes() {
        for attempt in 0.. {
            let key = format!("probe-{process}-{attempt}-{}", start.as_micros());
            let record = Record { scope: "probe".into(), route: "/charges".into(), key };
            let question = Question { process, record, body: "a".into(), gives_up_after: None, is_last: false };
            let told = client.ask(world, question).await;
            if matches!(&told, Told::Answer(answer) if answer.code.is_empty()) {
                break;
            }
            let waited = world.log.now() - start;
            assert!(waited < RECOVERY, "process {process} does not serve: {told:?}\n{}", world.said().join("\n"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// One client's calls until the load ends.
async fn work(world: Arc<World>, mut luck: Luck, until: Duration, horizon: Arc<AtomicU64>) {
    let mut client = Client::default();
    while world.log.now() < until {
        let record = draw_record(&mut luck, &horizon);
        let body = if luck.chance(4) { "b" } else { "a" };
        // A client that does not get its answer tries again, wherever the way leads it.
        for _ in 0..=luck.index(4) {
            let gives_up_after = luck.chance(5).then(|| luck.millis(1..60));
            let process = luck.index(world.processes());
            let question =
                Question { process, record: record.clone(), body: body.into(), gives_up_after, is_last: false };
            let told = client.ask(&world, question).await;
            tokio::time::sleep(luck.millis(1..THINKING_MS)).await;
            if matches!(&told, Told::Answer(answer) if answer.is_final() || answer.is_unknown()) {
                break;
            }
        }
    }
}

/// A record among those that are new just now: keys are used by three callers on two routes, at the same time.
fn draw_record(luck: &mut Luck, horizon: &AtomicU64) -> Record {
    let newest =
        if luck.chance(35) { horizon.fetch_add(1, Ordering::Relaxed) } else { horizon.load(Ordering::Relaxed) };
    let number = newest - luck.within(0..RECORDS_AT_ONCE);
    let scope = ["alice", "bob", "carol"][usize::try_from(number % 3).unwrap()];
    let route = ["/charges", "/refunds"][usize::try_from(number / 3 % 2).unwrap()];
    Record { scope: scope.into(), route: route.into(), key: format!("k{}", number / 6) }
}

/// Asks once more for every record; again where the answer is one that time must change.
async fn ask_all(world: &Arc<World>, seed: u64) {
    let end = world.log.now() + RECOVERY;
    let mut records: BTreeSet<Record> = world.log.history().calls.into_iter().map(|call| call.record).collect();
    loop {
        let mut asked: Vec<Vec<Record>> = vec![Vec::new(); CLIENTS];
        for (place, record) in records.iter().enumerate() {
            asked[place % CLIENTS].push(record.clone());
        }
        let excused = Arc::new(world.log.history().may_stay_unknown());
        let mut clients = JoinSet::new();
        for (number, records) in asked.into_iter().enumerate() {
            let (world, excused) = (world.clone(), excused.clone());
            let mut luck = Luck::of(seed, &["last", &number.to_string()]);
            clients.spawn(async move {
                let (mut client, mut again) = (Client::default(), Vec::new());
                for record in records {
                    let process = luck.index(world.processes());
                    let question = Question {
                        process,
                        record: record.clone(),
                        body: "a".into(),
                        gives_up_after: None,
                        is_last: true,
                    };
                    let told = client.ask(&world, question).await;
                    let is_settled = matches!(&told, Told::Answer(answer) if answer.is_final()
                        || answer.code == "key-reused"
                        || answer.is_unknown() && excused.contains(&record));
                    if !is_settled {
                        again.push(record);
                    }
                }
                again
            });
        }
        records = clients.join_all().await.into_iter().flatten().collect();
        if records.is_empty() || world.log.now() > end {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

// === the verdict ===

/// What a round saw.
fn report(world: &World, (seed, strikes): (u64, usize), history: &History, verdict: &Verdict) -> String {
    let count = |of: fn(Fate) -> bool| history.executions.iter().filter(|execution| of(execution.fate)).count();
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for call in &history.calls {
        let word = match &call.told {
            Told::Answer(answer) if answer.code.is_empty() => format!("{} ({})", answer.outcome, answer.status),
            Told::Answer(answer) => format!("{} ({})", answer.code, answer.status),
            Told::Broken(_) => "broken".to_owned(),
            Told::GaveUp => "gave up".to_owned(),
        };
        *told.entry(word).or_default() += 1;
    }
    let told: Vec<_> = told.into_iter().map(|(word, count)| format!("{word} {count}")).collect();
    let mut text = String::new();
    writeln!(
        text,
        "round {:?}, seed {seed}, {:.0?}, {strikes} strikes: {} records, {} calls, {} executions ({} released, {} lost, {} unsure)",
        world.kind,
        world.log.now(),
        verdict.records,
        history.calls.len(),
        history.executions.len(),
        count(|fate| matches!(fate, Fate::Released(_))),
        count(|fate| fate == Fate::Lost),
        count(|fate| matches!(fate, Fate::Unsure(_))),
    )
    .unwrap();
    writeln!(text, "  told: {}", told.join(", ")).unwrap();
    write!(
        text,
        "  stayed unknown {}, ran again {} ({} after an answer), violations {}",
        verdict.stayed_unknown,
        verdict.ran_again,
        verdict.answered_and_ran_again,
        verdict.violations.len()
    )
    .unwrap();
    text
}

/// Fails unless the round was as its kind should be.
async fn judge(world: &World, history: &History, verdict: &Verdict) {
    let said = world.said();
    if let Some(first) = verdict.violations.first() {
        let mut rules: BTreeMap<Rule, usize> = BTreeMap::new();
        for violation in &verdict.violations {
            *rules.entry(violation.rule).or_default() += 1;
        }
        let said: Vec<_> = said.iter().rev().take(60).rev().map(String::as_str).collect();
        panic!("{rules:?}; the first:\n{first}\nand this the processes said last:\n{}", said.join("\n"));
    }
    let panicked: Vec<_> = said.iter().filter(|line| line.contains("panicked")).collect();
    assert!(panicked.is_empty(), "{panicked:#?}");
    let told = |code: &str| history.calls.iter().filter_map(|call| call.answer()).any(|answer| answer.code == code);
    if world.kind == Kind::RedisFull {
        assert!(told("store-full"), "nobody met the full store");
    }
    if world.kind == Kind::RedisFlushed {
        let start = world.log.now();
        while wiped(world).await == 0.0 {
            assert!(world.log.now() - start < ALARM, "no process counted the wipe:\n{}", world.said().join("\n"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let said = world.said();
        let is_said = |line: &String| line.contains("ERROR") && (line.contains("empty") || line.contains("wiped"));
        assert!(said.iter().any(is_said), "no process said that the store was emptied:\n{}", said.join("\n"));
    }
}

/// How often the processes have counted that the store was emptied.
async fn wiped(world: &World) -> f64 {
    let mut wiped = 0.0;
    for process in 0..world.processes() {
        let text = client::scrape(world.admin(process)).await;
        let lines = text.lines().filter(|line| line.starts_with("oncegate_store_wiped_total"));
        wiped += lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>();
    }
    wiped
}
