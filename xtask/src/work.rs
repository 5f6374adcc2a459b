//! Runs steps one after the other: says what begins and how long it and the rest will take, shows the output, counts tests, remembers times.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use slipway_provision::minutes;

use crate::checkout::State;
use crate::clock::Clock;
use crate::estimate::Estimates;
use crate::tally::Tally;

/// A step that is silent for this long says that it is still at work.
const SILENCE: Duration = Duration::from_secs(60);

/// A part of the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// What it does.
    pub(crate) what: String,
    /// In what state it starts, as far as its length depends on that: `cold`, `warm`.
    pub(crate) state: &'static str,
    /// Seconds it takes on two idle cores.
    pub(crate) declared: u64,
}

impl Step {
    /// A step that takes as long whatever there is.
    pub(crate) fn new(what: &str, declared: u64) -> Self {
        Self { what: what.into(), state: "", declared }
    }

    /// A step that takes longer when it is cold.
    pub(crate) fn depending(what: &str, warm: bool, warm_seconds: u64, cold_seconds: u64) -> Self {
        let (state, declared) = if warm { ("warm", warm_seconds) } else { ("cold", cold_seconds) };
        Self { what: what.into(), state, declared }
    }

    /// A build, which takes as long as there is little of it: seconds when cold, when the registry's crates are cached, and when built before.
    pub(crate) fn in_state(what: &str, state: State, seconds: [u64; 3]) -> Self {
        let (state, declared) = match state {
            State::Cold => ("cold", seconds[0]),
            State::CratesCached => ("crates cached", seconds[1]),
            State::Built => ("warm", seconds[2]),
        };
        Self { what: what.into(), state, declared }
    }

    /// Its name among the estimates.
    fn part(&self) -> String {
        if self.state.is_empty() { self.what.clone() } else { format!("{} ({})", self.what, self.state) }
    }
}

/// How a step ended.
#[derive(Debug, Default)]
struct StepOutcome {
    succeeded: bool,
    /// The counts that it printed, if any.
    tally: Option<Tally>,
    /// Tests of libtest that failed.
    failed_tests: Vec<String>,
}

/// The steps of a run.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) clock: Clock,
    pub(crate) tally: Tally,
    /// Names of the steps that failed, with their failed tests where there are some.
    pub(crate) failures: Vec<String>,
    estimates: Estimates,
    steps: Vec<Step>,
    done: usize,
}

impl Work {
    /// Work that consists of these steps, in this order.
    pub(crate) fn new(clock: Clock, estimates: Estimates, steps: Vec<Step>) -> Self {
        Self { clock, tally: Tally::default(), failures: Vec::new(), estimates, steps, done: 0 }
    }

    /// Seconds that all steps will take together.
    pub(crate) fn seconds(&self) -> u64 {
        self.steps[self.done.min(self.steps.len())..].iter().map(|step| self.seconds_of(step)).sum()
    }

    fn seconds_of(&self, step: &Step) -> u64 {
        self.estimates.of(&step.part(), step.declared)
    }

    /// Prints the steps with their estimates.
    pub(crate) fn announce(&self) {
        for step in &self.steps {
            println!("  {:<52} {}", step.what, minutes(self.seconds_of(step)));
        }
    }

    /// Runs a command as the step called `what`; returns whether it succeeded.
    pub(crate) fn run(&mut self, what: &str, command: &mut Command) -> bool {
        self.step(what, |work, rest| work.watch(command, what, rest))
    }

    /// Runs a command that cleans up, however late it is.
    pub(crate) fn clean_up(&mut self, what: &str, command: &mut Command) -> bool {
        self.begin(what, |work, rest| work.watch(command, what, rest))
    }

    /// Runs a function as the step called `what`; its error is printed.
    pub(crate) fn call(&mut self, what: &str, function: impl FnOnce() -> Result<(), String> + Send) -> bool {
        self.step(what, |_, needed| {
            let outcome = wait_for(function, what, needed);
            if let Err(error) = &outcome {
                eprintln!("{error}");
            }
            StepOutcome { succeeded: outcome.is_ok(), ..StepOutcome::default() }
        })
    }

