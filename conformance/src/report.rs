//! What the checks found, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

/// How binding a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckGroup {
    /// The specification says so.
    Required,
    /// An extension says so.
    Extension,
    /// Clients are better off with it.
    Recommended,
}

impl CheckGroup {
    const ALL: [Self; 3] = [Self::Required, Self::Extension, Self::Recommended];

    const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Extension => "extension",
            Self::Recommended => "recommended",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// As wanted.
    Pass,
    /// Not as wanted.
    Fail,
    /// Does not apply to this server or model.
    Skip,
}

impl CheckOutcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct CheckResult {
    /// Its name.
    pub name: &'static str,
    /// Its group.
    pub group: CheckGroup,
    /// What it wants.
    pub wants: &'static str,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// What was found instead, or why it was skipped.
    pub detail: String,
    /// How long it took.
    pub millis: u64,
}

/// All checks of one server.
#[derive(Debug, Clone, Serialize)]
pub struct ConformanceReport {
    /// Where it was.
    pub url: String,
    /// With which model.
    pub model: String,
    /// What it calls itself.
    pub server: String,
    /// What was found.
    pub checks: Vec<CheckResult>,
}

impl ConformanceReport {
    /// Whether no required check failed, and there were any.
    pub fn conforms(&self) -> bool {
        let required = || self.checks.iter().filter(|row| row.group == CheckGroup::Required);
        required().any(|row| row.outcome == CheckOutcome::Pass)
            && required().all(|row| row.outcome != CheckOutcome::Fail)
    }

    fn count(&self, group: CheckGroup, outcome: CheckOutcome) -> usize {
        self.checks.iter().filter(|row| row.group == group && row.outcome == outcome).count()
    }

    fn totals(&self) -> String {
        let of = |group: CheckGroup| {
            let [pass, fail, skip] = [CheckOutcome::Pass, CheckOutcome::Fail, CheckOutcome::Skip]
                .map(|o| self.count(group, o));
            format!("{}: {pass} pass, {fail} fail, {skip} skipped", group.name())
        };
        CheckGroup::ALL.map(of).join("; ")
    }

    /// A table for the terminal.
    pub fn to_table(&self) -> String {
        let width = self.checks.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut text = format!("{} at {}, model {}\n", self.server, self.url, self.model);
        for row in &self.checks {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{} {:<width$}  {:<11} {}",
                row.outcome.name(),
                row.name,
                row.group.name(),
                row.detail
            );
        }
        let _ = writeln!(text, "{}", self.totals());
        text
    }

    /// A page.
    pub fn to_markdown(&self) -> String {
        let mut text =
            format!("Server: {}. Model: `{}`. {}.\n", self.server, self.model, self.totals());
        for group in CheckGroup::ALL {
            let _ = writeln!(
                text,
                "\n### {}\n\n| check | wants | result |\n| --- | --- | --- |",
                group.name()
            );
            for row in self.checks.iter().filter(|row| row.group == group) {
                let detail = if row.detail.is_empty() {
                    String::new()
                } else {
                    format!(": {}", table_cell(&row.detail))
                };
                let _ = writeln!(
                    text,
                    "| `{}` | {} | {}{detail} |",
                    row.name,
                    table_cell(row.wants),
                    row.outcome.name()
                );
            }
        }
        text
    }
}

/// What a server says may hold anything.
fn table_cell(text: &str) -> String {
    let short: String = text.chars().take(300).collect();
    short.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_required_checks_decide_and_an_empty_report_does_not_conform() {
        let row = |group, outcome| CheckResult {
            name: "a",
            group,
            wants: "b",
            outcome,
            detail: "x|y\nz".into(),
            millis: 1,
        };
        let report = |checks| ConformanceReport {
            url: "u".into(),
            model: "m".into(),
            server: "s".into(),
            checks,
        };
        assert!(!report(vec![]).conforms());
        let mut checks = vec![
            row(CheckGroup::Required, CheckOutcome::Pass),
            row(CheckGroup::Recommended, CheckOutcome::Fail),
            row(CheckGroup::Extension, CheckOutcome::Fail),
        ];
        assert!(report(checks.clone()).conforms());
        assert!(report(checks.clone()).to_markdown().contains("FAIL: x\\|y z |"));
        checks.push(row(CheckGroup::Required, CheckOutcome::Fail));
        assert!(!report(checks).conforms());
    }
}
