//! Predicted labels, and their encoding.

/// Maximum number of rows that accept labels as feedback, because an id must fit into a header.
pub const MAX_ROWS: usize = 64;
/// Longest text label in an id, in bytes.
const MAX_TEXT: usize = 64;
/// Maximum size of the labels in one id, in bytes.
pub(crate) const MAX_BYTES: usize = 720;

/// A predicted label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PredictedLabel {
    /// The number of a class.
    Number(i64),
    /// The name of a class.
    Text(String),
}

impl std::fmt::Display for PredictedLabel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Text(s) => s.fmt(f),
        }
    }
}

/// Encodes the labels of the first rows; rows that do not fit are omitted.
pub(crate) fn encode_labels(labels: &[Option<PredictedLabel>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(labels.len().min(MAX_ROWS) * 2);
    for label in labels.iter().take(MAX_ROWS) {
        let before = bytes.len();
        encode_label(label.as_ref(), &mut bytes);
        if bytes.len() > MAX_BYTES {
            bytes.truncate(before);
            break;
        }
    }
    bytes
}

/// Decodes the output of [`encode_labels`], and nothing else.
pub(crate) fn decode_labels(mut bytes: &[u8]) -> Option<Vec<Option<PredictedLabel>>> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let mut labels = Vec::new();
    while !bytes.is_empty() {
        labels.push(decode_label(&mut bytes)?);
    }
    (labels.len() <= MAX_ROWS).then_some(labels)
}

/// First byte of a row: 0 no label, 1 a varint, `0x80 | length` a text.
fn encode_label(label: Option<&PredictedLabel>, out: &mut Vec<u8>) {
    match label {
        Some(PredictedLabel::Number(n)) => {
            out.push(1);
            // Zigzag encoding: small numbers of both signs become short.
            let mut z = (n.cast_unsigned() << 1) ^ (n >> 63).cast_unsigned();
            while z >= 0x80 {
                out.push((z & 0x7f) as u8 | 0x80);
                z >>= 7;
            }
            out.push(z as u8);
        }
        Some(PredictedLabel::Text(s)) if s.len() <= MAX_TEXT => {
            out.push(0x80 | s.len() as u8);
            out.extend_from_slice(s.as_bytes());
        }
        _ => out.push(0),
    }
}

#[allow(clippy::option_option, reason = "outer: well-formed; inner: the row has a label")]
fn decode_label(rest: &mut &[u8]) -> Option<Option<PredictedLabel>> {
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
            Some(PredictedLabel::Number((z >> 1).cast_signed() ^ -(z & 1).cast_signed()))
        }
        tag if tag & 0x80 != 0 => {
            let length = Some(usize::from(tag & 0x7f)).filter(|length| *length <= MAX_TEXT)?;
            let (text, next) = tail.split_at_checked(length)?;
            tail = next;
            Some(PredictedLabel::Text(std::str::from_utf8(text).ok()?.to_owned()))
        }
        _ => return None,
    };
    *rest = tail;
    Some(label)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn label() -> impl Strategy<Value = Option<PredictedLabel>> {
        prop_oneof![
            Just(None),
            any::<i64>().prop_map(|n| Some(PredictedLabel::Number(n))),
            "[a-zé]{0,20}".prop_map(|s| Some(PredictedLabel::Text(s))),
        ]
    }

    /// Found by fuzzing: texts of 65 to 127 bytes have an encoding, but the encoder never writes
    /// them.
    #[test]
    fn what_we_would_not_write_is_not_read() {
        let of = |length: u8| {
            let mut bytes = vec![0x80 | length];
            bytes.resize(1 + usize::from(length), b'x');
            decode_labels(&bytes)
        };
        assert!(of(64).is_some());
        assert_eq!(of(65), None);
        assert_eq!(encode_labels(&[Some(PredictedLabel::Text("x".repeat(65)))]), [0]);
    }

    proptest! {
        #[test]
        fn the_first_labels_come_back(labels in proptest::collection::vec(label(), 0..100)) {
            let bytes = encode_labels(&labels);
            let back = decode_labels(&bytes).unwrap();
            prop_assert!(bytes.len() <= MAX_BYTES && back.len() <= MAX_ROWS && labels.starts_with(&back));
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_labels(&bytes);
        }
    }
}
