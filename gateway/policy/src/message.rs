//! The parts of a `ModelInferRequest` that the gateway needs: the position of its `id`, and its
//! entity; and the model name of this and other messages.
//!
//! Only the beginning is parsed (<https://protobuf.dev/programming-guides/encoding/>); parsing
//! stops at malformed content, which the pod has to reject.

use std::ops::Range;

/// Flag and length before a gRPC message.
pub const FRAME_HEADER_BYTES: usize = 5;
/// Fields of `ModelInferRequest`, and of an entry of its map `parameters`. Other messages with a
/// model name have it in the field of the same number.
const MODEL: u64 = 1;
const ID: u64 = 3;
const PARAMETERS: u64 = 4;
const KEY: u64 = 1;
const VALUE: u64 = 2;
/// Field of `InferParameter`.
const STRING: u64 = 3;

/// The model name in the beginning of a call's body.
#[derive(Debug, PartialEq, Eq)]
pub enum ModelName<'a> {
    /// The name; empty when the first message has none.
    Found(&'a [u8]),
    /// More of the body is needed.
    Incomplete,
    /// The message is compressed and cannot be parsed.
    Compressed,
}

/// The model name in the first message of a body that starts with `begin`.
pub fn find_model_name(begin: &[u8]) -> ModelName<'_> {
    let Some((frame, rest)) = begin.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return ModelName::Incomplete;
    };
    let [flags, length @ ..] = *frame;
    if flags != 0 {
        return ModelName::Compressed;
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let message = rest.get(..length).unwrap_or(rest);
    match length_delimited_fields(message).find(|(number, ..)| *number == MODEL) {
        Some((_, _, name)) => ModelName::Found(name),
        None if rest.len() >= length => ModelName::Found(&[]),
        None => ModelName::Incomplete,
    }
}

/// An uncompressed message with its flag and length.
pub fn frame_message(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// The parts of a message that the gateway needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InferRequestFields<'a> {
    /// Position of the field `id`, including its tag; empty when there is none.
    pub id: Range<usize>,
    /// `model_name`.
    pub model: &'a [u8],
    /// The parameter `entity`, when it is a string.
    pub entity: Option<&'a [u8]>,
}

/// Parses the first piece of a body; `None` when it is compressed or not a gRPC message.
pub fn parse_infer_request(piece: &[u8]) -> Option<InferRequestFields<'_>> {
    let (frame, message) = piece.split_at_checked(FRAME_HEADER_BYTES)?;
    if frame.first() != Some(&0) {
        return None;
    }
    let mut found = InferRequestFields::default();
    for (number, whole, value) in length_delimited_fields(message) {
        match number {
            MODEL => found.model = value,
            ID => found.id = whole.start + FRAME_HEADER_BYTES..whole.end + FRAME_HEADER_BYTES,
            PARAMETERS => found.entity = entity_parameter(value).or(found.entity),
            _ => {}
        }
    }
    Some(found)
}

fn entity_parameter(entry: &[u8]) -> Option<&[u8]> {
    let last = |bytes, wanted| {
        length_delimited_fields(bytes)
            .filter(|(number, ..)| *number == wanted)
            .last()
            .map(|(_, _, value)| value)
    };
    (last(entry, KEY)? == b"entity").then(|| last(last(entry, VALUE)?, STRING)).flatten()
}

/// Number, position and content of the length-delimited fields, up to the first field of another
/// type or beyond the end.
fn length_delimited_fields(bytes: &[u8]) -> impl Iterator<Item = (u64, Range<usize>, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let tag = read_varint(bytes, &mut at)?;
        // Wire type 2.
        (tag & 7 == 2).then_some(())?;
        let length = usize::try_from(read_varint(bytes, &mut at)?).ok()?;
        let value = bytes.get(at..at.checked_add(length)?)?;
        at += length;
        Some((tag >> 3, start..at, value))
    })
}

fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap()][..], value].concat()
    }

    fn parameter(name: &str, value: &str) -> Vec<u8> {
        field(4, &[field(1, name.as_bytes()), field(2, &field(3, value.as_bytes()))].concat())
    }

    #[test]
    fn id_and_entity_are_found() {
        let parts = [
            field(1, b"m"),
            field(3, b"id-7"),
            parameter("priority", "x"),
            parameter("entity", "user-1"),
            field(5, b"..."),
        ];
        let body = frame_message(&parts.concat());
        let found = parse_infer_request(&body).unwrap();
        assert_eq!((found.model, found.entity), (&b"m"[..], Some(&b"user-1"[..])));
        assert_eq!(&body[found.id], field(3, b"id-7"));
    }

    #[test]
    fn what_does_not_end_in_the_first_piece_ends_the_walk() {
        let body = frame_message(&[field(3, b"id"), field(5, &[7; 100])].concat());
        assert_eq!(parse_infer_request(&body[..40]).unwrap().id, 5..9);
        assert_eq!(parse_infer_request(&[1, 0, 0, 0, 0]), None, "compressed");
        assert_eq!(parse_infer_request(b"abc"), None);
        // A number, and a length beyond any memory size.
        assert_eq!(
            parse_infer_request(&frame_message(&[8, 1, 26, 1, 1])),
            Some(InferRequestFields::default())
        );
        assert_eq!(
            parse_infer_request(&frame_message(&[
                26, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1
            ])),
            Some(InferRequestFields::default())
        );
    }

    #[test]
    fn a_model_is_named_as_soon_as_its_field_is_there() {
        let body =
            frame_message(&[field(1, b"digits"), field(2, b"v1"), field(5, &[7; 100])].concat());
        let needed = FRAME_HEADER_BYTES + 2 + "digits".len();
        assert!(
            (0..needed).all(|length| find_model_name(&body[..length]) == ModelName::Incomplete)
        );
        assert!(
            (needed..=body.len())
                .all(|length| find_model_name(&body[..length]) == ModelName::Found(b"digits"))
        );
        // Data after the first message is not part of it.
        let empty = [frame_message(&[]), frame_message(&field(1, b"later"))].concat();
        assert_eq!(find_model_name(&empty), ModelName::Found(b""));
        assert_eq!(find_model_name(&empty[..4]), ModelName::Incomplete);
        assert_eq!(
            find_model_name(&frame_message(&field(3, b"id"))),
            ModelName::Found(b""),
            "a whole message without a name"
        );
        assert_eq!(find_model_name(&[1, 0, 0, 0, 9, 10]), ModelName::Compressed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = 0;
            }
            let end = parse_infer_request(&bytes).map_or(0, |found| found.id.end);
            prop_assert!(end <= bytes.len());
            find_model_name(&bytes);
        }
    }
}
