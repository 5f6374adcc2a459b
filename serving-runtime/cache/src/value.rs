//! The format of a stored answer. It contains its key and its expiry time, and a checksum that
//! detects any change.
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | `SLWR` |
//! | 1 | version of this layout |
//! | 32 | the key, which covers the model's digest |
//! | 8 | the expiry time, in milliseconds since 1970 |
//! | 16 | sha256 over all else, the first half |
//! | rest | number of tensors; for each: datatype, shape, length, little-endian values |
//!
//! A value with any deviation from this format is a miss, never an error: Redis is shared memory
//! that others may write to.

use sha2::{Digest, Sha256};
use slipway_runtime_engine::tensor::{DataType, Tensor};
use slipway_runtime_protocol::{decode_binary, encode_binary};

use crate::key::CacheKey;

const MAGIC: &[u8; 4] = b"SLWR";
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 16;
/// Number of bytes before the tensors.
pub const HEADER_LEN: usize = 4 + 1 + 32 + 8 + CHECKSUM_LEN;
/// Largest number of dimensions; no model has outputs of more.
const MAX_RANK: usize = 32;

/// Encodes an answer that is valid until `expires` (milliseconds since 1970).
pub fn encode_value(key: &CacheKey, expires: u64, outputs: &[Tensor]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&(outputs.len() as u32).to_le_bytes());
    for output in outputs {
        let name = output.data.datatype().name();
        body.push(name.len() as u8);
        body.extend_from_slice(name.as_bytes());
        body.push(output.shape.len() as u8);
        output
            .shape
            .iter()
            .for_each(|dimension| body.extend_from_slice(&(*dimension as u64).to_le_bytes()));
        let at = body.len();
        body.extend_from_slice(&[0; 8]);
        encode_binary(&output.data, &mut body);
        let length = (body.len() - at - 8) as u64;
        body[at..at + 8].copy_from_slice(&length.to_le_bytes());
    }
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&key.0);
    bytes.extend_from_slice(&expires.to_le_bytes());
    let sum = compute_checksum(&bytes, &body);
    bytes.extend_from_slice(&sum);
    bytes.append(&mut body);
    bytes
}

/// Decodes the answer for `key` and its expiry time. `None` for any other content.
pub fn decode_value(key: &CacheKey, bytes: &[u8]) -> Option<(u64, Vec<Tensor>)> {
    let (header, body) = bytes.split_at_checked(HEADER_LEN)?;
    let (head, sum) = header.split_at_checked(HEADER_LEN - CHECKSUM_LEN)?;
    let rest = head.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?.strip_prefix(&key.0)?;
    let expires = u64::from_le_bytes(rest.try_into().ok()?);
    if sum != compute_checksum(head, body) {
        return None;
    }
    let mut reader = ValueReader(body);
    let count = reader.u32()?;
    let outputs = (0..count).map(|_| reader.tensor()).collect::<Option<Vec<_>>>()?;
    reader.0.is_empty().then_some((expires, outputs))
}

fn compute_checksum(head: &[u8], body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::new().chain_update(head).chain_update(body).finalize();
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&digest[..CHECKSUM_LEN]);
    sum
}

struct ValueReader<'a>(&'a [u8]);

impl<'a> ValueReader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<usize> {
        self.take(1).map(|b| usize::from(b[0]))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(u64::from_le_bytes(self.take(8)?.try_into().ok()?)).ok()
    }

    fn tensor(&mut self) -> Option<Tensor> {
        let length = self.u8()?;
        let datatype = DataType::parse(std::str::from_utf8(self.take(length)?).ok()?)?;
        let rank = self.u8().filter(|rank| *rank <= MAX_RANK)?;
        let shape = (0..rank).map(|_| self.size()).collect::<Option<Vec<_>>>()?;
        let count = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))?;
        let length = self.size()?;
        let data = decode_binary(self.take(length)?, datatype, count).ok()?;
        Some(Tensor { shape, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slipway_runtime_engine::tensor::TensorData;

    use super::*;

    fn answer() -> Vec<Tensor> {
        vec![
            Tensor { shape: vec![2, 2], data: TensorData::F32(vec![0.5, -0.0, f32::NAN, 1e-40]) },
            Tensor { shape: vec![2], data: TensorData::Bytes(vec!["é".into(), String::new()]) },
            Tensor { shape: vec![], data: TensorData::I64(vec![-7]) },
        ]
    }

    #[test]
    fn comes_back_bit_by_bit() {
        let bytes = encode_value(&CacheKey([7; 32]), 12, &answer());
        let (expires, outputs) = decode_value(&CacheKey([7; 32]), &bytes).unwrap();
        assert_eq!(expires, 12);
        assert_eq!(encode_value(&CacheKey([7; 32]), 12, &outputs), bytes);
        assert_eq!(decode_value(&CacheKey([8; 32]), &bytes), None, "another key's answer");
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_a_miss(at in any::<prop::sample::Index>(), by in 1..=255_u8) {
            let mut bytes = encode_value(&CacheKey([7; 32]), 12, &answer());
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            prop_assert_eq!(decode_value(&CacheKey([7; 32]), &bytes), None);
        }

        #[test]
        fn any_length_but_the_right_one_is_a_miss(cut in any::<prop::sample::Index>(), more in 1..9_usize) {
            let mut bytes = encode_value(&CacheKey([7; 32]), 12, &answer());
            prop_assert_eq!(decode_value(&CacheKey([7; 32]), &bytes[..cut.index(bytes.len())]), None);
            bytes.extend(std::iter::repeat_n(0, more));
            prop_assert_eq!(decode_value(&CacheKey([7; 32]), &bytes), None);
        }

        #[test]
        fn foreign_bytes_are_a_miss(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decode_value(&CacheKey([0; 32]), &bytes), None);
        }
    }
}
