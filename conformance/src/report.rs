//! What the checks found, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

/// How binding a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The specification says so.
    Required,
    /// An extension says so.
    Extension,
    /// Clients are better off with it.
    Recommended,
}

impl Group {
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
pub enum Outcome {
    /// As wanted.
    Pass,
    /// Not as wanted.
    Fail,
    /// Does not apply to this server or model.
    Skip,
}

impl Outcome {
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
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Its group.
    pub group: Group,
    /// What it wants.
    pub wants: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found instead, or why it was skipped.
    pub detail: String,
    /// How long it took.
    pub millis: u64,
}

/// All checks of one server.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it was.
    pub url: String,
    /// With which model.
    pub model: String,
    /// What it calls itself.
    pub server: String,
    /// What was found.
    pub checks: Vec<Row>,
}

impl Report {
    /// Whether no required check failed, and there were any.
    pub fn conforms(&self) -> bool {
        let required = || self.checks.iter().filter(|row| row.group == Group::Required);
        required().any(|row| row.outcome == Outcome::Pass) && required().all(|row| row.outcome != Outcome::Fail)
    }

    fn count(&self, group: Group, outcome: Outcome) -> usize {
        self.checks.iter().filter(|row| row.group == group && row.outcome == outcome).count()
    }

    fn totals(&self) -> String {
        let of = |group: Group| {
            let [pass, fail, skip] = [Outcome::Pass, Outcome::Fail, Outcome::Skip].map(|o| self.count(group, o));
            format!("{}: {pass} pass, {fail} fail, {skip} skipped", group.name())
        };
        Group::ALL.map(of).join("; ")
    }

    /// A table for the terminal.
    pub fn table(&self) -> String {
        let width = self.checks.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut text = format!("{} at {}, model {}\n", self.server, self.url, self.model);
        for row in &self.checks {
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "{} {:<width$}  {:<11} {}", row.outcome.name(), row.name, row.group.name(), row.detail);
        }
        let _ = writeln!(text, "{}", self.totals());
        text
    }

    /// A page.
    pub fn markdown(&self) -> String {
        let mut text = format!("Server: {}. Model: `{}`. {}.\n", self.server, self.model, self.totals());
        for group in Group::ALL {
            let _ = writeln!(text, "\n### {}\n\n| check | wants | result |\n| --- | --- | --- |", group.name());
            for row in self.checks.iter().filter(|row| row.group == group) {
                let detail = if row.detail.is_empty() { String::new() } else { format!(": {}", cell(&row.detail)) };
                let _ = writeln!(text, "| `{}` | {} | {}{detail} |", row.name, cell(row.wants), row.outcome.name());
            }
        }
        text
    }
}

/// What a server says may hold anything.
fn cell(text: &str) -> String {
    let short: String = text.chars().take(300).collect();
    short.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_required_checks_decide_and_an_empty_report_does_not_conform() {
        let row = |group, outcome| Row { name: "a", group, wants: "b", outcome, detail: "x|y\nz".into(), millis: 1 };
        let report = |checks| Report { url: "u".into(), model: "m".into(), server: "s".into(), checks };
        assert!(!report(vec![]).conforms());
        let mut checks = vec![
            row(Group::Required, Outcome::Pass),
            row(Group::Recommended, Outcome::Fail),
            row(Group::Extension, Outcome::Fail),
        ];
        assert!(report(checks.clone()).conforms());
        assert!(report(checks.clone()).markdown().contains("FAIL: x\\|y z |"));
        checks.push(row(Group::Required, Outcome::Fail));
        assert!(!report(checks).conforms());
    }
}
