//! Runs steps one after the other: announces each step with the time that it and the rest will
//! take, shows its output, counts tests, and records durations.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use slipway_provision::format_minutes;

use crate::checkout::BuildState;
use crate::estimate::DurationEstimates;
use crate::test_counts::TestCounts;
use crate::time_budget::TimeBudget;

/// After this time without output, a progress line is printed.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(60);

/// A step of the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedStep {
    /// The name of the step.
    pub(crate) name: String,
    /// The state in which it starts, if its duration depends on that: `cold`, `warm`.
    pub(crate) state: &'static str,
    /// Seconds it takes on two idle cores.
    pub(crate) default_seconds: u64,
}

impl PlannedStep {
    /// A step whose duration does not depend on a state.
    pub(crate) fn new(what: &str, declared: u64) -> Self {
        Self { name: what.into(), state: "", default_seconds: declared }
    }

    /// A step that takes longer when it is cold.
    pub(crate) fn cold_or_warm(
        what: &str,
        warm: bool,
        warm_seconds: u64,
        cold_seconds: u64,
    ) -> Self {
        let (state, declared) = if warm { ("warm", warm_seconds) } else { ("cold", cold_seconds) };
        Self { name: what.into(), state, default_seconds: declared }
    }

    /// A build, whose duration depends on what exists: seconds when cold, when the registry's
    /// crates are cached, and when built before.
    pub(crate) fn for_state(what: &str, state: BuildState, seconds: [u64; 3]) -> Self {
        let (state, declared) = match state {
            BuildState::Cold => ("cold", seconds[0]),
            BuildState::CratesCached => ("crates cached", seconds[1]),
            BuildState::Built => ("warm", seconds[2]),
        };
        Self { name: what.into(), state, default_seconds: declared }
    }

    /// The key of the step among the estimates.
    fn estimate_key(&self) -> String {
        if self.state.is_empty() {
            self.name.clone()
        } else {
            format!("{} ({})", self.name, self.state)
        }
    }
}

/// The outcome of a step.
#[derive(Debug, Default)]
struct StepOutcome {
    succeeded: bool,
    /// The counts that it printed, if any.
    counts: Option<TestCounts>,
    /// Names of the failed tests of libtest.
    failed_tests: Vec<String>,
}

/// The steps of a run.
#[derive(Debug)]
pub(crate) struct StepRunner {
    pub(crate) time_budget: TimeBudget,
    pub(crate) counts: TestCounts,
    /// Names of the failed steps, with their failed tests if there are any.
    pub(crate) failures: Vec<String>,
    estimates: DurationEstimates,
    steps: Vec<PlannedStep>,
    steps_done: usize,
}

impl StepRunner {
    /// A run that consists of these steps, in this order.
    pub(crate) fn new(
        clock: TimeBudget,
        estimates: DurationEstimates,
        steps: Vec<PlannedStep>,
    ) -> Self {
        Self {
            time_budget: clock,
            counts: TestCounts::default(),
            failures: Vec::new(),
            estimates,
            steps,
            steps_done: 0,
        }
    }

    /// Seconds that all remaining steps will take together.
    pub(crate) fn seconds_left(&self) -> u64 {
        self.steps[self.steps_done.min(self.steps.len())..]
            .iter()
            .map(|step| self.step_seconds(step))
            .sum()
    }

    fn step_seconds(&self, step: &PlannedStep) -> u64 {
        self.estimates.seconds_for(&step.estimate_key(), step.default_seconds)
    }

    /// Prints the steps with their estimates.
    pub(crate) fn print_steps(&self) {
        for step in &self.steps {
            println!("  {:<52} {}", step.name, format_minutes(self.step_seconds(step)));
        }
    }

    /// Runs a command as the step called `what`; returns whether it succeeded.
    pub(crate) fn run_command(&mut self, what: &str, command: &mut Command) -> bool {
        self.run_step(what, |work, rest| work.run_and_count(command, what, rest))
    }

    /// Runs a command that cleans up, even after the deadline for starting steps.
    pub(crate) fn clean_up(&mut self, what: &str, command: &mut Command) -> bool {
        self.start_step(what, |work, rest| work.run_and_count(command, what, rest))
    }

    /// Runs a function as the step called `what`; its error is printed.
    pub(crate) fn run_function(
        &mut self,
        what: &str,
        function: impl FnOnce() -> Result<(), String> + Send,
    ) -> bool {
        self.run_step(what, |_, needed| {
            let outcome = wait_for(function, what, needed);
            if let Err(error) = &outcome {
                eprintln!("{error}");
            }
            StepOutcome { succeeded: outcome.is_ok(), ..StepOutcome::default() }
        })
    }

