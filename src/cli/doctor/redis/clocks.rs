//! What time the servers have. A record's age is reckoned by one of them until another takes over: then their difference
//! counts (contract: R-22).

use redis::{RedisResult, aio::MultiplexedConnection, cmd};

use crate::{cli::doctor::Report, clock, config::settled::Store};

const SUBJECT: &str = "clocks";

/// The clocks of the servers that were asked.
#[derive(Default)]
pub(super) struct Clocks {
    told: Vec<Clock>,
    /// Servers that would not tell.
    silent: Vec<String>,
}

/// How far a node's clock is ahead of ours, in seconds, and who it is.
struct Clock {
    node: String,
    ahead: f64,
}

impl Clocks {
    pub(super) async fn ask(&mut self, node: &mut MultiplexedConnection, name: String) {
        let begun = clock::unix_seconds();
        let time: RedisResult<(f64, f64)> = cmd("TIME").query_async(node).await;
        let middle = f64::midpoint(begun, clock::unix_seconds());
        match time {
            Ok((seconds, micros)) => self.told.push(Clock { node: name, ahead: seconds + micros / 1e6 - middle }),
            Err(_) => self.silent.push(name),
        }
    }

    pub(super) fn compare(&self, store: &Store, report: &mut Report) {
        let Self { told, silent } = self;
        if told.len() + silent.len() == 1 {
            return report.ok(SUBJECT, "one server: nothing to compare");
        }
        if !silent.is_empty() {
            report.warning(
                SUBJECT,
                format!("not compared, since TIME is refused by {}", silent.join(", ")),
                "let this user run TIME (ACL: +time), or see to it that NTP runs there",
            );
        }
        let earliest = told.iter().min_by(|a, b| a.ahead.total_cmp(&b.ahead));
        let latest = told.iter().max_by(|a, b| a.ahead.total_cmp(&b.ahead));
        let (Some(earliest), Some(latest), true) = (earliest, latest, told.len() > 1) else { return };
        let difference = latest.ahead - earliest.ahead;
        if difference < store.lease.as_secs_f64() / 3.0 {
            report.ok(SUBJECT, format!("{} servers differ by {difference:.3} s at most", told.len()));
        } else {
            report.warning(
                SUBJECT,
                format!(
                    "{} is {difference:.1} s ahead of {}: after a failover leases end early or late",
                    latest.node, earliest.node
                ),
                "run NTP on both",
            );
        }
    }
}
