//! Sends equal requests to the same pod, so that the caches of N pods form one cache of N times the
//! size instead of N copies of the same content.
//!
//! Rendezvous hashing: every pod has a rank for every request, the same on all gateways, and the
//! first in rank below its load limit takes the request. An added or removed pod moves only its own
//! share of the requests. The limit is 1.25 times the mean load (consistent hashing with bounded
//! loads, Mirrokni et al. 2016), so that one frequent request cannot overload its pod.
//!
//! This chooses among the pods of the revision that was chosen before; the split between revisions
//! does not depend on it.

use bytes::Bytes;

use crate::message;
use crate::split::mix_bits;

/// Maximum load of a pod relative to the mean load, in percent.
const LOAD_FACTOR_PERCENT: usize = 125;
/// Below this number of concurrent requests no pod is skipped.
const MIN_LOAD_BOUND: usize = 4;
/// Number of bytes at either end of a body in which the names `id` and `entity` are searched:
/// clients write them first or last.
const SCAN_BYTES: usize = 512;

/// Maximum number of requests of one of `pods` pods, including the next one, when all together have
/// `in_flight`.
pub fn load_bound(in_flight: usize, pods: usize) -> usize {
    ((in_flight + 1) * LOAD_FACTOR_PERCENT).div_ceil(pods.max(1) * 100).max(MIN_LOAD_BOUND)
}

/// The rank of a pod for a request; the highest comes first.
pub fn rendezvous_rank(request: u64, pod: u64) -> u64 {
    mix_bits(request ^ pod)
}

/// Hash of the parts that make two requests equal: the path, and the entity if the body contains
/// one near its ends, else the whole body without its `id`, which clients generate for every
/// request. A text that only looks like such a name does no harm: the requests then share a pod but
/// no answer.
pub fn request_fingerprint(path: &str, body: &[Bytes]) -> u64 {
    let mut hasher = WordHasher::default();
    hasher.write(path.as_bytes());
    hasher.write(b"\xff");
    // Almost always one piece; otherwise only the ends of the pieces are searched.
    if let Some(entity) = body
        .iter()
        .find_map(|piece| head_and_tail(piece).find_map(|(_, end)| value_of(end, b"\"entity\"")))
    {
        hasher.write(entity.1);
        return hasher.finish();
    }
    for piece in body {
        let id = head_and_tail(piece)
            .find_map(|(at, end)| value_of(end, b"\"id\"").map(|(from, id)| (at + from, id.len())));
        match id {
            Some((from, length)) => {
                hasher.write(&piece[..from]);
                hasher.write(&piece[from + length..]);
            }
            None => hasher.write(piece),
        }
    }
    hasher.finish()
}

/// The beginning of a piece, and its end if it does not overlap, each with its offset.
fn head_and_tail(piece: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let head = (0, &piece[..piece.len().min(SCAN_BYTES)]);
    let tail = piece.len().checked_sub(SCAN_BYTES).map(|at| (at, &piece[at..]));
    [Some(head), tail].into_iter().flatten()
}

