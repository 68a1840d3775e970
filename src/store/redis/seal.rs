//! Records sealed with a key that Redis does not know (`encrypt = true`).
//!
//! XChaCha20-Poly1305 with a nonce drawn at random for each write: 24 bytes are enough to draw without ever counting. What
//! stands before the payload and the record's id are authenticated with it, so a payload opens only where it was sealed.

use bytes::Bytes;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::AeadInOut as _};
use zeroize::Zeroizing;

use crate::{config::secrets::Secrets, rule::RecordId};

const NONCE: usize = 24;
const TAG: usize = 16;
/// The version, at the value's beginning.
const VERSION: usize = 16;
/// The version and the number of replays.
const BEGIN: usize = 20;

/// Keys derived from secrets.
pub(super) struct Seals {
    /// The first seals.
    keys: Vec<XChaCha20Poly1305>,
}

impl Seals {
    /// Bytes that sealing adds.
    pub(super) const MORE: usize = NONCE + TAG;

    pub(super) fn new(secrets: &Secrets) -> Self {
        let key = |secret: &[u8]| {
            let key = Zeroizing::new(blake3::derive_key("oncegate 2026-11-23 store seal v1", secret));
            XChaCha20Poly1305::new((&*key).into())
        };
        Self { keys: secrets.opening().map(key).collect() }
    }

    /// Seals everything from `payload` on.
    pub(super) fn seal(&self, id: &RecordId, value: &mut Vec<u8>, payload: usize) {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).expect("the system's random source answers");
        let (before, clear) = value.split_at(payload);
        let associated = associated(id, before);
        let mut sealed = clear.to_vec();
        let key = self.keys.first().expect("a secrets file without a secret is refused");
        key.encrypt_in_place(&XNonce::from(nonce), &associated, &mut sealed)
            .expect("a record is far shorter than what the cipher can seal");
        value.truncate(payload);
        value.extend_from_slice(&nonce);
        value.extend_from_slice(&sealed);
    }

    /// Opens everything from `payload` on; `None` when no key does.
    pub(super) fn open(&self, id: &RecordId, value: &[u8], payload: usize) -> Option<Bytes> {
        let (before, sealed) = value.split_at_checked(payload)?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
        let nonce = XNonce::from(<[u8; NONCE]>::try_from(nonce).ok()?);
        let associated = associated(id, before);
        self.keys.iter().find_map(|key| {
            let mut clear = sealed.to_vec();
            key.decrypt_in_place(&nonce, &associated, &mut clear).ok()?;
            Some(clear.into())
        })
    }
}

/// The record's id, and what stands before the payload less the replays, which are counted in place.
fn associated(id: &RecordId, before: &[u8]) -> Vec<u8> {
    [&id.0, &before[..VERSION], &before[BEGIN..]].concat()
}

impl std::fmt::Debug for Seals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seals").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}
