//! Runs `slipway-conformance` against other servers that implement the protocol, with the same
//! model.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use slipway_conformance::{CheckGroup, CheckOutcome, ConformanceReport};

use crate::model::{self, BenchModel};
use crate::peers::PeerServer;
use crate::{BenchOptions, raw, runtime};

/// The servers that implement the protocol. FastAPI, LitServe and BentoML are left out: they answer
/// it only as far as our benchmark code implements it.
const PEERS: [PeerServer; 4] =
    [PeerServer::Slipway, PeerServer::Triton, PeerServer::MlServer, PeerServer::KServe];
const MODEL: &str = "tree30";
/// Time limit of each check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// Checks each server, and writes the results side by side.
pub(crate) fn run_conformance(options: &BenchOptions) -> anyhow::Result<()> {
    options.make_dirs()?;
    let library = runtime::onnxruntime_library()?;
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut models = model::ensure_models(&options.dir, &[MODEL.to_owned()])?;
    let mut model = models.pop().context("no model")?;
    model.probabilities = raw::reference_output(&library, &model)?;
    let mut reports = Vec::new();
    for peer in PEERS.into_iter().filter(|peer| options.is_selected(peer.name())) {
        match check_peer(options, &library, &model, peer) {
            Ok(report) => reports.push((peer.name(), report)),
            // A server that does not run here is left out; the others are still checked.
            Err(error) => eprintln!("left out: {}: {error:#}", peer.name()),
        }
    }
    // `--only` may name none of them.
    if reports.is_empty() {
        return Ok(());
    }
    write_conformance(&options.report.join("conformance.md"), &reports)
}

fn check_peer(
    options: &BenchOptions,
    library: &Path,
    model: &BenchModel,
    peer: PeerServer,
) -> anyhow::Result<ConformanceReport> {
    let (_server, port, _) = runtime::start_peer(options, library, model, peer)?;
    let checks = slipway_conformance::ConformanceOptions {
        url: format!("http://127.0.0.1:{port}"),
        grpc: peer.grpc_port(port).map(|port| format!("http://127.0.0.1:{port}")),
        model: "m".into(),
        timeout: CHECK_TIMEOUT,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(slipway_conformance::run_checks(&checks))?;
    eprintln!("{}", report.to_table());
    Ok(report)
}

fn write_conformance(path: &Path, reports: &[(&str, ConformanceReport)]) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, render_conformance_table(reports))?;
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(())
}

/// A row for each check and a column for each server; details of failures follow below the table.
fn render_conformance_table(reports: &[(&str, ConformanceReport)]) -> String {
    let mut text =
        String::from("<!-- Written by `slipway-bench conformance`; do not edit. -->\n\n");
    let name = |outcome: CheckOutcome| match outcome {
        CheckOutcome::Pass => "pass",
        CheckOutcome::Fail => "**fail**",
        CheckOutcome::Skip => "-",
    };
    let _ = write!(text, "| check | wants |");
    for (server, report) in reports {
        let _ = write!(text, " {server} ({}) |", report.server);
    }
    let _ = writeln!(text, "\n| --- | --- |{}", " --- |".repeat(reports.len()));
    for group in [CheckGroup::Required, CheckGroup::Extension, CheckGroup::Recommended] {
        let passed = |report: &ConformanceReport| {
            let of = |outcome| {
                report.checks.iter().filter(|it| it.group == group && it.outcome == outcome).count()
            };
            format!(
                " {} of {} |",
                of(CheckOutcome::Pass),
                of(CheckOutcome::Pass) + of(CheckOutcome::Fail)
            )
        };
        let totals: String = reports.iter().map(|(_, report)| passed(report)).collect();
        let _ = writeln!(text, "| **{group:?}** | passed, of those that apply |{totals}");
        let Some((_, first)) = reports.first() else { continue };
        for row in first.checks.iter().filter(|it| it.group == group) {
            let of = |report: &ConformanceReport| {
                let found = report.checks.iter().find(|it| it.name == row.name);
                format!(" {} |", found.map_or("-", |it| name(it.outcome)))
            };
            let cells: String = reports.iter().map(|(_, report)| of(report)).collect();
            let _ = writeln!(text, "| `{}` | {} |{cells}", row.name, row.wants.replace('|', "\\|"));
        }
    }
    for (server, report) in reports {
        let failed: Vec<_> =
            report.checks.iter().filter(|it| it.outcome == CheckOutcome::Fail).collect();
        if !failed.is_empty() {
            let _ = writeln!(text, "\n{server} failed:\n");
        }
        for row in failed {
            let found: String = row
                .detail
                .chars()
                .take(200)
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            let _ = writeln!(text, "- `{}`: {}", row.name, found.replace('<', "&lt;"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use slipway_conformance::CheckResult;

    use super::*;

    #[test]
    fn servers_stand_side_by_side() {
        let report = |outcome, detail: &str| {
            let (name, wants, detail) = ("rest.infer", "an answer", detail.to_owned());
            let row = CheckResult {
                name,
                group: CheckGroup::Required,
                wants,
                outcome,
                detail,
                millis: 1,
            };
            ConformanceReport {
                url: String::new(),
                model: "m".into(),
                server: "s".into(),
                checks: vec![row],
            }
        };
        let text = render_conformance_table(&[
            ("ours", report(CheckOutcome::Pass, "")),
            ("theirs", report(CheckOutcome::Fail, "500\n<html>")),
        ]);
        assert!(text.contains("| `rest.infer` | an answer | pass | **fail** |"), "{text}");
        assert!(
            text.contains("| 1 of 1 | 0 of 1 |") && text.contains("- `rest.infer`: 500 &lt;html>"),
            "{text}"
        );
    }
}
