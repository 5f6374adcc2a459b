//! A line on standard error now and then, so that nobody wonders whether long work goes on.

use std::time::{Duration, Instant};

/// Work is long from here on.
const QUIET: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_secs(1);

/// The progress of one task.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    next: Instant,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, next: Instant::now() + QUIET }
    }

    /// Tells how far it is, of how many where that is known.
    pub(crate) fn at(&mut self, rows: usize, of: Option<usize>) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + EVERY;
            let of = of.map(|n| format!(" of {n}")).unwrap_or_default();
            eprintln!("{}: {rows}{of} rows", self.what);
        }
    }
}
