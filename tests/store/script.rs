//! The script alone, by `redis-cli`: it compares a version and writes bytes, and knows nothing else (contract: S-1).

use crate::servers::{Options, Single, is_installed};

const SWAP: &str = include_str!("../../src/store/redis/swap.lua");
const COUNT: &str = include_str!("../../src/store/redis/count.lua");
const MARK: &str = include_str!("../../src/store/redis/mark.lua");

const FIRST: &str = "version-of-first";
const OTHER: &str = "version-of-other";

struct Script(Single);

impl Script {
    /// Where there is a Redis.
    fn new() -> Option<Self> {
        is_installed().then(|| Self(Single::start(Options::new())))
    }

    /// Runs it on the key `r` of the bucket `i`; `true`, an empty line or the value and its time come back.
    fn swap(&self, expect: &str, value: &str, open: &str) -> String {
        self.0.cli(&["EVAL", SWAP, "2", "r", "i", expect, value, "60000", "id", open])
    }

    fn cli(&self, words: &[&str]) -> String {
        self.0.cli(words)
    }

    fn value(&self) -> String {
        self.cli(&["GET", "r"])
    }
}

fn value(version: &str, rest: &str) -> String {
    format!("{version}{rest}")
}

// contract: S-1
#[test]
fn it_writes_only_where_what_was_expected_is_there() {
    let Some(script) = Script::new() else { return };
    assert_eq!(script.swap(FIRST, &value(OTHER, "x"), "0"), "", "a version where there is none");
    assert_eq!(script.swap("", &value(FIRST, "one"), "1"), "1");
    let held = script.swap("", &value(OTHER, "two"), "1");
    let (left, time) = held.split_once('\n').unwrap();
    assert_eq!(left, value(FIRST, "one"));
    assert!((1..=60_000).contains(&time.parse::<u64>().unwrap()), "{time}");
    assert_eq!(script.value(), value(FIRST, "one"));
    assert_eq!(script.swap(FIRST, &value(OTHER, "two"), "0"), "1");
    assert_eq!(script.value(), value(OTHER, "two"));
}

// contract: S-1
#[test]
fn a_step_sent_twice_is_one_write_and_keeps_its_time() {
    let Some(script) = Script::new() else { return };
    assert_eq!(script.swap("", &value(FIRST, "one"), "1"), "1");
    script.cli(&["PEXPIRE", "r", "5000"]);
    assert_eq!(script.swap("", &value(FIRST, "one"), "1"), "1");
    assert!(script.cli(&["PTTL", "r"]).parse::<u64>().unwrap() <= 5000);
    // Nor does it end a value that somebody made to last.
    script.cli(&["PERSIST", "r"]);
    assert_eq!(script.swap("", &value(FIRST, "one"), "1"), "1");
    assert_eq!(script.cli(&["PTTL", "r"]), "-1");
}

#[test]
fn freeing_takes_the_version_and_leaves_nothing() {
    let Some(script) = Script::new() else { return };
    script.swap("", &value(FIRST, "one"), "1");
    assert!(script.swap(OTHER, "", "0").starts_with(FIRST));
    assert_eq!(script.swap(FIRST, "", "0"), "1");
    assert_eq!(script.cli(&["DBSIZE"]), "0", "the index is gone with what it named");
    assert_eq!(script.swap(FIRST, "", "0"), "", "a second time finds nothing");
}

#[test]
fn the_index_names_what_is_open_and_its_trouble_is_none_of_the_steps() {
    let Some(script) = Script::new() else { return };
    script.swap("", &value(FIRST, "one"), "1");
    assert_eq!(script.cli(&["ZRANGE", "i", "0", "-1", "WITHSCORES"]), "id\n0");
    assert_eq!(script.cli(&["EVAL", MARK, "2", "r", "i", FIRST, "id", "1"]), "1");
    assert_eq!(script.cli(&["EVAL", MARK, "2", "r", "i", OTHER, "id", "2"]), "0", "it was written since");
    assert_eq!(script.cli(&["ZSCORE", "i", "id"]), "1");
    script.swap(FIRST, &value(OTHER, "renewed"), "1");
    assert_eq!(script.cli(&["ZSCORE", "i", "id"]), "0", "a renewal is told anew");
    script.cli(&["SET", "i", "a stranger's"]);
    assert_eq!(script.swap(OTHER, &value(FIRST, "settled"), "0"), "1");
    assert_eq!(script.value(), value(FIRST, "settled"));
}

// contract: S-6
#[test]
fn a_strangers_value_is_never_taken_for_none() {
    let Some(script) = Script::new() else { return };
    for stranger in ["", "short", "a stranger's value, longer than a version"] {
        script.cli(&["SET", "r", stranger]);
        assert!(script.swap("", &value(FIRST, "one"), "1").starts_with(stranger));
        assert_eq!(script.value(), stranger);
    }
    script.cli(&["DEL", "r"]);
    script.cli(&["LPUSH", "r", "x"]);
    let words = ["EVAL", SWAP, "2", "r", "i", "", FIRST, "60000", "id", "1"];
    assert!(script.0.try_cli(&words).unwrap_err().contains("WRONGTYPE"));
}

// contract: S-5
#[test]
fn at_maxmemory_it_looks_and_writes_only_with_the_flag() {
    let Some(script) = Script::new() else { return };
    script.swap("", &value(FIRST, "one"), "1");
    script.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(script.swap("", &value(OTHER, "two"), "1").starts_with(FIRST));
    let claim = ["EVAL", SWAP, "2", "new", "i", "", OTHER, "60000", "id", "1"];
    assert!(script.0.try_cli(&claim).unwrap_err().contains("OOM"));
    assert_eq!(script.cli(&["EXISTS", "new"]), "0");
    let flagged = format!("#!lua flags=allow-oom\n{SWAP}");
    let settle = ["EVAL", &flagged, "2", "r", "i", FIRST, OTHER, "60000", "id", "0"];
    assert_eq!(script.cli(&settle), "1");
}

#[test]
fn replays_are_counted_in_place() {
    let Some(script) = Script::new() else { return };
    script.cli(&["EVAL", "redis.call('SET', 'r', ARGV[1] .. '\\0\\0\\0\\1rest', 'PX', 60000)", "0", FIRST]);
    assert_eq!(script.cli(&["EVAL", COUNT, "1", "r", "41"]), "42");
    assert_eq!(script.cli(&["GETRANGE", "r", "20", "-1"]), "rest");
    assert!(script.cli(&["PTTL", "r"]).parse::<i64>().unwrap() > 0);
    assert_eq!(script.cli(&["EVAL", COUNT, "1", "none", "1"]), "0");
    assert_eq!(script.cli(&["EXISTS", "none"]), "0", "counting makes no record");
}
