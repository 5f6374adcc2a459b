//! The time of a run: a budget, for which groups may be left out, and a time after which no step
//! may start.

use std::time::{Duration, Instant, SystemTime};

#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeBudget {
    started: Instant,
    budget: Option<Duration>,
    begin_before: Option<Duration>,
}

impl TimeBudget {
    /// Starts the clock. `TEST_BUDGET_MINUTES` is how long the run may take, `TEST_BEGIN_MINUTES`
    /// the minute after which no step may start.
    pub(crate) fn from_env() -> Result<Self, String> {
        let minutes = |name: &str| match std::env::var(name) {
            Ok(text) if !text.is_empty() => parse_minutes(name, &text).map(Some),
            _ => Ok(None),
        };
        let (budget, begin_before) =
            (minutes("TEST_BUDGET_MINUTES")?, minutes("TEST_BEGIN_MINUTES")?);
        Ok(Self { started: Instant::now(), budget, begin_before })
    }

    /// A budget that is used up.
    #[cfg(test)]
    pub(crate) fn ended() -> Self {
        Self {
            started: Instant::now(),
            budget: Some(Duration::ZERO),
            begin_before: Some(Duration::ZERO),
        }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The rest of the budget; `None` without one.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.budget.map(|budget| budget.saturating_sub(self.elapsed()))
    }

    /// Whether no step may start any more.
    pub(crate) fn is_too_late(&self) -> bool {
        self.begin_before.is_some_and(|moment| self.elapsed() >= moment)
    }

    /// The time after which no step may start, in seconds since 1970, for the promises, which start
    /// one after the other.
    pub(crate) fn begin_before(&self) -> Option<u64> {
        let left = self.begin_before?.saturating_sub(self.elapsed());
        let moment = SystemTime::now() + left;
        moment.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
    }

    /// The budget, for messages.
    pub(crate) fn budget(&self) -> Option<Duration> {
        self.budget
    }
}

fn parse_minutes(name: &str, text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (0.0..=100_000.0).contains(&minutes) => {
            Ok(Duration::from_secs_f64(minutes * 60.0))
        }
        _ => Err(format!("{name}={text} is no number of minutes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_checked() {
        assert_eq!(parse_minutes("X", "80"), Ok(Duration::from_secs(4800)));
        assert_eq!(parse_minutes("X", "0.5"), Ok(Duration::from_secs(30)));
        for bad in ["", "-1", "ten", "NaN", "inf", "1e9"] {
            assert!(parse_minutes("X", bad).unwrap_err().contains("X="), "{bad}");
        }
    }

    #[test]
    fn a_clock_that_ran_out_begins_nothing() {
        let clock = TimeBudget::ended();
        assert!(clock.is_too_late() && clock.time_left() == Some(Duration::ZERO));
        let endless = TimeBudget { budget: None, begin_before: None, ..clock };
        assert!(
            !endless.is_too_late()
                && endless.time_left().is_none()
                && endless.begin_before().is_none()
        );
    }
}
