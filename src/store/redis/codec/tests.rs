use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use proptest::prelude::*;

use super::*;
use crate::{config::secrets, rule::Policy};

const ID: RecordId = RecordId([7; 32]);
const VERSION: Version = Version([9; 16]);
const FINGERPRINT: Fingerprint = Fingerprint([3; 32]);
const HOUR: Duration = Duration::from_secs(3600);

fn answer(kept: bool) -> Stored {
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, HeaderValue::from_static("/v1/charges/1"));
    headers.insert("x-request", HeaderValue::from_static("a secret header"));
    if kept {
        Stored::keep(&Policy::default(), 201, &headers, &[Bytes::from_static(b"{\"id\":\"ch_1\"}")])
    } else {
        Stored::not_kept(201, &headers)
    }
}

fn write(record: Record<Stored>) -> Write {
    Write { record, keep: HOUR, route: RouteName("create charge".into()) }
}

/// One of each kind, by the name of its golden file.
fn kinds() -> [(&'static str, Write); 4] {
    let lease = Duration::from_secs(15);
    let in_flight = Record::InFlight { fingerprint: FINGERPRINT, lease, running: Duration::from_millis(1500) };
    let unknown = Record::Unknown { fingerprint: FINGERPRINT, reason: UnknownReason::Answered, status: Some(502) };
    [
        ("in_flight", write(in_flight)),
        ("completed", write(Record::Completed { fingerprint: FINGERPRINT, response: answer(true) })),
        ("not_kept", write(Record::Completed { fingerprint: FINGERPRINT, response: answer(false) })),
        ("unknown", write(unknown)),
    ]
}

fn secrets(lines: &str) -> Secrets {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    secrets::read(file.path()).unwrap()
}

fn sealing(lines: &str) -> Codec {
    Codec::sealed(&secrets(lines))
}

fn is(decoded: &Decoded, write: &Write) -> bool {
    let Decoded { version, replays, keep, route, record } = decoded;
    (*version, *replays, *keep) == (VERSION, 0, HOUR) && *route == write.route && *record == write.record
}

fn from_hex(text: &str) -> Bytes {
    let digits: Vec<_> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Values as this version wrote them, sealed ones by `one`; they must be readable for ever.
fn golden() -> [(&'static str, Bytes, Bytes); 4] {
    macro_rules! golden {
        ($($name:literal),*) => {
            [$((
                $name,
                from_hex(include_str!(concat!("golden/", $name, ".hex"))),
                from_hex(include_str!(concat!("golden/", $name, ".sealed.hex"))),
            )),*]
        };
    }
    golden!["in_flight", "completed", "not_kept", "unknown"]
}

// contract: S-6
#[test]
fn what_this_version_wrote_is_read_for_ever() {
    for ((name, write), (golden, plain, sealed)) in kinds().into_iter().zip(golden()) {
        assert_eq!(name, golden);
        assert!(is(&Codec::plain().decode(&ID, plain.clone()).unwrap(), &write), "{name}");
        assert!(is(&sealing("one").decode(&ID, sealed).unwrap(), &write), "{name}");
        assert_eq!(Codec::plain().encode(&ID, VERSION, &write), plain, "{name}: its bytes are as they were");
    }
}

#[test]
fn every_record_comes_back_as_it_was_written() {
    for (name, write) in kinds() {
        for codec in [Codec::plain(), sealing("one")] {
            let value = codec.encode(&ID, VERSION, &write);
            assert!(is(&codec.decode(&ID, value.into()).unwrap(), &write), "{name}");
        }
    }
}

// contract: S-6
#[test]
fn no_bit_may_change_but_those_of_the_replays() {
    for (_, plain, sealed) in golden() {
        for (codec, value) in [(Codec::plain(), plain), (sealing("one"), sealed)] {
            let whole = codec.decode(&ID, value.clone()).unwrap();
            for bit in 0..value.len() * 8 {
                let mut changed = value.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                let replays = (super::VERSION..BEGIN).contains(&(bit / 8));
                match codec.decode(&ID, changed.into()) {
                    Ok(decoded) => assert!(replays && decoded.record == whole.record, "bit {bit}"),
                    Err(_) => assert!(!replays, "bit {bit}"),
                }
            }
        }
    }
}

// contract: S-6
#[test]
fn a_value_that_was_cut_or_grew_is_no_record() {
    for (_, plain, sealed) in golden() {
        for (codec, value) in [(Codec::plain(), plain), (sealing("one"), sealed)] {
            for end in 0..value.len() {
                assert!(codec.decode(&ID, value.slice(..end)).is_err(), "{end} bytes");
            }
            let longer = [&value[..], &[0]].concat();
            assert_eq!(codec.decode(&ID, longer.into()), Err(Damaged::Checksum));
        }
    }
}

// contract: S-6
#[test]
fn a_value_of_another_record_is_none_of_this_one() {
    let other = RecordId([8; 32]);
    for (_, plain, sealed) in golden() {
        assert_eq!(Codec::plain().decode(&other, plain.clone()), Err(Damaged::Checksum));
        assert_eq!(Codec::plain().peek(&other, &plain), Err(Damaged::Checksum));
        assert_eq!(sealing("one").decode(&other, sealed), Err(Damaged::Checksum));
    }
}

// contract: S-6
#[test]
fn a_newer_format_is_refused() {
    let mut value = Codec::plain().encode(&ID, VERSION, &kinds()[1].1);
    value[BEGIN] = FORMAT + 1;
    assert_eq!(Codec::plain().decode(&ID, value.clone().into()), Err(Damaged::NewerFormat(2)));
    assert_eq!(Codec::plain().peek(&ID, &value), Err(Damaged::NewerFormat(2)));
}

#[test]
fn a_beginning_tells_what_listings_show() {
    for codec in [Codec::plain(), sealing("one")] {
        let summaries = kinds().map(|(_, write)| {
            let value = codec.encode(&ID, VERSION, &write);
            codec.peek(&ID, &value[..value.len().min(PEEK)]).unwrap()
        });
        let lease = Duration::from_secs(15);
        assert_eq!(summaries[0].written, Written::InFlight { lease });
        assert_eq!(summaries[3].written, Written::Unknown { reason: UnknownReason::Answered });
        assert!(summaries.iter().all(|summary| summary.version == VERSION && summary.keep == HOUR));
        assert_eq!(summaries[0].state(lease), State::Unknown);
        assert_eq!(summaries[0].state(lease - Duration::from_millis(1)), State::InFlight);
        assert_eq!(summaries[2].state(HOUR), State::Completed);
    }
}

#[test]
fn sealed_values_show_nothing_of_the_answer_or_the_request() {
    let (_, write) = &kinds()[1];
    let plain = Codec::plain().encode(&ID, VERSION, write);
    let value = sealing("one").encode(&ID, VERSION, write);
    for secret in [&b"ch_1"[..], b"a secret header", b"x-request", &FINGERPRINT.0[..8]] {
        let shows = |value: &[u8]| value.windows(secret.len()).any(|window| window == secret);
        assert!(shows(&plain) && !shows(&value));
    }
    assert_ne!(value, sealing("one").encode(&ID, VERSION, write), "no two are sealed alike");
}

// contract: R-5
#[test]
fn the_first_secret_seals_and_all_open() {
    let (_, write) = &kinds()[1];
    let old = sealing("one").encode(&ID, VERSION, write);
    assert!(is(&sealing("two\none").decode(&ID, old.clone().into()).unwrap(), write));
    assert_eq!(sealing("two").decode(&ID, old.clone().into()), Err(Damaged::Sealed));
    assert_eq!(Codec::plain().decode(&ID, old.into()), Err(Damaged::Sealed));
    let new = sealing("two\none").encode(&ID, VERSION, write);
    assert!(sealing("two").decode(&ID, new.into()).is_ok());
    let clear = Codec::plain().encode(&ID, VERSION, write);
    assert!(sealing("one").decode(&ID, clear.into()).is_ok(), "what was stored before sealing was switched on");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for codec in [Codec::plain(), sealing("one")] {
            prop_assert!(codec.decode(&ID, bytes.clone().into()).is_err());
            prop_assert!(codec.peek(&ID, &bytes).is_err());
        }
    }

    #[test]
    fn any_answer_comes_back(body in prop::collection::vec(any::<u8>(), 0..3000), status in 200_u16..600, name in ".{0,80}") {
        let response = Stored::keep(&Policy::default(), status, &HeaderMap::new(), &[body.into()]);
        let record = Record::Completed { fingerprint: FINGERPRINT, response };
        let write = Write { record, keep: HOUR, route: RouteName(name.into()) };
        for codec in [Codec::plain(), sealing("one")] {
            let value = codec.encode(&ID, VERSION, &write);
            prop_assert!(is(&codec.decode(&ID, value.into()).unwrap(), &write));
        }
    }
}
