//! Reports progress on standard error from time to time, so that users see that long work
//! continues.

use std::time::{Duration, Instant};

/// Work that takes longer than this is reported.
const QUIET_PERIOD: Duration = Duration::from_secs(2);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct ProgressReporter {
    what: &'static str,
    next: Instant,
}

impl ProgressReporter {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, next: Instant::now() + QUIET_PERIOD }
    }

    /// Reports the number of rows done, and the total where it is known.
    pub(crate) fn update(&mut self, rows: usize, of: Option<usize>) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + REPORT_INTERVAL;
            let of = of.map(|n| format!(" of {n}")).unwrap_or_default();
            eprintln!("{}: {rows}{of} rows", self.what);
        }
    }
}
