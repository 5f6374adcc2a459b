//! The prediction id: a token that holds all that is needed to count feedback later, in any pod of any revision.
//!
//! `v1.` and, in URL-safe base64: the revision (length, text), Unix seconds (4 bytes), random (8 bytes), then one label for each row.
//! It is not signed: whoever may send feedback may also invent it, so the bounds are on what feedback can do (see `feedback`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::prediction::Label;

const PREFIX: &str = "v1.";
/// Rows beyond this get no feedback; a token must fit into a header.
pub const MAX_ROWS: usize = 64;
const MAX_BYTES: usize = 768;
const MAX_TEXT: usize = 64;
/// Longest revision that we write or accept.
pub const MAX_REVISION: usize = 16;

/// The content of a prediction id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Who predicted.
    pub revision: String,
    /// When, in Unix seconds.
    pub seconds: u32,
    /// Makes it unique.
    pub nonce: u64,
    /// The predicted labels of the first rows.
    pub labels: Vec<Option<Label>>,
}

/// Whether a text may be a revision: it becomes a label value, so only what the operator makes is taken.
pub fn valid_revision(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_REVISION && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Why a text is no prediction id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a prediction id of this version")]
pub struct Malformed;

impl Token {
    /// The text form. Rows that do not fit are left out.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(64);
        let revision = &self.revision.as_bytes()[..self.revision.len().min(MAX_REVISION)];
        bytes.push(u8::try_from(revision.len()).unwrap_or(0));
        bytes.extend_from_slice(revision);
        bytes.extend_from_slice(&self.seconds.to_be_bytes());
        bytes.extend_from_slice(&self.nonce.to_be_bytes());
        for label in self.labels.iter().take(MAX_ROWS) {
            let before = bytes.len();
            push(label.as_ref(), &mut bytes);
            if bytes.len() > MAX_BYTES {
                bytes.truncate(before);
                break;
            }
        }
        let mut text = String::from(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        text
    }

    /// Reads the text form.
    pub fn decode(text: &str) -> Result<Self, Malformed> {
        let text = text.strip_prefix(PREFIX).filter(|t| t.len() <= MAX_BYTES * 2).ok_or(Malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed)?;
        // Nothing but what we write: what is longer is nobody's answer.
        if bytes.len() > MAX_BYTES {
            return Err(Malformed);
        }
        Self::from_bytes(&bytes).ok_or(Malformed)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first()?;
        let (revision, rest) = rest.split_at_checked(usize::from(*length))?;
        let revision = std::str::from_utf8(revision).ok().filter(|r| valid_revision(r))?.to_owned();
        let (seconds, rest) = rest.split_first_chunk::<4>()?;
        let (nonce, mut rest) = rest.split_first_chunk::<8>()?;
        let mut labels = Vec::new();
        while !rest.is_empty() {
            labels.push(pull(&mut rest)?);
        }
        let fits = labels.len() <= MAX_ROWS;
        fits.then(|| Self {
            revision,
            seconds: u32::from_be_bytes(*seconds),
            nonce: u64::from_be_bytes(*nonce),
            labels,
        })
    }
}

/// First byte of a row: 0 no label, 1 a varint, `0x80 | length` a text.
fn push(label: Option<&Label>, out: &mut Vec<u8>) {
    match label {
        Some(Label::Number(n)) => {
            out.push(1);
            // Zigzag: small numbers of both signs become short.
            let mut z = (n.cast_unsigned() << 1) ^ (n >> 63).cast_unsigned();
            while z >= 0x80 {
                out.push((z & 0x7f) as u8 | 0x80);
                z >>= 7;
            }
            out.push(z as u8);
        }
        Some(Label::Text(s)) if s.len() <= MAX_TEXT => {
            out.push(0x80 | s.len() as u8);
            out.extend_from_slice(s.as_bytes());
        }
        _ => out.push(0),
    }
}

#[allow(clippy::option_option, reason = "outer: well-formed; inner: the row has a label")]
fn pull(rest: &mut &[u8]) -> Option<Option<Label>> {
    let (tag, mut tail) = rest.split_first()?;
    let label = match tag {
        0 => None,
        1 => {
            let mut z = 0_u64;
            let mut shift = 0;
            loop {
                let (byte, next) = tail.split_first()?;
                tail = next;
                z |= u64::from(byte & 0x7f).checked_shl(shift)?;
                if byte & 0x80 == 0 {
                    break;
                }
                shift += 7;
            }
            Some(Label::Number((z >> 1).cast_signed() ^ -(z & 1).cast_signed()))
        }
        tag if tag & 0x80 != 0 => {
            let length = Some(usize::from(tag & 0x7f)).filter(|length| *length <= MAX_TEXT)?;
            let (text, next) = tail.split_at_checked(length)?;
            tail = next;
            Some(Label::Text(std::str::from_utf8(text).ok()?.to_owned()))
        }
        _ => return None,
    };
    *rest = tail;
    Some(label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label() -> impl Strategy<Value = Option<Label>> {
        prop_oneof![
            Just(None),
            any::<i64>().prop_map(|n| Some(Label::Number(n))),
            "[a-zé]{0,20}".prop_map(|s| Some(Label::Text(s))),
        ]
    }

    /// Found by fuzzing: texts of 65 to 127 bytes have a form, and we write none.
    #[test]
    fn what_we_would_not_write_is_malformed() {
        let of = |length: u8| {
            let mut bytes = vec![1, b'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80 | length];
            bytes.resize(bytes.len() + usize::from(length), b'x');
            Token::decode(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
        };
        assert!(of(64).is_ok());
        assert_eq!(of(65), Err(Malformed));
    }

    proptest! {
        #[test]
        fn round_trip(
            revision in "[a-z0-9]{1,16}", seconds in any::<u32>(), nonce in any::<u64>(),
            labels in proptest::collection::vec(label(), 0..100)
        ) {
            let token = Token { revision, seconds, nonce, labels };
            let text = token.encode();
            prop_assert!(text.len() <= 3 + MAX_BYTES * 4 / 3 + 4);
            let back = Token::decode(&text).unwrap();
            prop_assert!(back.labels.len() <= MAX_ROWS && token.labels.starts_with(&back.labels));
            prop_assert_eq!((back.revision, back.seconds, back.nonce), (token.revision, token.seconds, token.nonce));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(v1\\.)?[A-Za-z0-9_-]{0,200}") {
            if let Ok(token) = Token::decode(&text) {
                prop_assert!(valid_revision(&token.revision));
            }
        }
    }

    #[test]
    fn a_small_token_is_small() {
        let token = Token { revision: "0123456789".into(), seconds: 1, nonce: 2, labels: vec![Some(Label::Number(3))] };
        assert_eq!(token.encode().len(), 37);
        assert_eq!(Token::decode("v2.AAAA"), Err(Malformed));
        assert_eq!(Token::decode(""), Err(Malformed));
    }

    #[test]
    fn a_long_text_has_no_label() {
        let long =
            Token { revision: "a".into(), seconds: 1, nonce: 2, labels: vec![Some(Label::Text("x".repeat(65)))] };
        assert_eq!(Token::decode(&long.encode()).unwrap().labels, [None]);
    }
}