    /// Counts a step that was not run as failed.
    pub(crate) fn fail(&mut self, what: &str, tests: usize, reason: &str) {
        eprintln!("\nFAILED {what}: {reason}");
        self.tally += Tally::failed(tests);
        self.failures.push(what.into());
        self.pass_by(what);
    }

    /// Counts a group that was left out.
    pub(crate) fn skip(&mut self, what: &str, tests: usize, reason: &str) {
        println!("\nSKIPPED {what} ({tests} promises): {reason}; run make e2e GROUP={what}");
        self.tally += Tally::skipped(tests);
        self.pass_by(what);
    }

    fn pass_by(&mut self, what: &str) {
        if let Some(at) = self.steps.iter().position(|step| step.what == what) {
            self.done = self.done.max(at + 1);
        }
    }

    fn step(&mut self, what: &str, run: impl FnOnce(&Self, u64) -> StepOutcome) -> bool {
        if self.clock.too_late() {
            self.fail(what, 1, "not begun: it is too late to begin anything");
            return false;
        }
        self.begin(what, run)
    }

    fn begin(&mut self, what: &str, run: impl FnOnce(&Self, u64) -> StepOutcome) -> bool {
        self.pass_by(what);
        let step = self.steps.iter().find(|step| step.what == what).cloned().unwrap_or_else(|| Step::new(what, 0));
        let (needed, rest) = (self.seconds_of(&step), self.seconds());
        println!(
            "\n==> [{} of {}] {what}: about {}, then {} more",
            self.done,
            self.steps.len(),
            minutes(needed),
            minutes(rest)
        );
        let since = Instant::now();
        let StepOutcome { succeeded, tally, failed_tests } = run(self, needed);
        let seconds = since.elapsed().as_secs();
        if succeeded {
            println!("<== {what}: {}", minutes(seconds));
            self.estimates.record(&step.part(), seconds);
        } else {
            eprintln!("<== {what}: FAILED after {}", minutes(seconds));
            let tests = failed_tests.join(", ");
            self.failures.push(if tests.is_empty() { what.into() } else { format!("{what}: {tests}") });
        }
        self.tally += Tally::of_step(tally, succeeded);
        succeeded
    }

    /// Runs a program, passes its output on, and counts the tests in it.
    fn watch(&self, command: &mut Command, what: &str, needed: u64) -> StepOutcome {
        let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("cannot start `{}`: {error}", slipway_provision::command::line(command));
                return StepOutcome::default();
            }
        };
        let (tally, failed_tests) = follow(&mut child, what, needed);
        let succeeded = child.wait().is_ok_and(|status| status.success());
        StepOutcome { succeeded, tally, failed_tests }
    }
}

/// Runs a function to its end; says now and then how far it is.
fn wait_for(function: impl FnOnce() -> Result<(), String> + Send, what: &str, needed: u64) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    let since = Instant::now();
    std::thread::scope(|scope| {
        // The other side waits for it.
        scope.spawn(move || sender.send(function()));
        loop {
            match receiver.recv_timeout(SILENCE) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) => say_still_at_work(what, since, needed),
                Err(RecvTimeoutError::Disconnected) => return Err("it came to an unexpected end".into()),
            }
        }
    })
}

fn say_still_at_work(what: &str, since: Instant, needed: u64) {
    let elapsed = since.elapsed().as_secs();
    let left = match needed.saturating_sub(elapsed) {
        0 => "longer than expected".into(),
        left => format!("about {} left", minutes(left)),
    };
    println!("    ... {what}: {}, {left}", minutes(elapsed));
}

/// Passes the output on until it ends; says now and then how far it is. Returns the counts in it, and the names of tests that failed.
fn follow(child: &mut Child, what: &str, needed: u64) -> (Option<Tally>, Vec<String>) {
    let (sender, receiver) = mpsc::channel();
    let Some(output) = child.stdout.take() else { return (None, Vec::new()) };
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let (since, mut progress) = (Instant::now(), Progress::default());
    let (mut tally, mut failed_tests) = (None, Vec::new());
    loop {
        match receiver.recv_timeout(SILENCE) {
            Ok(line) => {
                println!("{line}{}", progress.after(&line));
                failed_tests.extend(failed_test(&line));
                if let Some(counts) = Tally::read(&line) {
                    *tally.get_or_insert_with(Tally::default) += counts;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                say_still_at_work(what, since, needed);
            }
            Err(RecvTimeoutError::Disconnected) => return (tally, failed_tests),
        }
        // A lost progress line harms nobody.
        let _ = std::io::stdout().flush();
    }
}

/// The name in a line of libtest about a test that failed.
fn failed_test(line: &str) -> Option<String> {
    Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned())
}

