//! Records as a table that fits 80 columns, and one record as lines.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use clap::builder::styling::{AnsiColor, Style};
use serde_json::Value;

use super::{short, text};
use crate::{
    cli::columns::{padded, shortened},
    clock,
};

/// Columns of a route's name.
const ROUTE: usize = 19;

/// A table with its head. Records are those of the admin API.
pub(super) fn table(records: &[Value]) -> String {
    let bold = Style::new().bold();
    let mut out = String::new();
    _ = writeln!(
        out,
        "{bold}{:<16}  {:<9}  {:<ROUTE$}  {:>5}  {:>7}  ANSWER{bold:#}",
        "RECORD", "STATE", "ROUTE", "AGE", "EXPIRES"
    );
    for record in records {
        let style = state_style(record);
        _ = writeln!(
            out,
            "{}  {style}{:<9}{style:#}  {}  {:>5}  {:>7}  {}",
            short(record),
            text(record, "state"),
            padded(&shown(text(record, "route")), ROUTE),
            span(&record["age_seconds"]),
            left(&record["expires_in_seconds"]),
            answer(record),
        );
    }
    out
}

/// All that is known of one record.
pub(super) fn lines(record: &Value) -> String {
    let label = Style::new().bold();
    let style = state_style(record);
    let mut out = String::new();
    let mut line = |name: &str, value: &str| _ = writeln!(out, "{label}{:<9}{label:#} {value}", format!("{name}:"));
    line("record", text(record, "id"));
    line("state", &format!("{style}{}{style:#}", text(record, "state")));
    line("route", text(record, "route"));
    line("answer", &meaning(record));
    line("age", &span(&record["age_seconds"]));
    if let Some((what, when)) = written(record, clock::wall()) {
        line(what, &when);
    }
    line("expires", &format!("in {}", left(&record["expires_in_seconds"])));
    if !record["lease_left_seconds"].is_null() {
        line("lease", &format!("{} left", left(&record["lease_left_seconds"])));
    }
    line("replays", &record["replays"].to_string());
    line("version", text(record, "version"));
    out
}

/// When the record was claimed or last written, by this machine's calendar: to find its request in the logs of the
/// upstream. The claim of one that lapsed was written anew with each renewal of its lease.
fn written(record: &Value, now: SystemTime) -> Option<(&'static str, String)> {
    let age = Duration::try_from_secs_f64(record["age_seconds"].as_f64()?).ok()?;
    let when = humantime::format_rfc3339_seconds(now.checked_sub(age)?).to_string();
    let what = match (text(record, "state"), text(record, "reason")) {
        ("in_flight", _) => "claimed",
        ("unknown", "lapsed") => "renewed",
        _ => "settled",
    };
    Some((what, when))
}

fn state_style(record: &Value) -> Style {
    match text(record, "state") {
        "unknown" => AnsiColor::Yellow.on_default().bold(),
        "in_flight" => AnsiColor::Cyan.on_default(),
        _ => Style::new(),
    }
}

/// What is known of the answer, in at most 13 columns.
fn answer(record: &Value) -> String {
    let status = &record["status"];
    match (text(record, "state"), text(record, "reason")) {
        ("unknown", "answered") => format!("answered {status}"),
        ("unknown", reason) => reason.to_owned(),
        ("completed", _) if record["kept"] == true => format!("{status} kept"),
        ("completed", _) => format!("{status} not kept"),
        (_, _) => "-".to_owned(),
    }
}

/// The same in a sentence.
fn meaning(record: &Value) -> String {
    let status = &record["status"];
    match (text(record, "state"), text(record, "reason")) {
        ("in_flight", _) => "not yet: an owner is at work".to_owned(),
        ("completed", _) if record["kept"] == true => {
            format!("{status}, kept with a body of {} bytes", record["body_bytes"])
        }
        ("completed", _) => format!("{status}, not kept"),
        ("unknown", "lost") => "none: the connection broke, or its answer was not valid".to_owned(),
        ("unknown", "timed_out") => "none within outcome_timeout".to_owned(),
        ("unknown", "answered") => format!("{status}, which does not tell whether it was executed (unknown_on)"),
        ("unknown", "lapsed") => "none: its owner fell silent".to_owned(),
        ("unknown", "drained") => "none before the drain ended".to_owned(),
        (_, _) => "-".to_owned(),
    }
}