    /// Counts a step that was not run as failed.
    pub(crate) fn record_failure(&mut self, what: &str, tests: usize, reason: &str) {
        eprintln!("\nFAILED {what}: {reason}");
        self.counts += TestCounts::with_failed(tests);
        self.failures.push(what.into());
        self.advance_past(what);
    }

    /// Counts a group that was left out.
    pub(crate) fn record_skip(&mut self, what: &str, tests: usize, reason: &str) {
        println!("\nSKIPPED {what} ({tests} promises): {reason}; run make e2e GROUP={what}");
        self.counts += TestCounts::with_skipped(tests);
        self.advance_past(what);
    }

    fn advance_past(&mut self, what: &str) {
        if let Some(at) = self.steps.iter().position(|step| step.name == what) {
            self.steps_done = self.steps_done.max(at + 1);
        }
    }

    fn run_step(&mut self, what: &str, run: impl FnOnce(&Self, u64) -> StepOutcome) -> bool {
        if self.time_budget.is_too_late() {
            self.record_failure(what, 1, "not begun: it is too late to begin anything");
            return false;
        }
        self.start_step(what, run)
    }

    fn start_step(&mut self, what: &str, run: impl FnOnce(&Self, u64) -> StepOutcome) -> bool {
        self.advance_past(what);
        let step = self
            .steps
            .iter()
            .find(|step| step.name == what)
            .cloned()
            .unwrap_or_else(|| PlannedStep::new(what, 0));
        let (needed, rest) = (self.step_seconds(&step), self.seconds_left());
        println!(
            "\n==> [{} of {}] {what}: about {}, then {} more",
            self.steps_done,
            self.steps.len(),
            format_minutes(needed),
            format_minutes(rest)
        );
        let since = Instant::now();
        let StepOutcome { succeeded, counts: tally, failed_tests } = run(self, needed);
        let seconds = since.elapsed().as_secs();
        if succeeded {
            println!("<== {what}: {}", format_minutes(seconds));
            self.estimates.record(&step.estimate_key(), seconds);
        } else {
            eprintln!("<== {what}: FAILED after {}", format_minutes(seconds));
            let tests = failed_tests.join(", ");
            self.failures.push(if tests.is_empty() {
                what.into()
            } else {
                format!("{what}: {tests}")
            });
        }
        self.counts += TestCounts::from_step(tally, succeeded);
        succeeded
    }

    /// Runs a program, forwards its output, and counts the tests in it.
    fn run_and_count(&self, command: &mut Command, what: &str, needed: u64) -> StepOutcome {
        let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!(
                    "cannot start `{}`: {error}",
                    slipway_provision::command::command_line(command)
                );
                return StepOutcome::default();
            }
        };
        let (tally, failed_tests) = forward_output(&mut child, what, needed);
        let succeeded = child.wait().is_ok_and(|status| status.success());
        StepOutcome { succeeded, counts: tally, failed_tests }
    }
}

/// Runs a function to its end and prints progress lines.
fn wait_for(
    function: impl FnOnce() -> Result<(), String> + Send,
    what: &str,
    needed: u64,
) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    let since = Instant::now();
    std::thread::scope(|scope| {
        // The receiver waits for it.
        scope.spawn(move || sender.send(function()));
        loop {
            match receiver.recv_timeout(PROGRESS_INTERVAL) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) => print_progress(what, since, needed),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("it came to an unexpected end".into());
                }
            }
        }
    })
}

fn print_progress(what: &str, since: Instant, needed: u64) {
    let elapsed = since.elapsed().as_secs();
    let left = match needed.saturating_sub(elapsed) {
        0 => "longer than expected".into(),
        left => format!("about {} left", format_minutes(left)),
    };
    println!("    ... {what}: {}, {left}", format_minutes(elapsed));
}

/// Forwards the output until it ends and prints progress lines. Returns the counts in it, and the
/// names of tests that failed.
fn forward_output(child: &mut Child, what: &str, needed: u64) -> (Option<TestCounts>, Vec<String>) {
    let (sender, receiver) = mpsc::channel();
    let Some(output) = child.stdout.take() else { return (None, Vec::new()) };
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let (since, mut progress) = (Instant::now(), PromiseProgress::default());
    let (mut tally, mut failed_tests) = (None, Vec::new());
    loop {
        match receiver.recv_timeout(PROGRESS_INTERVAL) {
            Ok(line) => {
                println!("{line}{}", progress.suffix_for(&line));
                failed_tests.extend(parse_failed_test(&line));
                if let Some(counts) = TestCounts::parse_line(&line) {
                    *tally.get_or_insert_with(TestCounts::default) += counts;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                print_progress(what, since, needed);
            }
            Err(RecvTimeoutError::Disconnected) => return (tally, failed_tests),
        }
        // A lost progress line is harmless.
        let _ = std::io::stdout().flush();
    }
}

/// The name of the test in a line of libtest that reports a failure.
fn parse_failed_test(line: &str) -> Option<String> {
    Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned())
}

