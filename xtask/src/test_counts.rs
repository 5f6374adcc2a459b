//! Counts of passed, failed and skipped tests, parsed from the output of test programs.

use std::fmt;
use std::ops::AddAssign;

/// How many tests and checks passed, failed, and were skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TestCounts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl TestCounts {
    /// One check that passed or failed.
    pub(crate) fn from_check(passed: bool) -> Self {
        if passed { Self::with_passed(1) } else { Self::with_failed(1) }
    }

    /// This many passed.
    pub(crate) fn with_passed(passed: usize) -> Self {
        Self { passed, ..Self::default() }
    }

    /// This many failed.
    pub(crate) fn with_failed(failed: usize) -> Self {
        Self { failed, ..Self::default() }
    }

    /// This many were skipped.
    pub(crate) fn with_skipped(skipped: usize) -> Self {
        Self { skipped, ..Self::default() }
    }

    /// The counts in the last line of a test program: libtest's `test result: ok. 5 passed; 0
    /// failed; …`, or `5 passed, 0 failed`, optionally with `, 0 skipped`. libtest's ignored tests
    /// are run by another step, so they are not counted.
    pub(crate) fn parse_line(line: &str) -> Option<Self> {
        let line = line.trim();
        let separator = if line.starts_with("test result: ") { ';' } else { ',' };
        let plain = line.starts_with(|c: char| c.is_ascii_digit());
        if separator == ',' && !plain {
            return None;
        }
        let counts = line.rsplit(". ").next().unwrap_or(line);
        let count = |word: &str| {
            counts
                .split(separator)
                .find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<usize>().ok())
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("skipped").unwrap_or_default(),
        })
    }

    /// The counts of a step: those it printed, else one check. A failure without a failed test
    /// counts as one.
    pub(crate) fn from_step(printed: Option<Self>, succeeded: bool) -> Self {
        match printed {
            Some(tally) if succeeded || tally.failed > 0 => tally,
            Some(tally) => Self { failed: 1, ..tally },
            None => Self::from_check(succeeded),
        }
    }
}

impl AddAssign for TestCounts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for TestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libtest_and_plain_lines_are_read() {
        let libtest = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(
            TestCounts::parse_line(libtest),
            Some(TestCounts { passed: 5, failed: 2, skipped: 0 })
        );
        assert_eq!(
            TestCounts::parse_line("3 passed, 1 failed"),
            Some(TestCounts { passed: 3, failed: 1, skipped: 0 })
        );
        assert_eq!(
            TestCounts::parse_line("3 passed, 1 failed, 4 skipped"),
            Some(TestCounts { passed: 3, failed: 1, skipped: 4 })
        );
        for other in
            ["test a ... ok", "all passed", "running 5 tests", "", "failures: 2 passed, 3 failed"]
        {
            assert_eq!(TestCounts::parse_line(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_printed_is_what_is_read() {
        let tally = TestCounts { passed: 3, failed: 1, skipped: 4 };
        assert_eq!(TestCounts::parse_line(&tally.to_string()), Some(tally));
    }

    #[test]
    fn a_step_that_fails_is_never_all_passed() {
        assert_eq!(
            TestCounts::from_step(Some(TestCounts::with_passed(7)), false),
            TestCounts { passed: 7, failed: 1, skipped: 0 }
        );
        assert_eq!(
            TestCounts::from_step(Some(TestCounts::with_failed(2)), false),
            TestCounts::with_failed(2)
        );
        assert_eq!(TestCounts::from_step(None, true), TestCounts::with_passed(1));
        assert_eq!(TestCounts::from_step(None, false), TestCounts::with_failed(1));
    }
}
