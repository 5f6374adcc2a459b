//! Authenticates the operator to a gateway: an Ed25519 signature (RFC 8032) in the header
//! `authorization`.
//!
//! `Slipway <Unix seconds>.<signature in URL-safe base64>`, over a fixed text, namespace and name
//! of the gateway's pod, and the time. It is therefore valid for one pod and a few minutes; the
//! gateway has only the public key, so a compromised gateway cannot send requests to another one.
//! An attacker who reads the traffic between the two can replay it to that pod while it is valid.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// Prefix of the signed message, so that a signature of the key for another purpose is not valid
/// for this one.
const CONTEXT: &[u8] = b"slipway state v1\0";
const SCHEME: &str = "Slipway ";
/// Maximum difference between the clocks of operator and gateway.
pub const SKEW_SECONDS: u64 = 300;
const PUBLIC_KEY_BYTES: usize = 32;

/// Why a key is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKey {
    /// Not an Ed25519 key in PKCS#8 format.
    Private,
    /// Not 32 bytes in base64.
    Public,
    /// No random numbers are available to generate a key.
    NoRandomness,
}

impl std::fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Private => "it is no Ed25519 key in the form of PKCS#8 (DER)",
            Self::Public => "an Ed25519 public key is 32 bytes in base64",
            Self::NoRandomness => "the system gives no random bytes",
        })
    }
}

impl std::error::Error for InvalidKey {}

/// The operator's private key.
pub struct OperatorKey(Ed25519KeyPair);

impl std::fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OperatorKey").field(&self.public_key()).finish()
    }
}

impl OperatorKey {
    /// Generates a new key in PKCS#8 format.
    ///
    /// # Errors
    /// When no random numbers are available.
    pub fn generate() -> Result<Vec<u8>, InvalidKey> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| InvalidKey::NoRandomness)?;
        Ok(made.as_ref().to_vec())
    }

    /// Parses a key in PKCS#8 format.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, InvalidKey> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map(Self).map_err(|_| InvalidKey::Private)
    }

    /// The public key in base64, as configured in gateways.
    pub fn public_key(&self) -> String {
        STANDARD.encode(self.0.public_key())
    }

    /// The header `authorization` for a request to a pod.
    pub fn authorization(&self, namespace: &str, pod: &str, seconds: u64) -> String {
        let signature = self.0.sign(&signed_message(namespace, pod, seconds));
        format!("{SCHEME}{seconds}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Why the operator was not authenticated; the text is for the user and contains the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAuthError {
    /// The header is missing.
    Missing,
    /// The header has another format.
    Malformed,
    /// The signature was made at another time.
    ClockSkew,
    /// The signature is of another key, or for another pod.
    Signature,
}

impl std::fmt::Display for OperatorAuthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "only the operator may ask, and it shows a signature by its key (--key-secret)",
            Self::Malformed => "the header authorization is not `Slipway <seconds>.<signature>`",
            Self::ClockSkew => "the clocks of operator and gateway differ by more than 300 s; set them",
            Self::Signature => {
                "signed with another operator's key, or for another pod; a restart of the Deployment slipway-gateway gives gateways the key of their operator"
            }
        })
    }
}

/// The public key of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorPublicKey([u8; PUBLIC_KEY_BYTES]);

impl std::str::FromStr for OperatorPublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| InvalidKey::Public)?;
        bytes.try_into().map(Self).map_err(|_| InvalidKey::Public)
    }
}

