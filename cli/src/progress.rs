//! A line on standard error now and then, so that nobody wonders whether long work goes on.

use std::time::{Duration, Instant};

/// Work is long from here on.
const QUIET_PERIOD: Duration = Duration::from_secs(2);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The progress of one task.
#[derive(Debug)]
pub(crate) struct ProgressReporter {
    what: &'static str,
    next: Instant,
}

impl ProgressReporter {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, next: Instant::now() + QUIET_PERIOD }
    }

    /// Tells how far it is, of how many where that is known.
    pub(crate) fn update(&mut self, rows: usize, of: Option<usize>) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + REPORT_INTERVAL;
            let of = of.map(|n| format!(" of {n}")).unwrap_or_default();
            eprintln!("{}: {rows}{of} rows", self.what);
        }
    }
}
