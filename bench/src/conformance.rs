//! What other servers make of the protocol: `slipway-conformance` against each that speaks it, with the same model.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use slipway_conformance::{Group, Outcome, Report};

use crate::model::{self, Model};
use crate::peers::Peer;
use crate::{Options, raw, runtime};

/// Who speaks the protocol. FastAPI, LitServe and BentoML answer it only as far as we wrote it for the benches.
const PEERS: [Peer; 4] = [Peer::Slipway, Peer::Triton, Peer::MlServer, Peer::KServe];
const MODEL: &str = "tree30";
/// Seconds for each check.
const PATIENCE: Duration = Duration::from_secs(30);

/// Checks each, and writes what came out side by side.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.make_dirs()?;
    let library = runtime::onnxruntime()?;
    // An error means that one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut models = model::all(&options.dir, &[MODEL.to_owned()])?;
    let mut model = models.pop().context("no model")?;
    model.probabilities = raw::reference(&library, &model)?;
    let mut reports = Vec::new();
    for peer in PEERS.into_iter().filter(|peer| options.wants(peer.name())) {
        match check(options, &library, &model, peer) {
            Ok(report) => reports.push((peer.name(), report)),
            // One that does not run here is left out, and does not spoil the rest.
            Err(error) => eprintln!("left out: {}: {error:#}", peer.name()),
        }
    }
    // `--only` may name none of them.
    if reports.is_empty() {
        return Ok(());
    }
    write(&options.report.join("conformance.md"), &reports)
}

fn check(options: &Options, library: &Path, model: &Model, peer: Peer) -> anyhow::Result<Report> {
    let (_server, port, _) = runtime::start(options, library, model, peer)?;
    let checks = slipway_conformance::Options {
        url: format!("http://127.0.0.1:{port}"),
        grpc: peer.grpc_port(port).map(|port| format!("http://127.0.0.1:{port}")),
        model: "m".into(),
        timeout: PATIENCE,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(slipway_conformance::run(&checks))?;
    eprintln!("{}", report.table());
    Ok(report)
}

fn write(path: &Path, reports: &[(&str, Report)]) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, table(reports))?;
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(())
}

/// A row for each check, a column for each server; what failed is told below.
fn table(reports: &[(&str, Report)]) -> String {
    let mut text = String::from("<!-- Written by `slipway-bench conformance`; do not edit. -->\n\n");
    let name = |outcome: Outcome| match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "**fail**",
        Outcome::Skip => "-",
    };
    let _ = write!(text, "| check | wants |");
    for (server, report) in reports {
        let _ = write!(text, " {server} ({}) |", report.server);
    }
    let _ = writeln!(text, "\n| --- | --- |{}", " --- |".repeat(reports.len()));
    for group in [Group::Required, Group::Extension, Group::Recommended] {
        let passed = |report: &Report| {
            let of = |outcome| report.checks.iter().filter(|it| it.group == group && it.outcome == outcome).count();
            format!(" {} of {} |", of(Outcome::Pass), of(Outcome::Pass) + of(Outcome::Fail))
        };
        let totals: String = reports.iter().map(|(_, report)| passed(report)).collect();
        let _ = writeln!(text, "| **{group:?}** | passed, of those that apply |{totals}");
        let Some((_, first)) = reports.first() else { continue };
        for row in first.checks.iter().filter(|it| it.group == group) {
            let of = |report: &Report| {
                let found = report.checks.iter().find(|it| it.name == row.name);
                format!(" {} |", found.map_or("-", |it| name(it.outcome)))
            };
            let cells: String = reports.iter().map(|(_, report)| of(report)).collect();
            let _ = writeln!(text, "| `{}` | {} |{cells}", row.name, row.wants.replace('|', "\\|"));
        }
    }
    for (server, report) in reports {
        let failed: Vec<_> = report.checks.iter().filter(|it| it.outcome == Outcome::Fail).collect();
        if !failed.is_empty() {
            let _ = writeln!(text, "\n{server} failed:\n");
        }
        for row in failed {
            let found: String = row.detail.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = writeln!(text, "- `{}`: {}", row.name, found.replace('<', "&lt;"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use slipway_conformance::Row;

    use super::*;

    #[test]
    fn servers_stand_side_by_side() {
        let report = |outcome, detail: &str| {
            let (name, wants, detail) = ("rest.infer", "an answer", detail.to_owned());
            let row = Row { name, group: Group::Required, wants, outcome, detail, millis: 1 };
            Report { url: String::new(), model: "m".into(), server: "s".into(), checks: vec![row] }
        };
        let text = table(&[("ours", report(Outcome::Pass, "")), ("theirs", report(Outcome::Fail, "500\n<html>"))]);
        assert!(text.contains("| `rest.infer` | an answer | pass | **fail** |"), "{text}");
        assert!(text.contains("| 1 of 1 | 0 of 1 |") && text.contains("- `rest.infer`: 500 &lt;html>"), "{text}");
    }
}
