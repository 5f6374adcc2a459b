//! Derives keys for one purpose from the master key of a namespace.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use ring::hmac::{HMAC_SHA256, Key, sign};

/// The purpose of the key that proves to a model server that a gateway has verified the token of
/// the namespace.
pub const ACCESS_PURPOSE: &str = "access v1";

/// Derives the key for a purpose, for example `prediction ids v1`, and one object, for example a
/// ModelDeployment by its UID: HMAC-SHA-256 of both under the master key, which is one step of HKDF
/// (RFC 5869) for a random master key.
pub fn derive_key(master: &[u8], purpose: &str, object: &str) -> [u8; 32] {
    // Neither part contains a zero byte, so two pairs never have the same text.
    let text = [purpose.as_bytes(), &[0], object.as_bytes()].concat();
    let tag = sign(&Key::new(HMAC_SHA256, master), &text);
    let mut key = [0; 32];
    key.copy_from_slice(tag.as_ref());
    key
}

/// The master key of a namespace, from which other keys are derived.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(Arc<[u8]>);

impl MasterKey {
    /// Creates a key from these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// The key for a purpose and a ModelDeployment: [`derive_key`].
    pub fn derive(&self, purpose: &str, uid: &str) -> [u8; 32] {
        derive_key(&self.0, purpose, uid)
    }
}

impl Debug for MasterKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_and_object_has_a_key_of_its_own() {
        let of = |master: u8, purpose, object| derive_key(&[master; 32], purpose, object);
        let all = [of(1, "a", "b"), of(1, "a", "c"), of(1, "ab", ""), of(2, "a", "b")];
        for (i, key) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != key));
        }
        assert_eq!(of(1, "a", "b"), all[0]);
    }
}
