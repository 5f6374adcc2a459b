//! Signatures of callbacks, by the scheme of Standard Webhooks (`v1`), for which many languages
//! have libraries.
//!
//! `webhook-signature: v1,<base64 of HMAC-SHA256(key, "<webhook-id>.<webhook-timestamp>.<body>")>`,
//! once for each key, separated by a space.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// Keys at once: the new one and the old one of a rotation.
const MAX_KEYS: usize = 4;
/// Bytes that a key must have at least.
const MIN_KEY: usize = 16;
const PREFIX: &str = "whsec_";

/// What callbacks are signed with.
#[derive(Clone)]
pub struct CallbackSigner {
    keys: Vec<hmac::Key>,
}

impl std::fmt::Debug for CallbackSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} keys)", self.keys.len())
    }
}

impl CallbackSigner {
    /// Reads keys, separated by spaces: `whsec_<base64>`, or any other text of at least 16 bytes,
    /// taken as it is.
    ///
    /// # Errors
    /// What is wrong; never the key itself.
    pub fn parse(secrets: &str) -> Result<Self, String> {
        let keys: Vec<_> = secrets.split_whitespace().map(parse_key).collect::<Result<_, _>>()?;
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(format!("want 1 to {MAX_KEYS} keys, separated by spaces"));
        }
        Ok(Self { keys })
    }

    /// The value of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let one = |key| format!("v1,{}", STANDARD.encode(compute_tag(key, id, timestamp, body)));
        self.keys.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// What a receiver does: whether any of the signatures is of any of the keys (in constant
    /// time), and the timestamp within `tolerance` seconds of `now`.
    pub fn verify(
        &self,
        id: &str,
        timestamp: u64,
        body: &[u8],
        signatures: &str,
        (now, tolerance): (u64, u64),
    ) -> bool {
        if now.abs_diff(timestamp) > tolerance {
            return false;
        }
        let content = signed_content(id, timestamp, body);
        let given =
            signatures.split(' ').filter_map(|s| STANDARD.decode(s.strip_prefix("v1,")?).ok());
        given
            .into_iter()
            .any(|tag| self.keys.iter().any(|key| hmac::verify(key, &content, &tag).is_ok()))
    }
}

fn parse_key(text: &str) -> Result<hmac::Key, String> {
    let bytes = match text.strip_prefix(PREFIX) {
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|_| format!("what follows {PREFIX} must be base64"))?
        }
        None => text.as_bytes().to_vec(),
    };
    if bytes.len() < MIN_KEY {
        return Err(format!(
            "a key must have at least {MIN_KEY} bytes; make one with `openssl rand -base64 32`"
        ));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signed_content(id: &str, timestamp: u64, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body].concat()
}

fn compute_tag(key: &hmac::Key, id: &str, timestamp: u64, body: &[u8]) -> hmac::Tag {
    hmac::sign(key, &signed_content(id, timestamp, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_signature_is_the_one_of_the_standards_example() {
        // The example of the Standard Webhooks specification.
        let signer = CallbackSigner::parse(KEY).unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn only_the_same_message_at_the_same_time_verifies() {
        let old =
            CallbackSigner::parse("an old key of 16 bytes".replace(' ', "-").as_str()).unwrap();
        let both = CallbackSigner::parse(&format!("{KEY} an-old-key-of-16-bytes")).unwrap();
        let signatures = both.sign("id", 1000, b"body");
        assert!(
            old.verify("id", 1000, b"body", &signatures, (1200, 300)),
            "a receiver that has only the old key"
        );
        assert!(both.verify("id", 1000, b"body", &signatures, (900, 300)));
        assert!(!old.verify("id", 1000, b"body", &signatures, (1301, 300)), "too old");
        assert!(!old.verify("id", 1001, b"body", &signatures, (1001, 300)));
        assert!(!old.verify("di", 1000, b"body", &signatures, (1000, 300)));
        assert!(!old.verify("id", 1000, b"bodY", &signatures, (1000, 300)));
        assert!(!old.verify("id", 1000, b"body", "v1,AAAA v2,x garbage", (1000, 300)));
    }

    #[test]
    fn weak_keys_are_refused_and_not_shown() {
        for (secret, part) in [
            ("", "1 to 4"),
            ("short", "16 bytes"),
            ("whsec_???", "base64"),
            ("whsec_YQ==", "16 bytes"),
        ] {
            let error = CallbackSigner::parse(secret).unwrap_err();
            assert!(
                error.contains(part) && (secret.is_empty() || !error.contains(secret)),
                "{error}"
            );
        }
        assert_eq!(format!("{:?}", CallbackSigner::parse(KEY).unwrap()), "Signer(1 keys)");
    }
}
