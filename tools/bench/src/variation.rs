//! Requests with different inputs: the first value of the row is incremented, and everything else
//! stays.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use crate::wire::{InputRow, WireEncoding};

/// The first value of a request, and the values that replace it one after the other.
#[derive(Debug)]
pub(crate) struct BodyVariation {
    /// Where the value starts in the body, and where it ends.
    from: usize,
    to: usize,
    is_json: bool,
    /// Number of the first value; different for each protocol.
    base: u32,
    /// Number of values before they repeat.
    count: u32,
    next: AtomicU32,
}

/// 0.5 in units of [`VALUE_STEP`]; from here up to one, a single-precision float can distinguish
/// two values that differ by one unit.
const FIRST_VALUE: u32 = 5_000_000;
const VALUE_STEP: f64 = 1e-7;

impl BodyVariation {
    /// `count` different requests like `body`, which contains `row`; at most 1.6 million.
    pub(crate) fn new(body: &[u8], row: &InputRow, wire: WireEncoding, count: u32) -> Self {
        let find = |what: &[u8]| {
            body.windows(what.len()).position(|window| window == what).unwrap_or_default()
        };
        let (from, to, base) = match wire {
            WireEncoding::Json => {
                let from = find(b"\"data\":[") + b"\"data\":[".len();
                let length =
                    body.iter().skip(from).take_while(|byte| !matches!(byte, b',' | b']')).count();
                (from, from + length, 0)
            }
            // The values are at the end.
            WireEncoding::Binary | WireEncoding::Grpc => {
                let from = body.len() - row.data.len() * 4;
                (from, from + 4, if wire == WireEncoding::Binary { 1_600_000 } else { 3_200_000 })
            }
        };
        Self { from, to, is_json: wire == WireEncoding::Json, base, count, next: AtomicU32::new(0) }
    }

    /// The next request.
    pub(crate) fn next_body(&self, body: &[u8]) -> Bytes {
        let value =
            FIRST_VALUE + self.base + self.next.fetch_add(1, Ordering::Relaxed) % self.count;
        let mut new = Vec::with_capacity(body.len() + 16);
        new.extend_from_slice(&body[..self.from]);
        if self.is_json {
            new.extend_from_slice(format!("0.{value:07}").as_bytes());
        } else {
            new.extend_from_slice(&((f64::from(value) * VALUE_STEP) as f32).to_le_bytes());
        }
        new.extend_from_slice(&body[self.to..]);
        Bytes::from(new)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn row() -> InputRow {
        InputRow { input: "x".into(), shape: vec![1, 2], data: vec![0.25, 3.0] }
    }

    #[test]
    fn every_request_is_another_and_good() {
        for wire in WireEncoding::ALL {
            let call = row().build_request(1, "/", "m", wire);
            let vary = BodyVariation::new(&call.body, &row(), wire, 1000);
            let all: Vec<Bytes> = (0..1000).map(|_| vary.next_body(&call.body)).collect();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 1000, "{}", wire.name());
            assert_eq!(vary.next_body(&call.body), all[0], "they come again");
            let rest = |body: &Bytes| {
                body[vary.from + body.len() - call.body.len() + vary.to - vary.from..].to_vec()
            };
            assert!(all.iter().all(|body| body[..vary.from] == call.body[..vary.from]
                && rest(body) == call.body[vary.to..]));
        }
    }

    #[test]
    fn protocols_do_not_know_each_others_values() {
        let value = |wire| {
            let call = row().build_request(1, "/", "m", wire);
            let vary = BodyVariation::new(&call.body, &row(), wire, 1_500_000);
            vary.next.store(1_499_999, Ordering::Relaxed);
            let body = vary.next_body(&call.body);
            match wire {
                WireEncoding::Json => {
                    serde_json::from_slice::<serde_json::Value>(&body).unwrap()["inputs"][0]["data"]
                        [0]
                    .as_f64()
                    .unwrap()
                }
                _ => f64::from(f32::from_le_bytes(body[vary.from..vary.to].try_into().unwrap())),
            }
        };
        let [json, binary, grpc] = WireEncoding::ALL.map(value);
        let ranges = [
            (0.5..0.66).contains(&json),
            (0.66..0.82).contains(&binary),
            (0.82..1.0).contains(&grpc),
        ];
        assert_eq!(ranges, [true; 3], "{json} {binary} {grpc}");
    }
}
