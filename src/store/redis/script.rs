//! The script of the store's one atomic step, and how it is asked.

use std::{sync::LazyLock, time::Duration};

use redis::{Cmd, Value, cmd};

use super::keys::Keys;

/// Compares the version and writes (contract: S-1). `return held and …` answers nil where there is no record.
const TEXT: &str = include_str!("swap.lua");

/// A script as the server knows it.
#[derive(Debug)]
pub(super) struct Script {
    text: String,
    sha: String,
}

impl Script {
    fn new(text: String) -> Self {
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Self { text, sha }
    }
}

/// For claims: a server at `maxmemory` refuses the write, though not the look (contract: S-5).
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(TEXT.to_owned()));

/// For everything else, which is taken at `maxmemory` too (contract: S-5). The flag wants Redis 7.
pub(super) static ALWAYS: LazyLock<Script> = LazyLock::new(|| Script::always(TEXT));

/// Notes in the index what was told of a record.
pub(super) static MARK: LazyLock<Script> = LazyLock::new(|| Script::always(include_str!("mark.lua")));

/// Counts replays.
pub(super) static COUNT: LazyLock<Script> = LazyLock::new(|| Script::always(include_str!("count.lua")));

/// Throws away what is no record.
pub(super) static DISCARD: LazyLock<Script> = LazyLock::new(|| Script::always(include_str!("discard.lua")));

/// Takes the turn to look for lapsed leases.
pub(super) static TURN: LazyLock<Script> = LazyLock::new(|| Script::always(include_str!("turn.lua")));

/// Leaves what was counted for the other replicas.
pub(super) static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::always(include_str!("leave.lua")));

impl Script {
    /// One that is taken at `maxmemory` too.
    fn always(text: &str) -> Self {
        Self::new(format!("#!lua flags=allow-oom\n{text}"))
    }

    /// Tells a server the script.
    pub(super) fn load(&self) -> Cmd {
        cmd("SCRIPT").arg("LOAD").arg(&self.text).to_owned()
    }

    /// The command, by the script's digest or (`whole`) with its text, on so many keys that follow.
    pub(super) fn command(&self, whole: bool, keys: u8) -> Cmd {
        let mut command = if whole { cmd("EVAL") } else { cmd("EVALSHA") };
        command.arg(if whole { &self.text } else { &self.sha }).arg(keys);
        command
    }
}

/// What a step asks for.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) script: &'static Script,
    pub(super) keys: &'a Keys,
    /// The version expected; empty for none.
    pub(super) expect: &'a [u8],
    /// The value to write; empty to free the key.
    pub(super) value: &'a [u8],
    pub(super) keep: Duration,
    /// Whether it takes a key that was free: only where records are safe (contract: S-3).
    pub(super) claims: bool,
    /// Whether the index of unsettled records names it afterwards.
    pub(super) open: bool,
}

/// A version that no record has: such a step only looks.
pub(super) const NO_VERSION: &[u8] = b"?";

impl Step<'_> {
    /// The command; see [`Script::command`].
    pub(super) fn command(&self, whole: bool) -> Cmd {
        let mut command = self.script.command(whole, 2);
        command
            .arg(&self.keys.record)
            .arg(&self.keys.open)
            .arg(self.expect)
            .arg(self.value)
            .arg(milliseconds(self.keep))
            .arg(&self.keys.id[..])
            .arg(u8::from(self.open));
        command
    }
}

/// What a step found.
#[derive(Debug)]
pub(super) enum Found {
    /// It wrote.
    Done,
    /// No record.
    Nothing,
    /// Another record: its value, and for how long it is still kept; `None` where it never expires.
    Held(Vec<u8>, Option<Duration>),
}

impl Found {
    /// Reads the script's answer; `None` when it is none of the script's.
    pub(super) fn read(answer: Value) -> Option<Self> {
        if answer == Value::Int(1) {
            return Some(Self::Done);
        }
        if answer == Value::Nil {
            return Some(Self::Nothing);
        }
        let Value::Array(parts) = answer else { return None };
        let Ok([Value::BulkString(value), Value::Int(left)]) = <[Value; 2]>::try_from(parts) else { return None };
        Some(Self::Held(value, u64::try_from(left).ok().map(Duration::from_millis)))
    }
}

/// Whole milliseconds, as Redis keeps them.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