/// The text that follows `name` and a colon, without its quotes, and its offset.
fn value_of<'a>(json: &'a [u8], name: &[u8]) -> Option<(usize, &'a [u8])> {
    let mut at = json.windows(name.len()).position(|window| window == name)? + name.len();
    at += json[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    (json.get(at) == Some(&b':')).then_some(())?;
    at += 1;
    at += json[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    (json.get(at) == Some(&b'"')).then_some(())?;
    at += 1;
    let length = json[at..].iter().position(|byte| *byte == b'"')?;
    Some((at, &json[at..at + length]))
}

/// Like [`request_fingerprint`], for a unary gRPC call.
pub fn grpc_fingerprint(path: &str, body: &[Bytes]) -> u64 {
    let Some((first, more)) = body.split_first() else { return request_fingerprint(path, body) };
    let Some(found) = message::parse_infer_request(first) else {
        return request_fingerprint(path, body);
    };
    let mut hasher = WordHasher::default();
    hasher.write(path.as_bytes());
    hasher.write(b"\xff");
    if let Some(entity) = found.entity {
        hasher.write(found.model);
        hasher.write(b"\xff");
        hasher.write(entity);
        return hasher.finish();
    }
    // The message length in the frame header depends on the id, so it is excluded.
    hasher.write(first.get(message::FRAME_HEADER_BYTES..found.id.start).unwrap_or_default());
    hasher.write(first.get(found.id.end.max(message::FRAME_HEADER_BYTES)..).unwrap_or_default());
    more.iter().for_each(|piece| hasher.write(piece));
    hasher.finish()
}

/// A hash of eight bytes at a time, whatever pieces they come in. Not for tables that strangers
/// fill: here it only spreads.
///
/// Written out here, and pinned by a test. Another hash, such as XXH3 of a library, would move the
/// requests of every entity to another pod, away from what its caches hold; and while gateways are
/// replaced, those of both versions would disagree.
#[derive(Default)]
struct WordHasher {
    state: u64,
    pending: [u8; 8],
    filled: usize,
    length: u64,
}

impl WordHasher {
    fn write(&mut self, mut bytes: &[u8]) {
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if self.filled > 0 {
            let taken = bytes.len().min(8 - self.filled);
            self.pending[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < 8 {
                return;
            }
            self.add_word(u64::from_le_bytes(self.pending));
            self.filled = 0;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add_word(u64::from_le_bytes(*word)));
        self.pending[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    fn add_word(&mut self, word: u64) {
        self.state = (self.state.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(mut self) -> u64 {
        self.pending[self.filled..].fill(0);
        self.add_word(u64::from_le_bytes(self.pending));
        mix_bits(self.state ^ self.length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(body: &str) -> u64 {
        request_fingerprint("/v2/models/m/infer", &[Bytes::copy_from_slice(body.as_bytes())])
    }

    #[test]
    fn an_id_makes_no_difference_and_everything_else_does() {
        let plain = of(r#"{"id": "a-1", "inputs": [{"name": "x", "data": [1, 2]}]}"#);
        assert_eq!(plain, of(r#"{"id": "b-22", "inputs": [{"name": "x", "data": [1, 2]}]}"#));
        assert_ne!(plain, of(r#"{"id": "a-1", "inputs": [{"name": "x", "data": [1, 3]}]}"#));
        let long = "1,".repeat(5000);
        let at_the_end = |id: &str, last: u8| {
            of(&format!(r#"{{"inputs":[{{"data":[{long}{last}]}}],"id":"{id}"}}"#))
        };
        assert_eq!(at_the_end("a", 1), at_the_end("bb", 1));
        assert_ne!(at_the_end("a", 1), at_the_end("a", 2));
        let other = request_fingerprint("/v2/models/n/infer", &[Bytes::from_static(b"{}")]);
        assert_ne!(other, of("{}"));
    }

    #[test]
    fn fingerprints_are_pinned() {
        assert_eq!(of("{}"), 0xe272_2404_0b04_98ed);
        assert_eq!(of(r#"{"inputs":[{"data":[1,2,3]}]}"#), 0x0ea0_b43b_5d61_643f);
        assert_eq!(of(r#"{"parameters":{"entity":"user-1"}}"#), 0xead2_3e57_1d98_8744);
    }

    #[test]
    fn an_entity_decides_alone() {
        let with = |entity: &str, x: u8| {
            of(&format!(r#"{{"parameters":{{"entity":"{entity}"}},"inputs":[{{"data":[{x}]}}]}}"#))
        };
        assert_eq!(with("user-1", 1), with("user-1", 2));
        assert_ne!(with("user-1", 1), with("user-2", 1));
    }

    #[test]
    fn messages_of_grpc_are_alike_without_their_id_and_by_their_entity() {
        // model_name "m", then the rest: https://protobuf.dev/programming-guides/encoding/.
        let of = |rest: &[&[u8]]| {
            let message = [&[0x0a, 1, b'm'], rest.concat().as_slice()].concat();
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let body = [&[0][..], &length, &message].concat();
            grpc_fingerprint("/inference.GRPCInferenceService/ModelInfer", &[body.into()])
        };
        let (raw, other): (&[u8], &[u8]) = (&[0x3a, 2, 1, 2], &[0x3a, 2, 1, 3]);
        let ids: [&[u8]; 2] = [&[0x1a, 1, b'a'], &[0x1a, 2, b'b', b'c']];
        assert_eq!(of(&[ids[0], raw]), of(&[ids[1], raw]));
        assert_eq!(of(&[ids[0], raw]), of(&[raw]));
        assert_ne!(of(&[ids[0], raw]), of(&[ids[0], other]));
        let entity =
            |name: u8| [&[0x22, 13, 0x0a, 6][..], b"entity", &[0x12, 3, 0x1a, 1, name]].concat();
        assert_eq!(of(&[ids[0], &entity(b'1'), raw]), of(&[ids[1], &entity(b'1'), other]));
        assert_ne!(of(&[&entity(b'1'), raw]), of(&[&entity(b'2'), raw]));
        // Compressed messages have equal fingerprints when they are equal.
        let compressed = |last: u8| grpc_fingerprint("/", &[vec![1, 0, 0, 0, 1, last].into()]);
        assert!(compressed(1) == compressed(1) && compressed(1) != compressed(2));
    }

    #[test]
    fn bounds_follow_the_mean_load() {
        assert_eq!((load_bound(0, 4), load_bound(3, 4)), (MIN_LOAD_BOUND, MIN_LOAD_BOUND));
        assert_eq!(load_bound(99, 4), 32);
        assert_eq!(load_bound(99, 0), 125);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(body in proptest::collection::vec(any::<u8>(), 0..100), cuts in proptest::collection::vec(0..100_usize, 0..5)) {
            let mut whole = WordHasher::default();
            whole.write(&body);
            let mut pieces = WordHasher::default();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.sort_unstable();
            let begins = [0].into_iter().chain(cuts.iter().copied());
            let ends = cuts.iter().copied().chain([body.len()]);
            begins.zip(ends).for_each(|(from, to)| pieces.write(&body[from..to]));
            prop_assert_eq!(whole.finish(), pieces.finish());
        }

        #[test]
        fn any_body_is_taken(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            request_fingerprint("/", &[body.clone().into()]);
            grpc_fingerprint("/", &[body.into()]);
        }

        /// At least one pod always has capacity: the limits together exceed the load.
        #[test]
        fn somebody_has_room(in_flight in 0..10_000_usize, pods in 1..200_usize) {
            prop_assert!(load_bound(in_flight, pods) * pods > in_flight);
        }
    }
}
