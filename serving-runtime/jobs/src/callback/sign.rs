//! Signatures of callbacks by the scheme of Standard Webhooks (`v1`), for which many languages have
//! libraries.
//!
//! `webhook-signature: v1,<base64 of HMAC-SHA256(key, "<webhook-id>.<webhook-timestamp>.<body>")>`,
//! once for each key, separated by a space.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use standardwebhooks::{Webhook, WebhookError};

/// Largest number of keys at once; a rotation needs the new and the old one.
const MAX_KEYS: usize = 4;
/// Smallest length of a key in bytes.
const MIN_KEY: usize = 16;
const PREFIX: &str = "whsec_";

/// What callbacks are signed with.
pub struct CallbackSigner {
    keys: Vec<Webhook>,
}

impl std::fmt::Debug for CallbackSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} keys)", self.keys.len())
    }
}

impl CallbackSigner {
    /// Parses keys, separated by spaces: `whsec_<base64>`, or any other text of at least 16 bytes,
    /// used as it is.
    ///
    /// # Errors
    /// What is wrong, without the key itself.
    pub fn parse(secrets: &str) -> Result<Self, String> {
        let keys: Vec<_> = secrets.split_whitespace().map(parse_key).collect::<Result<_, _>>()?;
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(format!("want 1 to {MAX_KEYS} keys, separated by spaces"));
        }
        Ok(Self { keys })
    }

    /// The value of `webhook-signature`; `timestamp` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// When the body is not UTF-8, which JSON always is.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> Result<String, WebhookError> {
        let signatures: Vec<_> =
            self.keys.iter().map(|key| key.sign(id, timestamp, body)).collect::<Result<_, _>>()?;
        Ok(signatures.join(" "))
    }
}

fn parse_key(text: &str) -> Result<Webhook, String> {
    // Decoded here: `Webhook::new` takes keys of any length, and texts without the prefix as
    // base64.
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
    Webhook::from_bytes(bytes).map_err(|_| "the key cannot be used".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use http::HeaderMap;

    use super::*;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_signature_is_the_one_of_the_standards_example() {
        // The example of the Standard Webhooks specification.
        let signer = CallbackSigner::parse(KEY).unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_rotation_signs_with_each_key() {
        let sign =
            |keys: &str| CallbackSigner::parse(keys).unwrap().sign("id", 1000, b"body").unwrap();
        let both = sign(&format!("{KEY} an-old-key-of-16-bytes"));
        assert_eq!(both, format!("{} {}", sign(KEY), sign("an-old-key-of-16-bytes")));
        assert_eq!(both.matches("v1,").count(), 2);
    }

    #[test]
    fn a_receiver_that_has_only_the_old_key_verifies() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let now = i64::try_from(now).unwrap();
        let signer = CallbackSigner::parse(&format!("{KEY} an-old-key-of-16-bytes")).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "id".parse().unwrap());
        headers.insert("webhook-timestamp", now.into());
        let signature = signer.sign("id", now, b"body").unwrap();
        headers.insert("webhook-signature", signature.parse().unwrap());
        for (key, known) in [("an-old-key-of-16-bytes", true), ("another-key-of-16-bytes", false)] {
            let receiver = Webhook::from_bytes(key.into()).unwrap();
            assert_eq!(receiver.verify(b"body", &headers).is_ok(), known, "{key}");
            assert!(receiver.verify(b"bodY", &headers).is_err(), "{key}");
        }
        let receiver = Webhook::from_bytes("an-old-key-of-16-bytes".into()).unwrap();
        let forgeries = [
            ("webhook-id", "di".to_owned()),
            ("webhook-timestamp", (now + 1).to_string()),
            ("webhook-signature", "v1,AAAA v2,x garbage".to_owned()),
        ];
        for (name, value) in forgeries {
            let mut headers = headers.clone();
            headers.insert(name, value.parse().unwrap());
            assert!(receiver.verify(b"body", &headers).is_err(), "{name}");
        }
        // Signed longer ago than a receiver tolerates.
        headers.insert("webhook-timestamp", (now - 301).into());
        headers.insert(
            "webhook-signature",
            signer.sign("id", now - 301, b"body").unwrap().parse().unwrap(),
        );
        assert!(receiver.verify(b"body", &headers).is_err(), "too old");
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
