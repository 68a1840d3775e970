//! What holds of records in Redis whatever lies there.

use bytes::{BufMut as _, Bytes};

use super::{BEGIN, CHECK, Codec, Decoded, FIXED, FORMAT, REPLAYS, VERSION, check};
use crate::{
    config::secrets::Secrets,
    rule::{Record, RecordId},
    store::Write,
};

const ID: RecordId = RecordId([7; 32]);

/// No bytes make the codec panic; what it reads it writes again, in the clear and sealed, so that it reads the same; and
/// no byte of that may change.
pub(crate) fn hold(input: &[u8]) {
    let codecs = [Codec::plain(), Codec::sealed(&Secrets::parse(b"one").expect("a secret"))];
    let whole = with_checks(input);
    for value in [input, &whole] {
        for codec in &codecs {
            let Ok(decoded) = codec.decode(&ID, Bytes::copy_from_slice(value)) else {
                // A beginning may be sound though the rest is not.
                let _ = codec.peek(&ID, value);
                continue;
            };
            codecs.iter().for_each(|codec| comes_back(codec, &decoded, input));
        }
    }
}

/// The input as a value whose checks fit, which no luck finds: a name is as long as there is room for, and the format is
/// ours.
fn with_checks(input: &[u8]) -> Vec<u8> {
    let mut head = input.to_vec();
    head.resize(input.len().max(BEGIN + 1 + FIXED), 0);
    head[BEGIN] = FORMAT;
    let mut payload = head.split_off(BEGIN + 1 + FIXED);
    let wanted = usize::from(u16::from_be_bytes([head[BEGIN + FIXED - 1], head[BEGIN + FIXED]]));
    let name = wanted.min(payload.len());
    head.truncate(BEGIN + FIXED - 1);
    head.put_u16(u16::try_from(name).expect("no more than was wanted"));
    let rest = payload.split_off(name);
    head.append(&mut payload);
    head.put_slice(&check("header", &ID, &head));
    // A value that lay in Redis has checks already, which these take the place of.
    head.put_slice(rest.get(CHECK..rest.len().saturating_sub(CHECK)).unwrap_or(&rest));
    head.put_slice(&check("record", &ID, &head));
    head
}

fn comes_back(codec: &Codec, decoded: &Decoded, input: &[u8]) {
    let Decoded { version, replays: _, keep, route, record } = decoded;
    let write = Write { record: record.clone(), keep: *keep, route: route.clone() };
    let value = codec.encode(&ID, *version, &write);
    let again = codec.decode(&ID, value.clone().into());
    assert_eq!(again, Ok(Decoded { replays: 0, ..decoded.clone() }), "another record came back");
    let summary = codec.peek(&ID, &value).expect("what is read whole has a beginning");
    assert_eq!((summary.version, summary.keep, &summary.route), (*version, *keep, route));
    if let Record::Completed { response, .. } = record {
        let (headers, body) = response.parts();
        assert_eq!(body.len(), response.body_bytes());
        assert_eq!(response.without_body().status(), response.status());
        assert!(headers.len() <= response.as_bytes().len());
    }
    // One byte for each input: all of them are too many for a fuzzer.
    let digest = *blake3::hash(input).as_bytes();
    let at = usize::from(u16::from_be_bytes([digest[0], digest[1]])) % value.len();
    may_not_change(codec, &value, at, digest[2] | 1);
}

fn may_not_change(codec: &Codec, value: &[u8], at: usize, by: u8) {
    let mut changed = value.to_vec();
    changed[at] ^= by;
    let is_replays = (VERSION..VERSION + REPLAYS).contains(&at);
    assert_eq!(codec.decode(&ID, changed.into()).is_ok(), is_replays, "byte {at} changed by {by:#x}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, prelude::*, sample::select};

    use super::{super::SEALED, *};
    use crate::rule::{Fingerprint, Policy, RouteName, Stored, UnknownReason, Version};

    fn records() -> impl Strategy<Value = Record<Stored>> {
        let fingerprint = Fingerprint([3; 32]);
        let times = any::<[u64; 2]>().prop_map(|times| times.map(Duration::from_millis));
        let in_flight = times.prop_map(move |[lease, running]| Record::InFlight { fingerprint, lease, running });
        let unknown = (select(UnknownReason::ALL.to_vec()), proptest::option::of(100..1000_u16))
            .prop_map(move |(reason, status)| Record::Unknown { fingerprint, reason, status });
        let completed = (200..600_u16, vec(any::<u8>(), 0..40)).prop_map(move |(status, body)| {
            let response = Stored::keep(&Policy::default(), status, &http::HeaderMap::new(), &[body.into()]);
            Record::Completed { fingerprint, response }
        });
        prop_oneof![in_flight, unknown, completed]
    }

    proptest! {
        // contract: S-6
        #[test]
        fn values_with_sound_checks_come_back(
            version in any::<[u8; VERSION + REPLAYS]>(),
            (flags, state, numbers, reason, status) in
                (select(vec![0, 0, 2, SEALED, 0xff]), select(vec![0, 1, 1, 1, 2, 3]), any::<[u64; 3]>(), 0..6_u8, select(vec![0, 99, 200, 1000])),
            name in prop_oneof![Just(vec![]), vec(any::<u8>(), 0..9)],
            fingerprint in select(vec![31, 32, 32, 32]).prop_map(|length| vec![3; length]),
            status_of_answer in select(vec![99_u16, 100, 201, 999, 1000]),
            fields in vec(("[aB\n]{1,3}", "[ a\t\n]{0,3}"), 0..3),
            count in select(vec![None, None, Some(3_u16)]),
            body in vec(any::<u8>(), 0..20),
        ) {
            let mut value = version.to_vec();
            value.put_slice(&[FORMAT, flags, state]);
            numbers.iter().for_each(|number| value.put_u64(*number));
            value.put_u8(reason);
            value.put_u16(status);
            value.put_u32(0);
            value.put_u16(u16::try_from(name.len()).unwrap());
            value.put_slice(&name);
            value.put_slice(&[0; CHECK]);
            value.put_slice(&fingerprint);
            value.put_u16(status_of_answer);
            value.put_u8(flags);
            value.put_u16(count.unwrap_or_else(|| u16::try_from(fields.len()).unwrap()));
            for (name, text) in &fields {
                value.put_u16(u16::try_from(name.len()).unwrap());
                value.put_u32(u32::try_from(text.len()).unwrap());
                value.put_slice(name.as_bytes());
                value.put_slice(text.as_bytes());
            }
            value.put_slice(&body);
            value.put_slice(&[0; CHECK]);
            hold(&value);
        }

        // contract: S-6
        #[test]
        fn no_byte_of_a_record_may_change(
            record in records(), keep in any::<u64>().prop_map(Duration::from_millis), name in ".{0,9}", by in 1..=255_u8,
            sealed in any::<bool>(),
        ) {
            let write = Write { record, keep, route: RouteName(name.into()) };
            let codec = if sealed { Codec::sealed(&Secrets::parse(b"one").unwrap()) } else { Codec::plain() };
            let value = codec.encode(&ID, Version([9; VERSION]), &write);
            let decoded = codec.decode(&ID, value.clone().into()).unwrap();
            prop_assert_eq!((decoded.record, decoded.keep, decoded.route), (write.record, write.keep, write.route));
            (0..value.len()).for_each(|at| may_not_change(&codec, &value, at, by));
            hold(&value);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
            hold(&bytes);
        }
    }
}