/// How many of the promises have ended: each takes half a minute, and they end one after the other.
#[derive(Debug, Default)]
struct PromiseProgress {
    total: usize,
    finished: usize,
}

impl PromiseProgress {
    /// Numbers of tests for which a line each is useful; unit tests are counted in hundreds and end
    /// in milliseconds.
    const NUMBERED_TOTALS: std::ops::RangeInclusive<usize> = 10..=60;

    /// The suffix for a line of libtest.
    fn suffix_for(&mut self, line: &str) -> String {
        if let Some(all) =
            line.strip_prefix("running ").and_then(|rest| rest.strip_suffix(" tests"))
        {
            *self = Self { total: all.parse().unwrap_or_default(), finished: 0 };
        }
        let ends = line.starts_with("test ")
            && [" ... ok", " ... FAILED"].iter().any(|end| line.ends_with(end));
        if !ends || !Self::NUMBERED_TOTALS.contains(&self.total) {
            return String::new();
        }
        self.finished += 1;
        format!("  ({} of {})", self.finished, self.total)
    }
}

#[cfg(test)]
mod tests {
    use slipway_provision::BuildCache;

    use super::*;

    fn work(steps: &[(&str, u64)]) -> StepRunner {
        let cache = BuildCache::with_root(
            std::env::temp_dir().join(format!("slipway-work-{}", std::process::id())),
        );
        let steps = steps.iter().map(|(what, seconds)| PlannedStep::new(what, *seconds)).collect();
        StepRunner::new(TimeBudget::from_env().unwrap(), DurationEstimates::read(&cache), steps)
    }

    #[test]
    fn output_is_counted_and_failures_are_told() {
        let mut work = work(&[("a", 10), ("b", 20), ("c", 30)]);
        assert_eq!(work.seconds_left(), 60);
        let line =
            "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";
        assert!(work.run_command("a", Command::new("sh").args(["-c", line])));
        assert_eq!((work.counts, work.seconds_left()), (TestCounts::with_passed(3), 50));
        assert!(!work.run_command("b", Command::new("sh").args(["-c", "exit 3"])));
        assert!(!work.run_command("c", &mut Command::new("/nonexistent/program")));
        assert_eq!(
            (work.counts, work.seconds_left()),
            (TestCounts { passed: 3, failed: 2, skipped: 0 }, 0)
        );
    }

    #[test]
    fn failures_are_named() {
        let mut work = work(&[("a", 10), ("b", 20), ("c", 30)]);
        let lines = "echo 'test x::y ... FAILED'; echo 'test x::z ... ok'; exit 1";
        assert!(!work.run_command("a", Command::new("sh").args(["-c", lines])));
        assert!(work.run_command("b", &mut Command::new("true")));
        work.record_failure("c", 2, "there is no cluster");
        assert_eq!(work.failures, ["a: x::y", "c"]);
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let mut work = work(&[("clients", 10), ("core", 20)]);
        work.record_skip("clients", 3, "no time");
        work.record_failure("core", 24, "too late");
        assert_eq!(work.counts, TestCounts { passed: 0, failed: 24, skipped: 3 });
        assert!(!work.run_function("other", || Err("broken".into())));
        assert_eq!(work.counts.failed, 25);
    }

    #[test]
    fn what_cleans_up_runs_however_late_it_is() {
        let mut work = work(&[("down", 1)]);
        work.time_budget = TimeBudget::ended();
        assert!(!work.run_command("up", &mut Command::new("true")));
        assert!(work.clean_up("down", &mut Command::new("true")));
        assert_eq!(work.counts, TestCounts { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn promises_are_numbered_and_unit_tests_are_not() {
        let mut progress = PromiseProgress::default();
        assert_eq!(progress.suffix_for("running 24 tests"), "");
        assert_eq!(progress.suffix_for("test blue_green ... ok"), "  (1 of 24)");
        assert_eq!(progress.suffix_for("test blue_green ... ignored"), "");
        progress.suffix_for("running 400 tests");
        assert_eq!(progress.suffix_for("test x ... ok"), "");
    }
}
