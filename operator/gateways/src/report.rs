//! The wire format of a gateway's state stream (docs/contracts.md, "State stream"), and which
//! changes need a reconcile.

use std::collections::BTreeSet;
use std::time::Duration;

use slipway_contracts::state::ModelState;
use slipway_core::observed::GatewayReport;
use tokio::time::Instant;

/// Bytes that a stream may transfer as a burst, and per second after that. Ten thousand
/// ModelDeployments take 2 MB in total and 64 KiB per second without changes.
const BURST_BYTES: u64 = 16 << 20;
const BYTES_PER_SECOND: u64 = 1 << 20;

/// Converts a gateway's report on one ModelDeployment to the plan's type.
pub fn to_gateway_report(model: ModelState) -> GatewayReport {
    GatewayReport {
        generation: model.generation,
        requests: model.requests,
        answered: model.answered,
        unshielded: model.unshielded,
        in_flight: model.in_flight,
        ready_endpoints: model.ready_endpoints,
        brake: model.brake,
    }
}

/// Whether the change could alter a plan. Request counts grow all the time and are read when
/// planning, so they do not count. Requests in flight count when the last one ends on a revision
/// that gets no new ones.
pub fn is_relevant_change(
    before: Option<&GatewayReport>,
    after: &GatewayReport,
    draining: &BTreeSet<String>,
) -> bool {
    let Some(before) = before else {
        return true;
    };
    let left = |revision: &String| {
        before.in_flight.get(revision).is_some_and(|n| *n > 0)
            && after.in_flight.get(revision).is_none_or(|n| *n == 0)
    };
    before.generation != after.generation
        || before.brake != after.brake
        || before.ready_endpoints != after.ready_endpoints
        || draining.iter().any(left)
}

/// Bytes that may still come at once. What comes faster waits in the pod.
pub struct StreamRateLimiter {
    available: u64,
    since: Instant,
}

impl Default for StreamRateLimiter {
    fn default() -> Self {
        Self { available: BURST_BYTES, since: Instant::now() }
    }
}

impl StreamRateLimiter {
    /// Accounts for received bytes, and waits when they exceed the rate.
    pub async fn consume(&mut self, bytes: usize) {
        let now = Instant::now();
        let gained = now.duration_since(self.since).as_millis() as u64 * BYTES_PER_SECOND / 1000;
        (self.available, self.since) = ((self.available + gained).min(BURST_BYTES), now);
        let bytes = bytes as u64;
        if bytes > self.available {
            let millis = (bytes - self.available) * 1000 / BYTES_PER_SECOND;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            // The budget gained during the wait is spent on the excess bytes.
            (self.available, self.since) = (0, Instant::now());
        } else {
            self.available -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use slipway_contracts::state::StateLine;

    use super::*;

    const LINE: &str = r#"{"pod":"gw-1","models":[{"name":"digits","uid":"u","generation":12,"requests":{"a":123},"answered":{"a":120},"inFlight":{"a":2},
        "readyEndpoints":{"a":3},"brake":{"revision":"b","generation":12,"reason":"r","failures":11,"requests":14,"at":"2026-01-02T03:04:05Z"}},
        {"name":"other","uid":"v","generation":1,"requests":{},"inFlight":{},"readyEndpoints":{},"brake":null}]}"#;

    #[test]
    fn the_line_of_the_architecture_is_understood() {
        let line: StateLine = serde_json::from_str(LINE).unwrap();
        let mut models = line.models.into_iter();
        let digits = to_gateway_report(models.next().unwrap());
        assert_eq!((digits.generation, digits.requests["a"], digits.in_flight["a"]), (12, 123, 2));
        assert_eq!(digits.answered, Some([("a".to_owned(), 120)].into()));
        assert_eq!(digits.brake.map(|b| (b.revision, b.failures)), Some(("b".to_owned(), 11)));
        // A report of a gateway version without these fields.
        let other = to_gateway_report(models.next().unwrap());
        assert_eq!((other.brake, other.answered), (None, None));
    }

    fn report(generation: i64, requests: u64, in_flight: u64) -> GatewayReport {
        GatewayReport {
            generation,
            requests: [("old".to_owned(), requests)].into(),
            in_flight: [("old".to_owned(), in_flight)].into(),
            ..GatewayReport::default()
        }
    }

    #[test]
    fn only_what_a_plan_waits_for_is_news() {
        let (none, old) = (BTreeSet::new(), BTreeSet::from(["old".to_owned()]));
        assert!(is_relevant_change(None, &report(1, 0, 0), &none), "the first word");
        assert!(!is_relevant_change(Some(&report(1, 0, 3)), &report(1, 9, 2), &old), "counts");
        assert!(is_relevant_change(Some(&report(1, 0, 3)), &report(2, 0, 3), &none), "confirmed");
        assert!(
            !is_relevant_change(Some(&report(1, 0, 3)), &report(1, 0, 0), &none),
            "a quiet moment of a revision in use"
        );
        assert!(is_relevant_change(Some(&report(1, 0, 3)), &report(1, 0, 0), &old), "drained");
        let mut endpoints = report(1, 0, 3);
        endpoints.ready_endpoints.insert("old".into(), 1);
        assert!(is_relevant_change(Some(&report(1, 0, 3)), &endpoints, &none), "endpoints");
    }
}
