//! Determines how long the process is needed after it was signalled to end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the drain checks whether requests still arrive.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Counts requests, and tracks the latest time at which one of them may end.
#[derive(Debug)]
pub struct RequestActivity {
    started_at: Instant,
    /// Requests of any kind on the port of the API.
    requests: AtomicU64,
    /// The latest deadline of a request, in milliseconds since the creation of this value.
    latest_deadline: AtomicU64,
}

impl Default for RequestActivity {
    fn default() -> Self {
        Self {
            started_at: Instant::now(),
            requests: AtomicU64::new(0),
            latest_deadline: AtomicU64::new(0),
        }
    }
}

impl RequestActivity {
    /// Counts a request.
    pub(super) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Records the deadline of a request.
    pub(super) fn expect_end(&self, at: Instant) {
        let millis = u64::try_from(at.saturating_duration_since(self.started_at).as_millis())
            .unwrap_or(u64::MAX);
        // Most requests have the same time limit, so each is the latest; a prior read would not be
        // cheaper.
        self.latest_deadline.fetch_max(millis, Ordering::Relaxed);
    }

    /// How long the requests received so far may still take.
    pub fn remaining(&self) -> Duration {
        Duration::from_millis(self.latest_deadline.load(Ordering::Relaxed))
            .saturating_sub(self.started_at.elapsed())
    }

    /// Completes when no request has arrived for `time`.
    pub async fn wait_until_quiet(&self, time: Duration) {
        let now = tokio::time::Instant::now;
        let (mut seen, mut since) = (self.requests.load(Ordering::Relaxed), now());
        while since.elapsed() < time {
            tokio::time::sleep(POLL_INTERVAL.min(time)).await;
            let requests = self.requests.load(Ordering::Relaxed);
            if requests != seen {
                (seen, since) = (requests, now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_lasts_as_long_as_the_longest_request_may() {
        let lifetime = RequestActivity::default();
        assert_eq!(lifetime.remaining(), Duration::ZERO);
        let now = Instant::now();
        lifetime.expect_end(now + Duration::from_secs(3600));
        lifetime.expect_end(now + Duration::from_secs(30));
        assert!(lifetime.remaining() > Duration::from_secs(3590));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_quiet_when_no_request_has_come_for_long_enough() {
        let lifetime = RequestActivity::default();
        lifetime.wait_until_quiet(Duration::ZERO).await;
        let asking = async {
            for _ in 0..50 {
                lifetime.note_request();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let begun = tokio::time::Instant::now();
        tokio::join!(asking, lifetime.wait_until_quiet(Duration::from_secs(1)));
        assert!((5900..6200).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    }
}
