//! Keyed BLAKE3-256 over parts that cannot run into each other.

use super::identity::IdKey;

/// A keyed hash of a sequence of parts. Each part is written with its length before it, so moving bytes between adjacent
/// parts changes the digest; what stands for the absence of a part is unlike any part.
pub(super) struct Digest(blake3::Hasher);

impl Digest {
    /// Begins a digest; `domain` keeps apart what is hashed under one key for different ends.
    pub(super) fn new(key: &IdKey, domain: &'static str) -> Self {
        let mut digest = Self(blake3::Hasher::new_keyed(&key.0));
        digest.part(domain.as_bytes());
        digest
    }

    /// Says what comes next, or how it was read.
    pub(super) fn tag(&mut self, tag: u8) {
        self.0.update(&[tag]);
    }

    /// How many parts come next.
    pub(super) fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    /// A part.
    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    /// A part that may be missing; missing and empty differ.
    pub(super) fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.tag(0),
            Some(bytes) => {
                self.tag(1);
                self.part(bytes);
            }
        }
    }

    /// The digest.
    pub(super) fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}