/// How many of the promises have ended: they take half a minute each, and come one after the other.
#[derive(Debug, Default)]
struct Progress {
    all: usize,
    ended: usize,
}

impl Progress {
    /// Few enough for a line each; unit tests are counted in hundreds and end in milliseconds.
    const WORTH: std::ops::RangeInclusive<usize> = 10..=60;

    /// What to add to a line of libtest.
    fn after(&mut self, line: &str) -> String {
        if let Some(all) = line.strip_prefix("running ").and_then(|rest| rest.strip_suffix(" tests")) {
            *self = Self { all: all.parse().unwrap_or_default(), ended: 0 };
        }
        let ends = line.starts_with("test ") && [" ... ok", " ... FAILED"].iter().any(|end| line.ends_with(end));
        if !ends || !Self::WORTH.contains(&self.all) {
            return String::new();
        }
        self.ended += 1;
        format!("  ({} of {})", self.ended, self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_provision::Cache;

    fn work(steps: &[(&str, u64)]) -> Work {
        let cache = Cache::at(std::env::temp_dir().join(format!("slipway-work-{}", std::process::id())));
        let steps = steps.iter().map(|(what, seconds)| Step::new(what, *seconds)).collect();
        Work::new(Clock::from_env().unwrap(), Estimates::read(&cache), steps)
    }

    #[test]
    fn output_is_counted_and_failures_are_told() {
        let mut work = work(&[("a", 10), ("b", 20), ("c", 30)]);
        assert_eq!(work.seconds(), 60);
        let line = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";
        assert!(work.run("a", Command::new("sh").args(["-c", line])));
        assert_eq!((work.tally, work.seconds()), (Tally::passed(3), 50));
        assert!(!work.run("b", Command::new("sh").args(["-c", "exit 3"])));
        assert!(!work.run("c", &mut Command::new("/nonexistent/program")));
        assert_eq!((work.tally, work.seconds()), (Tally { passed: 3, failed: 2, skipped: 0 }, 0));
    }

    #[test]
    fn failures_are_named() {
        let mut work = work(&[("a", 10), ("b", 20), ("c", 30)]);
        let lines = "echo 'test x::y ... FAILED'; echo 'test x::z ... ok'; exit 1";
        assert!(!work.run("a", Command::new("sh").args(["-c", lines])));
        assert!(work.run("b", &mut Command::new("true")));
        work.fail("c", 2, "there is no cluster");
        assert_eq!(work.failures, ["a: x::y", "c"]);
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let mut work = work(&[("clients", 10), ("core", 20)]);
        work.skip("clients", 3, "no time");
        work.fail("core", 24, "too late");
        assert_eq!(work.tally, Tally { passed: 0, failed: 24, skipped: 3 });
        assert!(!work.call("other", || Err("broken".into())));
        assert_eq!(work.tally.failed, 25);
    }

    #[test]
    fn what_cleans_up_runs_however_late_it_is() {
        let mut work = work(&[("down", 1)]);
        work.clock = Clock::ended();
        assert!(!work.run("up", &mut Command::new("true")));
        assert!(work.clean_up("down", &mut Command::new("true")));
        assert_eq!(work.tally, Tally { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn promises_are_numbered_and_unit_tests_are_not() {
        let mut progress = Progress::default();
        assert_eq!(progress.after("running 24 tests"), "");
        assert_eq!(progress.after("test blue_green ... ok"), "  (1 of 24)");
        assert_eq!(progress.after("test blue_green ... ignored"), "");
        progress.after("running 400 tests");
        assert_eq!(progress.after("test x ... ok"), "");
    }
}
