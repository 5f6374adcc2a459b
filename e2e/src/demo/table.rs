//! The tables that the demo prints at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use slipway_crds::v1alpha1::{RolloutRecord, StepRecord};

use crate::world::LoadAccount;

/// One rollout.
pub(super) struct RolloutRow {
    /// The rollout's record in the status.
    pub(super) record: RolloutRecord,
    /// Requests that went to the new version.
    pub(super) requests: usize,
    /// Time from the first request that the new version answered badly to the last request that it
    /// received.
    pub(super) after_bad: Option<Duration>,
    /// Time from the decision to abort to the last request that the new version received.
    pub(super) after_abort: Option<Duration>,
}

pub(super) fn print_rollouts(rows: &[RolloutRow]) {
    println!("\n=== rollouts");
    for row in rows {
        let record = &row.record;
        let took = format_seconds(record.start_time.0, Some(record.end_time.0));
        println!(
            "\n{}: {:?} ({}) after {took}, {} requests went to it",
            record.version, record.outcome, record.reason, row.requests
        );
        if !record.message.is_empty() {
            println!("  why: {}", record.message);
        }
        println!(
            "  {:>6} {:>9} {:>9} {:>9} {:>9}  verdict",
            "asked", "observed", "set at", "confirmed", "took"
        );
        for step in &record.steps {
            println!("  {}", format_step(record, step));
        }
        let show = |time: Option<Duration>| {
            time.map_or("-".to_owned(), |time| format!("{} ms", time.as_millis()))
        };
        if row.after_abort.is_some() {
            println!(
                "  last request at it: {} after the abort, {} after the first bad evidence",
                show(row.after_abort),
                show(row.after_bad)
            );
        }
    }
}

fn format_step(record: &RolloutRecord, step: &StepRecord) -> String {
    let percent = |permille: i32| format!("{:.1} %", f64::from(permille) / 10.0);
    format!(
        "{:>6} {:>9} {:>9} {:>9} {:>9}  {}",
        percent(step.weight_permille),
        step.observed_permille.map_or("-".to_owned(), percent),
        format_seconds(record.start_time.0, Some(step.set_time.0)),
        format_seconds(step.set_time.0, step.confirmed_time.as_ref().map(|time| time.0)),
        format_seconds(step.set_time.0, step.end_time.as_ref().map(|time| time.0)),
        step.verdict,
    )
}

fn format_seconds(from: Timestamp, to: Option<Timestamp>) -> String {
    to.map_or("-".to_owned(), |to| format!("{:.1} s", to.duration_since(from).as_secs_f64()))
}

/// Prints the account of requests.
pub(super) fn print_account(
    name: &str,
    account: &LoadAccount,
    versions: &BTreeMap<String, String>,
) {
    println!(
        "\n=== requests at {name}: {} sent, {} answered, {} failed",
        account.sent, account.answered, account.failed
    );
    println!(
        "  {:<12} {:<12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "version", "revision", "answered", "correct", "shielded", "p50 ms", "p95 ms", "p99 ms"
    );
    for (revision, it) in &account.by_revision {
        let version = versions.get(revision).map_or("?", String::as_str);
        let correct = if it.answered > 0 {
            format!("{:.1} %", 100.0 * it.correct as f64 / it.answered as f64)
        } else {
            "-".into()
        };
        let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
        println!(
            "  {version:<12} {revision:<12} {:>9} {correct:>9} {:>9} {:>9} {:>9} {:>9}",
            it.answered,
            it.shielded,
            show(it.latency_ms.p50),
            show(it.latency_ms.p95),
            show(it.latency_ms.p99)
        );
    }
    for (reason, count) in &account.failed_by_reason {
        println!("  failed: {count} {reason}");
    }
    println!(
        "  labels sent back: {}, accepted: {}",
        account.feedback.sent, account.feedback.accepted
    );
}
