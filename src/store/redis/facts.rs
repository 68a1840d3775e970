//! What a server tells of itself, and whether records are safe with it (contract: S-3).

use redis::InfoDict;

/// What `INFO` said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Changes with each start of the server.
    pub(super) run_id: String,
    /// It is the master of its data.
    pub(super) master: bool,
    /// What it does when memory is short.
    pub(super) policy: String,
    /// Keys it threw away for want of memory, since its start.
    pub(super) evicted: u64,
    /// Bytes in use, and allowed; 0 where there is no bound.
    pub(super) memory: (u64, u64),
    /// It appends each write to a file.
    pub(super) appends: bool,
    /// Its version's first number.
    pub(super) major: u32,
}

impl Facts {
    pub(super) fn read(info: &InfoDict) -> Self {
        let text = |name: &str| info.get::<String>(name).unwrap_or_default();
        let number = |name: &str| text(name).parse().unwrap_or(0);
        Self {
            run_id: text("run_id"),
            master: text("role") == "master",
            policy: text("maxmemory_policy"),
            evicted: number("evicted_keys"),
            memory: (number("used_memory"), number("maxmemory")),
            appends: text("aof_enabled") == "1",
            major: text("redis_version").split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0),
        }
    }

    /// Why no claim may be made here; `None` where one may.
    pub(super) fn unfit(&self, allow_eviction: bool) -> Option<String> {
        if self.major < 7 {
            return Some("the server is older than Redis 7, which the store's script needs".to_owned());
        }
        if self.policy == "noeviction" || allow_eviction {
            return None;
        }
        Some(format!(
            "maxmemory-policy is {:?}: a full server would forget live records. Say CONFIG SET maxmemory-policy noeviction, \
             or set store.allow_eviction = true",
            self.policy
        ))
    }
}

#[cfg(test)]
mod tests {
    use redis::{FromRedisValue as _, Value};

    use super::*;

    fn facts(text: &str) -> Facts {
        Facts::read(&InfoDict::from_redis_value(Value::BulkString(text.into())).unwrap())
    }

    // contract: S-3
    #[test]
    fn a_server_that_forgets_when_full_is_unfit_unless_that_is_allowed() {
        let forgetful = facts("redis_version:7.0.15\r\nmaxmemory_policy:volatile-lru\r\n");
        assert!(forgetful.unfit(false).unwrap().contains("volatile-lru"));
        assert_eq!(forgetful.unfit(true), None);
        assert_eq!(facts("redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n").unfit(false), None);
    }

    #[test]
    fn a_server_that_tells_nothing_is_unfit() {
        assert!(facts("").unfit(true).is_some());
        assert!(facts("redis_version:7.0.15\r\n").unfit(false).is_some());
    }

    #[test]
    fn what_info_says_is_read() {
        let facts = facts(
            "run_id:abc\r\nrole:master\r\nmaxmemory_policy:noeviction\r\nevicted_keys:5\r\nused_memory:100\r\n\
             maxmemory:1000\r\naof_enabled:1\r\nredis_version:7.2.4\r\n",
        );
        let expected = Facts {
            run_id: "abc".to_owned(),
            master: true,
            policy: "noeviction".to_owned(),
            evicted: 5,
            memory: (100, 1000),
            appends: true,
            major: 7,
        };
        assert_eq!(facts, expected);
    }
}
