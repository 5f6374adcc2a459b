//! One line for each part of the work, with the time it took.

use std::io::Write;
use std::time::Instant;

/// A part of the work that is going on; [`Step::done`] prints how long it took.
pub struct Step {
    what: String,
    since: Instant,
}

impl Step {
    /// Says what begins. Goes to stderr, so that commands may be used in `$(...)`.
    pub fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        eprint!("{what} ...");
        // A lost progress line harms nobody.
        let _ = std::io::stderr().flush();
        Self { what, since: Instant::now() }
    }

    /// Says how long it took.
    pub fn done(self) {
        eprintln!(" {}", seconds(self.since));
    }

    /// Says how long it took when other output came in between, so that the line stands alone.
    pub fn done_on_own_line(self) {
        eprintln!("{}: {}", self.what, seconds(self.since));
    }

    /// Runs `work` as a step; a failure ends the line and passes on.
    pub fn run<T, E>(what: impl Into<String>, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let step = Self::begin(what);
        let result = work();
        step.end(&result);
        result
    }

    /// Awaits `work` as a step; a failure ends the line and passes on.
    pub async fn wait<T, E>(what: impl Into<String>, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let step = Self::begin(what);
        let result = work.await;
        step.end(&result);
        result
    }

    fn end<T, E>(self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.done(),
            Err(_) => eprintln!(" failed after {}", seconds(self.since)),
        }
    }
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
