//! What units come to, and that what is shown reads back as what it was.

use proptest::prelude::*;

use super::*;

#[test]
fn each_unit_of_time_is_what_it_says() {
    let millis = |text| duration(text).unwrap().as_millis();
    let units = ["1ms", "1s", "1m", "1h", "1d", "1h30m", "0s"].map(millis);
    assert_eq!(units, [1, 1_000, 60_000, 3_600_000, 86_400_000, 5_400_000, 0]);
}

#[test]
fn each_unit_of_size_is_what_it_says() {
    let bytes = |text| size(text).unwrap();
    let units = ["1B", "1KiB", "1MiB", "1GiB", "1KB", "1MB", "1GB"].map(bytes);
    assert_eq!(units, [1, 1 << 10, 1 << 20, 1 << 30, 1_000, 1_000_000, 1_000_000_000]);
}

#[test]
fn blanks_signs_and_fractions_are_refused() {
    for text in ["", " 1s", "1 s", "-1s", "1.5s", "+1s", "s", "1s2", "1S", "\u{0661}s"] {
        assert!(duration(text).is_err(), "{text}");
    }
    for text in ["", " 1KiB", "1 KiB", "-1B", "1.5MiB", "1kib", "KiB", "1KiB1B"] {
        assert!(size(text).is_err(), "{text}");
    }
}

#[test]
fn an_upstream_is_dialled_where_its_url_says() {
    let dialled = |text| {
        let url = upstream_url(text).unwrap();
        (url.target, url.tls, url.authority)
    };
    let tcp = |host: &str, port| UpstreamTarget::Tcp(host.to_owned(), port);
    assert_eq!(dialled("http://a"), (tcp("a", 80), false, "a".to_owned()));
    assert_eq!(dialled("https://a/"), (tcp("a", 443), true, "a".to_owned()));
    assert_eq!(dialled("http://[::1]:9000"), (tcp("::1", 9000), false, "[::1]:9000".to_owned()));
    assert_eq!(dialled("unix:/run/a"), (UpstreamTarget::Unix("/run/a".into()), false, "localhost".to_owned()));
    for text in
        ["http://a:0", "http://a:", "http://a:99999", "http://a?", "http://a/?x", "http://", "ftp://a", "a", "/a"]
    {
        assert!(upstream_url(text).is_err(), "{text}");
    }
}

#[test]
fn a_plus_joins_only_what_has_a_prefix_of_its_own() {
    use crate::rule::policy::KeySource::{Composite, Header, Query};
    let header = |name| Header(http::HeaderName::from_static(name));
    assert_eq!(
        key_source("header:ce-source+header:ce-id").unwrap(),
        Composite(vec![header("ce-source"), header("ce-id")])
    );
    assert_eq!(key_source("query:a+b").unwrap(), Query("a+b".to_owned()));
    assert!(key_source("header:a+").is_err(), "nobody calls a field so");
    assert!(key_source("header:a+b").is_err());
    assert!(key_source("header:a+heder:b").is_err());
}

#[test]
fn a_redis_url_is_what_its_client_takes() {
    for good in [
        "redis://a",
        "redis://a/",
        "redis://a:1/15",
        "redis://a//3/",
        "rediss://u:p%40w@[::1]:1/0",
        "redis://a/0?protocol=resp3",
        "rediss://a#insecure",
    ] {
        assert!(redis_url(good).is_ok(), "{good}");
    }
    for bad in [
        "redis://a:65536",
        "redis://a/x",
        "redis://a/-1",
        "redis://a/0/1",
        "redis://[::1",
        "redis://0.0.0.0",
        "unix:/a",
        "redis://",
    ] {
        assert!(redis_url(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn a_duration_reads_back_as_it_is_shown(millis in 0..=LONGEST.as_millis() as u64) {
        let shown = Duration::from_millis(millis);
        prop_assert_eq!(duration(&show_duration(shown)), Ok(shown));
    }

    #[test]
    fn a_size_reads_back_as_it_is_shown(bytes in 0..=i64::MAX as u64) {
        prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
    }

    #[test]
    fn no_text_panics_a_value(text in "(?s).{0,60}") {
        let _ = (duration(&text), size(&text), address(&text), upstream_url(&text), redis_url(&text), docs_url(&text));
        let _ = (host(&text), path(&text), key_source(&text), scope_part(&text), status(&text), media_type(&text));
    }
}
