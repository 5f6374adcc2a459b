//! Authenticates values in Redis with a key that neither Redis nor its other clients have.
//!
//! Each value is stored under a keyed name as 32 bytes of HMAC-SHA-256 over that name and the
//! value, followed by the value. The key is derived from the master key of the namespace for one
//! ModelDeployment, so entries of one namespace are neither valid nor found in another, and an
//! entry that was moved to another name is a miss. The seal does not prevent replay: someone with
//! write access to Redis can restore an earlier value of the same name until it expires. Each entry
//! carries its expiry time for that reason.

use ring::hmac::{Context, HMAC_SHA256, Key, sign, verify};

/// Length of the tag that precedes the value, in bytes.
pub const TAG_LEN: usize = 32;
/// One key produces both names and tags; a first byte separates the two domains.
const NAME_DOMAIN: &[u8] = &[1];
const VALUE_DOMAIN: &[u8] = &[2];

/// Seals and opens entries of one ModelDeployment.
#[derive(Debug, Clone)]
pub struct EntrySealer(Key);

impl EntrySealer {
    /// Creates a sealer with the key derived for the ModelDeployment.
    pub fn new(key: &[u8]) -> Self {
        Self(Key::new(HMAC_SHA256, key))
    }

    /// The name in Redis for the entry `name`. The part up to the last colon is kept, because
    /// access rights in Redis are granted by prefix. The rest is keyed: it does not reveal the
    /// input without the key, and no two namespaces write to the same name.
    pub fn sealed_name(&self, name: &[u8]) -> Vec<u8> {
        let prefix = name.iter().rposition(|byte| *byte == b':').map_or(0, |at| at + 1);
        let tag = self.tag(&[NAME_DOMAIN, name]);
        [&name[..prefix], hex::encode(tag).as_bytes()].concat()
    }

    /// The value as it is stored under `name`, a result of [`Self::sealed_name`].
    pub fn seal(&self, name: &[u8], value: &[u8]) -> Vec<u8> {
        [&self.value_tag(name, value)[..], value].concat()
    }

    /// The value stored under `name`; `None` when it was not sealed for this name with this key.
    pub fn open(&self, name: &[u8], mut stored: Vec<u8>) -> Option<Vec<u8>> {
        let (tag, value) = stored.split_at_checked(TAG_LEN)?;
        if !constant_time_eq(tag, &self.value_tag(name, value)) {
            return None;
        }
        stored.drain(..TAG_LEN);
        Some(stored)
    }

    fn value_tag(&self, name: &[u8], value: &[u8]) -> [u8; TAG_LEN] {
        self.tag(&[VALUE_DOMAIN, &(name.len() as u64).to_le_bytes(), name, value])
    }

    fn tag(&self, parts: &[&[u8]]) -> [u8; TAG_LEN] {
        let mut context = Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// Compares in constant time, so that the duration does not reveal where the values differ.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let key = Key::new(HMAC_SHA256, b"equal");
    verify(&key, a, sign(&key, b).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"slipway:result:1:00ff";

    #[test]
    fn what_was_not_sealed_for_this_name_with_this_key_is_a_miss() {
        let (seal, other) = (EntrySealer::new(&[7; 32]), EntrySealer::new(&[8; 32]));
        let name = seal.sealed_name(NAME);
        let stored = seal.seal(&name, b"answer");
        assert_eq!(seal.open(&name, stored.clone()).as_deref(), Some(&b"answer"[..]));
        assert_eq!(
            seal.open(&seal.sealed_name(b"slipway:result:1:00fe"), stored.clone()),
            None,
            "moved to another name"
        );
        assert_eq!(other.open(&name, stored.clone()), None, "another namespace or ModelDeployment");
        assert_eq!(seal.open(&name, other.seal(&name, b"answer")), None, "forged with another key");
        assert_eq!(seal.open(&name, b"answer".to_vec()), None, "shorter than a tag");
        assert_eq!(seal.open(&name, [&[0; TAG_LEN][..], b"answer"].concat()), None, "no tag");
        for at in 0..stored.len() {
            let mut changed = stored.clone();
            changed[at] ^= 1;
            assert_eq!(seal.open(&name, changed), None, "byte {at}");
        }
    }

    #[test]
    fn names_are_keyed_and_keep_their_prefix() {
        let (seal, other) = (EntrySealer::new(&[7; 32]), EntrySealer::new(&[8; 32]));
        assert!(seal.sealed_name(NAME).starts_with(b"slipway:result:1:"));
        assert_eq!(seal.sealed_name(NAME), seal.sealed_name(NAME));
        assert_ne!(seal.sealed_name(NAME), other.sealed_name(NAME));
        assert_ne!(seal.sealed_name(NAME), NAME);
    }
}
