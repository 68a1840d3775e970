//! The properties that hold of every parser whatever it is fed, for the fuzzer (`fuzz/`) and for the tests.
//!
//! Each is a plain function that panics where it does not hold. It stands beside the parser, in `properties.rs`, and is run
//! three ways: by proptest and on the seeds of `fuzz/corpus` with every test, and by the fuzzer for as long as one likes.
//!
//! *Architecture invariant:* built for tests and the fuzzer only; nothing uses it.

/// A target's name, and the property that it tries.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of `fuzz/fuzz_targets`.
pub const TARGETS: [Target; 7] = [
    ("codec", codec),
    ("config", config),
    ("fingerprint", fingerprint),
    ("forwarded", forwarded),
    ("guard", guard),
    ("key", key),
    ("proxy_protocol", proxy_protocol),
];

/// Values in Redis, as records.
pub fn codec(value: &[u8]) {
    crate::store::redis::codec_holds(value);
}

/// A configuration's text.
pub fn config(text: &[u8]) {
    crate::config::diagnostic::properties::hold(text);
}

/// A Content-Type, a line feed, and a body.
pub fn fingerprint(input: &[u8]) {
    crate::rule::fingerprint::properties::hold(input);
}

/// Three lines: `Forwarded`, `X-Forwarded-For`, and a host.
pub fn forwarded(lines: &[u8]) {
    crate::server::forwarded::properties::hold(lines);
}

/// What a client sends on a connection that speaks HTTP/1.1.
pub fn guard(bytes: &[u8]) {
    crate::server::guard::properties::hold(bytes);
}

/// A name, a line feed, and what is read under that name.
pub fn key(input: &[u8]) {
    crate::rule::key::properties::hold(input);
}

/// What a connection from a proxy begins with.
pub fn proxy_protocol(bytes: &[u8]) {
    crate::server::proxy_protocol_holds(bytes);
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    /// `fuzz/`, which the repository has and a published package has not.
    fn fuzz() -> Option<PathBuf> {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        fuzz.join("Cargo.toml").exists().then_some(fuzz)
    }

    fn names(directory: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_target_has_a_property_and_seeds() {
        let Some(fuzz) = fuzz() else { return };
        let targets = TARGETS.map(|(name, _)| name.to_owned()).into();
        assert_eq!(names(&fuzz.join("fuzz_targets")), targets);
        assert_eq!(names(&fuzz.join("corpus")), targets);
    }

    #[test]
    fn every_seed_holds() {
        let Some(fuzz) = fuzz() else { return };
        for (name, hold) in TARGETS {
            let seeds = fs::read_dir(fuzz.join("corpus").join(name)).unwrap();
            let seeds: Vec<_> = seeds.map(|seed| fs::read(seed.unwrap().path()).unwrap()).collect();
            assert!(!seeds.is_empty(), "{name} has no seeds");
            seeds.iter().for_each(|seed| hold(seed));
        }
    }
}
