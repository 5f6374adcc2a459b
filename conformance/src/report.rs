//! The results of the checks, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

/// How binding a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckGroup {
    /// The specification requires it.
    Required,
    /// An extension requires it.
    Extension,
    /// It is recommended for the benefit of clients.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// The server meets the requirement.
    Pass,
    /// The server does not meet the requirement.
    Fail,
    /// The check does not apply to this server or model.
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

/// The result of one check.
#[derive(Debug, Clone, Serialize)]
pub struct CheckResult {
    /// The permanent name of the check.
    pub name: &'static str,
    pub group: CheckGroup,
    /// The requirement in words.
    pub wants: &'static str,
    pub outcome: CheckOutcome,
    /// What was found instead, or why the check was skipped.
    pub detail: String,
    /// Duration of the check in milliseconds.
    pub millis: u64,
}

/// The results of all checks of one server.
#[derive(Debug, Clone, Serialize)]
pub struct ConformanceReport {
    /// The server's address.
    pub url: String,
    /// The model that was used.
    pub model: String,
    /// The name in the server's metadata.
    pub server: String,
    pub checks: Vec<CheckResult>,
}

impl ConformanceReport {
    /// Whether there were required checks and none of them failed.
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

    /// A page in Markdown.
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

/// Escapes a server's text, which may contain anything.
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
