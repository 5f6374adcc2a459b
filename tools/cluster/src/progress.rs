//! Prints one line for each step of the work, with its duration. Goes to stderr, so that commands
//! may be used in `$(...)`.

use std::io::Write;
use std::time::Instant;

/// A step of the work.
pub struct TimedStep {
    since: Instant,
}

impl TimedStep {
    fn begin(what: impl Into<String>) -> Self {
        eprint!("{} ...", what.into());
        // A lost progress line is harmless.
        let _ = std::io::stderr().flush();
        Self { since: Instant::now() }
    }

    /// Runs `work` as a step; a failure ends the line and is returned.
    pub fn run<T, E>(what: impl Into<String>, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let step = Self::begin(what);
        let result = work();
        step.end(&result);
        result
    }

    /// Awaits `work` as a step; a failure ends the line and is returned.
    pub async fn run_async<T, E>(
        what: impl Into<String>,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let step = Self::begin(what);
        let result = work.await;
        step.end(&result);
        result
    }

    fn end<T, E>(self, result: &Result<T, E>) {
        match result {
            Ok(_) => eprintln!(" {}", format_elapsed(self.since)),
            Err(_) => eprintln!(" failed after {}", format_elapsed(self.since)),
        }
    }
}

fn format_elapsed(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