/// A route's name in its column; control characters, which a name might have, are shown and not obeyed.
fn shown(name: &str) -> String {
    let harmless: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    shortened(&harmless, ROUTE).into_owned()
}

/// A time that has passed, in one unit, whole, rounded down: `42s`, `17m`, `3h`, `29d`.
fn span(seconds: &Value) -> String {
    in_one_unit(seconds, |seconds, unit| seconds / unit)
}

/// A time that is left, rounded to the nearest: of 24 hours that have just begun, 24 are left.
fn left(seconds: &Value) -> String {
    in_one_unit(seconds, |seconds, unit| (seconds + unit / 2) / unit)
}

fn in_one_unit(seconds: &Value, count: impl Fn(u64, u64) -> u64) -> String {
    let Some(seconds) = seconds.as_f64() else { return "-".to_owned() };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "spans of seconds, never negative")]
    let milliseconds = (seconds * 1000.0) as u64;
    let (name, unit) = match count(milliseconds, 1000) {
        0..120 => ("s", 1000),
        120..7200 => ("m", 60_000),
        7200..172_800 => ("h", 3_600_000),
        _ => ("d", 86_400_000),
    };
    format!("{}{name}", count(milliseconds, unit))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_fits_80_columns_whatever_is_in_it() {
        let record = |state: &str, rest: Value| {
            let mut record = json!({
                "id": "0123456789abcdef".repeat(4), "state": state, "route": "a route with a very long name",
                "age_seconds": 7199.0, "expires_in_seconds": 86_400_000.0, "replays": 0,
            });
            record.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            record
        };
        let records = [
            record("in_flight", json!({"lease_left_seconds": 14.0})),
            record("completed", json!({"status": 201, "kept": false})),
            record("unknown", json!({"reason": "timed_out"})),
            record("unknown", json!({"reason": "answered", "status": 504})),
        ];
        let table = anstream::adapter::strip_str(&table(&records)).to_string();
        for line in table.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            table.contains("0123456789abcdef  unknown    a route with a ver…   119m    1000d  answered 504"),
            "{table}"
        );
    }

    #[test]
    fn when_a_record_was_written_is_told_by_the_calendar() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        let told = |record: Value| written(&record, now);
        let settled = json!({"state": "unknown", "reason": "lost", "age_seconds": 61.5});
        assert_eq!(told(settled), Some(("settled", "1970-01-01T23:58:58Z".to_owned())));
        let running = json!({"state": "in_flight", "age_seconds": 0.0});
        assert_eq!(told(running), Some(("claimed", "1970-01-02T00:00:00Z".to_owned())));
        let lapsed = json!({"state": "unknown", "reason": "lapsed", "age_seconds": 1.0});
        assert_eq!(told(lapsed).map(|(what, _)| what), Some("renewed"));
        assert_eq!(told(json!({"state": "unknown"})), None);
    }

    #[test]
    fn spans_are_told_in_one_unit() {
        let told =
            [(0.9, "0s"), (119.0, "119s"), (120.0, "2m"), (7200.0, "2h"), (172_800.0, "2d"), (2_592_000.0, "30d")];
        for (seconds, text) in told {
            assert_eq!(span(&json!(seconds)), text);
        }
    }

    #[test]
    fn what_is_left_is_told_to_the_nearest() {
        let told =
            [(0.4, "0s"), (14.8, "15s"), (7199.9, "2h"), (86_399.96, "24h"), (172_799.9, "2d"), (2_591_999.0, "30d")];
        for (seconds, text) in told {
            assert_eq!(left(&json!(seconds)), text);
        }
    }
}
