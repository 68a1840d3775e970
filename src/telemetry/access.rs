//! The access line: one a request, as text or JSON. It never holds a key, scope value, query, field value or body.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use crate::{clock, config::settled::LogFormat, rule::record::ShortId};

/// What is told of a request.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The client's address, as far as it is known.
    pub client: Option<IpAddr>,
    /// The method.
    pub method: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The status the client was sent; 499 when it went away before.
    pub status: u16,
    /// How our handling ended.
    pub outcome: &'a str,
    /// The record, where there is one.
    pub record: Option<ShortId>,
    /// The trace id of the client's `traceparent`.
    pub trace_id: Option<&'a str>,
    /// From the head to the end of the answer.
    pub took: Duration,
    /// What of it the upstream took.
    pub upstream_took: Option<Duration>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Why it was refused.
    pub why: Option<&'a str>,
    /// What was wrong with it, where `why` is too general.
    pub cause: Option<&'a str>,
}

impl Line<'_> {
    /// Writes the line with its newline.
    pub(super) fn write(&self, format: LogFormat, to: &mut String) {
        let Self {
            client,
            method,
            route,
            path,
            status,
            outcome,
            record,
            trace_id,
            took,
            upstream_took,
            bytes_in,
            bytes_out,
            why,
            cause,
        } = *self;
        let mut fields = Fields { format, to, first: true };
        fields.begin();
        if let Some(client) = client {
            fields.text("client", &client.to_string());
        }
        fields.text("method", method);
        fields.text("route", route);
        fields.text("path", path);
        fields.plain("status", status);
        fields.text("outcome", outcome);
        if let Some(record) = record {
            fields.text("record", &record.to_string());
        }
        fields.plain("took_ms", Milliseconds(took));
        if let Some(took) = upstream_took {
            fields.plain("upstream_ms", Milliseconds(took));
        }
        fields.plain("bytes_in", bytes_in);
        fields.plain("bytes_out", bytes_out);
        if let Some(why) = why {
            fields.text("why", why);
        }
        if let Some(cause) = cause {
            fields.text("cause", cause);
        }
        if let Some(trace_id) = trace_id {
            fields.text("trace_id", trace_id);
        }
        fields.end();
    }
}

/// Now, as RFC 3339 in UTC with milliseconds.
pub(super) fn timestamp() -> impl std::fmt::Display {
    humantime::format_rfc3339_millis(clock::wall())
}

struct Milliseconds(Duration);

impl std::fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0.as_millis(), self.0.as_micros() % 1000)
    }
}

/// Writes fields in the format of the log. A `String` takes every write, so results are of no interest.
struct Fields<'a> {
    format: LogFormat,
    to: &'a mut String,
    first: bool,
}

impl Fields<'_> {
    fn begin(&mut self) {
        match self.format {
            LogFormat::Text => _ = write!(self.to, "{} access", timestamp()),
            LogFormat::Json => {
                _ = write!(self.to, "{{\"timestamp\":\"{}\",\"level\":\"INFO\",\"kind\":\"access\"", timestamp());
            }
        }
        self.first = false;
    }

    fn end(&mut self) {
        self.to.push_str(match self.format {
            LogFormat::Text => "\n",
            LogFormat::Json => "}\n",
        });
    }

    fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        _ = match self.format {
            LogFormat::Text => write!(self.to, " {name}={value}"),
            LogFormat::Json => write!(self.to, ",\"{name}\":{value}"),
        };
    }

    fn text(&mut self, name: &str, value: &str) {
        let is_bare = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'=' && byte != b'\\';
        if self.format == LogFormat::Text && !value.is_empty() && value.bytes().all(is_bare) {
            return self.plain(name, value);
        }
        // JSON's quoting keeps control bytes out of text lines too.
        let quoted = serde_json::Value::from(value);
        self.plain(name, quoted);
    }
}

/// The trace id of a `traceparent` (W3C Trace Context s3.2): 32 hex digits in lower case, not all zero.
#[must_use]
pub fn trace_id(traceparent: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(traceparent).ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, digits| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let well_formed = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && !zero(trace)
        && hex(parent, 16)
        && !zero(parent)
        && hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    well_formed.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(path: &str) -> Line<'_> {
        Line {
            client: Some([203, 0, 113, 9].into()),
            method: "POST",
            route: "create charge",
            path,
            status: 201,
            outcome: "executed",
            record: Some(ShortId([0xab; 8])),
            trace_id: None,
            took: Duration::from_micros(1234),
            upstream_took: Some(Duration::from_micros(1000)),
            bytes_in: 3,
            bytes_out: 4,
            why: None,
            cause: None,
        }
    }

    fn line(format: LogFormat, path: &str) -> String {
        let mut text = String::new();
        example(path).write(format, &mut text);
        text
    }

    #[test]
    fn a_text_line_is_one_line_of_names_and_values() {
        let text = line(LogFormat::Text, "/v1/charges");
        let (_, rest) = text.split_once(" access ").unwrap();
        assert_eq!(
            rest,
            "client=203.0.113.9 method=POST route=\"create charge\" path=/v1/charges status=201 outcome=executed \
             record=abababababababab took_ms=1.234 upstream_ms=1.000 bytes_in=3 bytes_out=4\n"
        );
    }

    #[test]
    fn the_page_tells_of_every_field() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(root.join("docs/deployment.md")).unwrap();
        let mut text = String::new();
        let line = Line { trace_id: Some("4bf9"), why: Some("bad-request"), cause: Some("trailers"), ..example("/") };
        line.write(LogFormat::Json, &mut text);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        for name in json.as_object().unwrap().keys().filter(|name| !["timestamp", "level", "kind"].contains(&&***name))
        {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn whatever_the_path_holds_the_line_stays_one_and_json_stays_json() {
        for path in ["/a\nb", "/\"", "/\u{1b}[31m", "/\\", "/ä"] {
            for format in [LogFormat::Text, LogFormat::Json] {
                let text = line(format, path);
                assert_eq!(text.matches('\n').count(), 1, "{text:?}");
                assert!(!text.contains('\u{1b}'), "{text:?}");
            }
            let json: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, path)).unwrap();
            assert_eq!(json["path"], path);
            assert_eq!(json["status"], 201);
        }
    }

    #[test]
    fn a_trace_id_is_read_from_a_well_formed_traceparent_only() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(format!("00-{trace}-00f067aa0ba902b7-01").as_bytes()), Some(trace));
        assert_eq!(trace_id(format!("01-{trace}-00f067aa0ba902b7-01-more").as_bytes()), Some(trace));
        for bad in [
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{trace}"),
            "x".repeat(55),
            String::new(),
        ] {
            assert_eq!(trace_id(bad.as_bytes()), None, "{bad}");
        }
    }
}
