//! Cache keys: the model's digest, the names of its outputs, and the inputs bit by bit.

use std::hash::{DefaultHasher, Hasher as _};

use sha2::{Digest, Sha256};
use slipway_runtime_engine::tensor::Tensor;
use slipway_runtime_protocol::encode_binary;

/// Must change with every change to the meaning of a key or of a stored value.
const DOMAIN: &[u8] = b"slipway result v1\0";

/// SHA-256 over everything that an answer depends on. Two inputs share a key only if they are a
/// collision of SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(pub [u8; 32]);

impl CacheKey {
    /// The key of the answer of the model with `digest` (`sha256:<hex>` of its file) to `inputs`
    /// (in the signature's order), for the outputs `wanted`.
    ///
    /// Values are compared bit by bit, little-endian, as in a binary tensor: `-0.0` differs from
    /// `0.0` (a model may divide by it), and NaNs with different payloads differ. That costs at
    /// most a miss.
    pub fn new<'a>(
        digest: &str,
        wanted: impl ExactSizeIterator<Item = &'a str>,
        inputs: &[Tensor],
    ) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(DOMAIN);
        hash_text(&mut hasher, digest);
        hash_number(&mut hasher, wanted.len());
        wanted.for_each(|name| hash_text(&mut hasher, name));
        hash_number(&mut hasher, inputs.len());
        let mut bytes = Vec::new();
        for input in inputs {
            hash_text(&mut hasher, input.data.datatype().name());
            hash_number(&mut hasher, input.shape.len());
            input.shape.iter().for_each(|dimension| hash_number(&mut hasher, *dimension));
            bytes.clear();
            encode_binary(&input.data, &mut bytes);
            hash_number(&mut hasher, bytes.len());
            hasher.update(&bytes);
        }
        Self(hasher.finalize().into())
    }
}

/// Whether these inputs belong to a fixed part of all inputs: one of `every`. Look-ups of these
/// inputs measure the hit ratio while others bypass the cache. The choice is by input, because a
/// part of the inputs with all of their requests has the hit ratio of the whole; a part of the
/// requests would not. Only a few elements are hashed, because hashing them all is the cost that a
/// bypass saves. An input that is one of 64 is also one of 16.
pub fn is_probe_input(inputs: &[Tensor], every: u64) -> bool {
    let mut hasher = DefaultHasher::new();
    let mut bytes = Vec::new();
    for input in inputs {
        let middle = input.data.len() / 2;
        encode_binary(&input.data.slice(0, 8), &mut bytes);
        encode_binary(&input.data.slice(middle, middle + 32), &mut bytes);
    }
    hasher.write(&bytes);
    hasher.finish().is_multiple_of(every)
}

impl std::fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0[..8]))
    }
}

/// Hashes lengths before contents, so that no two different lists of parts give the same bytes.
fn hash_number(hasher: &mut Sha256, n: usize) {
    hasher.update((n as u64).to_le_bytes());
}

fn hash_text(hasher: &mut Sha256, text: &str) {
    hash_number(hasher, text.len());
    hasher.update(text);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use slipway_runtime_engine::tensor::TensorData;

    use super::*;

    fn floats(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor { shape: shape.to_vec(), data: TensorData::F32(values.to_vec()) }
    }

    fn key(digest: &str, outputs: &[&str], inputs: &[Tensor]) -> CacheKey {
        CacheKey::new(digest, outputs.iter().copied(), inputs)
    }

    #[test]
    fn everything_that_matters_makes_another_key() {
        let ints = Tensor { shape: vec![2], data: TensorData::I32(vec![0, 0]) };
        let uints = Tensor { shape: vec![2], data: TensorData::U32(vec![0, 0]) };
        let texts = |v: &[&str]| Tensor {
            shape: vec![v.len()],
            data: TensorData::Bytes(v.iter().map(|s| (*s).into()).collect()),
        };
        let keys = [
            key("sha256:a", &["y"], &[floats(&[2], &[0.0, 0.0])]),
            key("sha256:b", &["y"], &[floats(&[2], &[0.0, 0.0])]),
            key("sha256:a", &["z"], &[floats(&[2], &[0.0, 0.0])]),
            key("sha256:a", &["y", "z"], &[floats(&[2], &[0.0, 0.0])]),
            key("sha256:a", &["yz"], &[floats(&[2], &[0.0, 0.0])]),
            key("sha256:a", &["y"], &[floats(&[1, 2], &[0.0, 0.0])]),
            key("sha256:a", &["y"], &[floats(&[2, 1], &[0.0, 0.0])]),
            key("sha256:a", &["y"], &[floats(&[2], &[0.0, -0.0])]),
            key("sha256:a", &["y"], &[floats(&[2], &[0.0, f32::NAN])]),
            key("sha256:a", &["y"], &[floats(&[1], &[0.0]), floats(&[1], &[0.0])]),
            key("sha256:a", &["y"], &[ints]),
            key("sha256:a", &["y"], &[uints]),
            key("sha256:a", &["y"], &[texts(&["ab", "c"])]),
            key("sha256:a", &["y"], &[texts(&["a", "bc"])]),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }

    #[test]
    fn about_as_many_probe_as_are_asked_for() {
        let input = |n: i32| [floats(&[2], &[1.0, n as f32])];
        let probing = |every: u64| {
            (0..16_000).filter(|n| is_probe_input(&input(*n), every)).collect::<HashSet<_>>()
        };
        let (sixteenth, part) = (probing(16), probing(64));
        assert!(
            (800..1200).contains(&sixteenth.len()) && (150..350).contains(&part.len()),
            "{}",
            part.len()
        );
        assert!(part.is_subset(&sixteenth));
    }

    #[test]
    fn the_same_is_the_same_on_every_pod() {
        let it = key("sha256:a", &["y"], &[floats(&[2], &[1.0, f32::NAN])]);
        assert_eq!(it, key("sha256:a", &["y"], &[floats(&[2], &[1.0, f32::NAN])]));
        // A fixed value: a new version of the program that changes keys must change DOMAIN too.
        assert_eq!(hex::encode(it.0), PINNED);
    }

    const PINNED: &str = "993952e6a9eb2a6a54d230b535170bf1ab1390c2ddfd8390ae7eb5b5c836a207";
}
