//! Counts the most requested inputs, so that a new pod can answer them before it receives traffic.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use slipway_runtime_engine::signature::ModelSignature;
use slipway_runtime_engine::tensor::Tensor;

use crate::key::CacheKey;
use crate::value;

/// Largest input that is remembered, in bytes.
const MAX_INPUT: usize = 64 << 10;
/// Largest list of inputs that is sent or read, in bytes.
pub const MAX_BYTES: usize = 8 << 20;

#[derive(Debug)]
struct HotEntry {
    count: u64,
    inputs: Arc<Vec<Tensor>>,
}

/// The approximately most requested inputs: a new input replaces the one with the lowest count and
/// continues its count (the Space-Saving algorithm, Metwally et al. 2005), so frequent inputs are
/// not lost.
#[derive(Debug)]
pub struct HotKeys {
    capacity: usize,
    entries: Mutex<HashMap<CacheKey, HotEntry>>,
}

impl HotKeys {
    /// Remembers at most `most` inputs.
    pub fn new(most: usize) -> Self {
        Self { capacity: most, entries: Mutex::default() }
    }

    pub fn record_hit(&self, key: CacheKey, inputs: Vec<Tensor>) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(&key) {
            entry.count += 1;
            return;
        }
        if inputs.iter().map(Tensor::bytes).sum::<usize>() > MAX_INPUT {
            return;
        }
        let mut count = 1;
        if entries.len() >= self.capacity {
            let coldest = entries
                .iter()
                .min_by_key(|(_, entry)| entry.count)
                .map(|(key, entry)| (*key, entry.count));
            let Some((coldest, least)) = coldest else { return };
            entries.remove(&coldest);
            count += least;
        }
        entries.insert(key, HotEntry { count, inputs: Arc::new(inputs) });
    }

    /// The remembered inputs, most requested first, in the format of [`decode_hot_inputs`]: a line
    /// of JSON with the names of the inputs, then for each entry its key, its length and its value.
    pub fn encode(&self, signature: &ModelSignature) -> Vec<u8> {
        let entries = self.entries.lock();
        let mut all: Vec<_> =
            entries.iter().map(|(key, it)| (it.count, *key, Arc::clone(&it.inputs))).collect();
        drop(entries);
        all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let names: Vec<&str> = signature.inputs.iter().map(|input| input.name.as_str()).collect();
        let mut bytes = serde_json::to_vec(&names).unwrap_or_default();
        bytes.push(b'\n');
        for (_, key, inputs) in all {
            let value = value::encode_value(&key, 0, &inputs);
            if bytes.len() + value.len() + 36 > MAX_BYTES {
                break;
            }
            bytes.extend_from_slice(&key.0);
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&value);
        }
        bytes
    }
}

/// Decodes the inputs of another pod, as far as they fit `signature` (the other pod may serve
/// another version).
pub fn decode_hot_inputs(bytes: &[u8], signature: &ModelSignature) -> Vec<Vec<Tensor>> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Vec::new() };
    let (line, mut rest) = (&bytes[..end], &bytes[end + 1..]);
    let Ok(names) = serde_json::from_slice::<Vec<String>>(line) else { return Vec::new() };
    let mut all = Vec::new();
    while let Some((inputs, after)) = next_hot_entry(rest) {
        rest = after;
        all.extend(order_inputs(&names, inputs, signature));
    }
    all
}

fn next_hot_entry(bytes: &[u8]) -> Option<(Vec<Tensor>, &[u8])> {
    let (key, rest) = bytes.split_first_chunk::<32>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (_, inputs) = value::decode_value(&CacheKey(*key), value)?;
    Some((inputs, rest))
}

/// The inputs in the signature's order, if names, datatypes and shapes fit.
fn order_inputs(
    names: &[String],
    inputs: Vec<Tensor>,
    signature: &ModelSignature,
) -> Option<Vec<Tensor>> {
    let mut by_name: HashMap<&str, Tensor> = names.iter().map(String::as_str).zip(inputs).collect();
    let take = |spec: &slipway_runtime_engine::signature::TensorSignature| {
        let tensor = by_name.remove(spec.name.as_str())?;
        (tensor.data.datatype() == spec.datatype && spec.check_shape(&tensor.shape).is_ok())
            .then_some(tensor)
    };
    let inputs = signature.inputs.iter().map(take).collect::<Option<Vec<_>>>()?;
    signature.check_rows(&inputs).is_ok().then_some(inputs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slipway_runtime_engine::signature::TensorSignature;
    use slipway_runtime_engine::tensor::{DataType, TensorData};

    use super::*;

    fn signature(names: &[&str]) -> ModelSignature {
        let spec = |name: &&str| TensorSignature {
            name: (*name).into(),
            datatype: DataType::F32,
            shape: vec![None, Some(1)],
            axis: None,
        };
        ModelSignature { inputs: names.iter().map(spec).collect(), outputs: vec![] }
    }

    fn input(x: f32) -> Vec<Tensor> {
        let one = |x| Tensor { shape: vec![1, 1], data: TensorData::F32(vec![x]) };
        vec![one(x), one(-x)]
    }

    #[test]
    fn the_hottest_come_first_and_in_the_order_of_who_reads() {
        let hot = HotKeys::new(3);
        for (n, times) in [(1_u8, 5), (2, 9), (3, 1), (4, 7), (5, 1)] {
            (0..times).for_each(|_| hot.record_hit(CacheKey([n; 32]), input(f32::from(n))));
        }
        let bytes = hot.encode(&signature(&["a", "b"]));
        let read_by = |names: &[&str]| decode_hot_inputs(&bytes, &signature(names));
        assert_eq!(read_by(&["a", "b"])[..2], [input(2.0), input(4.0)]);
        assert_eq!(read_by(&["b", "a"])[0], input(-2.0));
        assert_eq!(read_by(&["b"]).len(), 3, "an input less is no harm");
        assert!(read_by(&["a", "c"]).is_empty(), "an input more is");
        let mut other = signature(&["a", "b"]);
        other.inputs[0].datatype = DataType::F64;
        assert!(decode_hot_inputs(&bytes, &other).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            decode_hot_inputs(&bytes, &signature(&["a"]));
            decode_hot_inputs(&[b"[\"a\"]\n", bytes.as_slice()].concat(), &signature(&["a"]));
        }
    }
}