impl OperatorPublicKey {
    /// Checks by the header `authorization` that a request to this pod comes from the operator.
    ///
    /// # Errors
    /// Why it does not.
    pub fn verify(
        &self,
        authorization: Option<&str>,
        namespace: &str,
        pod: &str,
        now: u64,
    ) -> Result<(), OperatorAuthError> {
        let shown = authorization
            .ok_or(OperatorAuthError::Missing)?
            .strip_prefix(SCHEME)
            .ok_or(OperatorAuthError::Malformed)?;
        let (seconds, signature) = shown.split_once('.').ok_or(OperatorAuthError::Malformed)?;
        let seconds: u64 = seconds.parse().map_err(|_| OperatorAuthError::Malformed)?;
        let signature =
            URL_SAFE_NO_PAD.decode(signature).map_err(|_| OperatorAuthError::Malformed)?;
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        // The signature first: the time in an unauthenticated header says nothing about clocks.
        key.verify(&signed_message(namespace, pod, seconds), &signature)
            .map_err(|_| OperatorAuthError::Signature)?;
        if seconds.abs_diff(now) > SKEW_SECONDS {
            return Err(OperatorAuthError::ClockSkew);
        }
        Ok(())
    }
}

/// Kubernetes names contain no zero byte, so the messages of two pods are never equal.
fn signed_message(namespace: &str, pod: &str, seconds: u64) -> Vec<u8> {
    [CONTEXT, namespace.as_bytes(), &[0], pod.as_bytes(), &[0], &seconds.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key() -> OperatorKey {
        OperatorKey::from_pkcs8(&OperatorKey::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_signature_counts_for_one_key_one_pod_and_a_few_minutes() {
        let (ours, other) = (key(), key());
        let public: OperatorPublicKey = ours.public_key().parse().unwrap();
        let verify = |shown: &str, namespace: &str, pod: &str, now| {
            public.verify(Some(shown), namespace, pod, now)
        };
        let shown = ours.authorization("ns", "gw-1", NOW);
        assert_eq!(verify(&shown, "ns", "gw-1", NOW), Ok(()));
        for now in [NOW - SKEW_SECONDS, NOW + SKEW_SECONDS] {
            assert_eq!(verify(&shown, "ns", "gw-1", now), Ok(()));
        }
        for now in [NOW - SKEW_SECONDS - 1, NOW + SKEW_SECONDS + 1, 0, u64::MAX] {
            assert_eq!(verify(&shown, "ns", "gw-1", now), Err(OperatorAuthError::ClockSkew));
        }
        assert_eq!(
            verify(&shown, "ns", "gw-2", NOW),
            Err(OperatorAuthError::Signature),
            "another pod"
        );
        assert_eq!(
            verify(&shown, "other", "gw-1", NOW),
            Err(OperatorAuthError::Signature),
            "another namespace"
        );
        assert_eq!(verify(&shown, "nsg", "w-1", NOW), Err(OperatorAuthError::Signature));
        assert_eq!(
            verify(&other.authorization("ns", "gw-1", NOW), "ns", "gw-1", NOW),
            Err(OperatorAuthError::Signature)
        );
        let later = shown.replace(&NOW.to_string(), &(NOW + 100).to_string());
        assert_eq!(
            verify(&later, "ns", "gw-1", NOW),
            Err(OperatorAuthError::Signature),
            "the time is signed too"
        );
    }

    #[test]
    fn what_is_no_signature_is_refused_and_says_why() {
        let public: OperatorPublicKey = key().public_key().parse().unwrap();
        assert_eq!(public.verify(None, "ns", "gw", NOW), Err(OperatorAuthError::Missing));
        for shown in [
            "",
            "Bearer x",
            "Slipway ",
            "Slipway 1",
            "Slipway x.AAAA",
            "Slipway 1.%%",
            "Slipway -1.AAAA",
        ] {
            assert_eq!(
                public.verify(Some(shown), "ns", "gw", NOW),
                Err(OperatorAuthError::Malformed),
                "{shown}"
            );
        }
        assert_eq!(
            public.verify(Some("Slipway 1.AAAA"), "ns", "gw", NOW),
            Err(OperatorAuthError::Signature)
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(OperatorKey::from_pkcs8(b"no key").unwrap_err(), InvalidKey::Private);
        for text in ["", "AAAA", "%", &STANDARD.encode([0; 33])] {
            assert_eq!(text.parse::<OperatorPublicKey>(), Err(InvalidKey::Public), "{text}");
        }
        assert!(!format!("{:?}", key()).contains("seed"), "the private part is not shown");
    }
}
