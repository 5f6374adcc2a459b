//! The account for people and scripts: JSON, a table, metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use crate::account::{RequestAccount, RequestRecord, RevisionCounts};
use crate::histogram::LatencyHistogram;

/// The whole account.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountSummary {
    pub(crate) started_at: String,
    pub(crate) at: String,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) in_flight: u64,
    /// Due but not sent: too many were waiting for a connection. Not part of `sent`.
    pub(crate) skipped: u64,
    pub(crate) correct: u64,
    pub(crate) shielded: u64,
    pub(crate) failed_by_reason: BTreeMap<String, u64>,
    pub(crate) latency_ms: LatencyQuantiles,
    pub(crate) by_revision: BTreeMap<String, RevisionSummary>,
    pub(crate) feedback: FeedbackSummary,
}

/// The counts of one revision; the empty name stands for answers without the header.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RevisionSummary {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) correct: u64,
    /// Answers of this revision in place of another.
    pub(crate) stood_in: u64,
    /// Answers of another revision in place of this one.
    pub(crate) shielded: u64,
    pub(crate) first_seen: Option<String>,
    pub(crate) last_seen: Option<String>,
    /// When the latest request was sent that this revision answered.
    pub(crate) last_sent_at: Option<String>,
    pub(crate) latency_ms: LatencyQuantiles,
}

/// Milliseconds since the request was due.
#[derive(Debug, Serialize)]
pub(crate) struct LatencyQuantiles {
    pub(crate) p50: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// Counts of feedback, in labels.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FeedbackSummary {
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) dropped: u64,
    pub(crate) failed: u64,
    pub(crate) failed_by_reason: BTreeMap<String, u64>,
}

/// One request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestLine<'a> {
    pub(crate) id: String,
    pub(crate) sent_at: String,
    pub(crate) answered_at: String,
    /// How long it waited for a connection; part of `latencyMs`.
    pub(crate) late_ms: f64,
    pub(crate) latency_ms: f64,
    pub(crate) status: u16,
    pub(crate) revision: Option<&'a str>,
    pub(crate) shielded: Option<&'a str>,
    pub(crate) correct: Option<bool>,
    pub(crate) failed: Option<String>,
}

impl AccountSummary {
    /// The current state of the account.
    pub(crate) fn from_account(account: &RequestAccount) -> Self {
        let at = account.wall_micros(Instant::now());
        let (started, counts) = account.snapshot();
        let by_reason = |reasons: &BTreeMap<_, u64>| -> BTreeMap<String, u64> {
            reasons
                .iter()
                .map(|(reason, count): (&crate::reason::FailureReason, _)| {
                    (reason.to_string(), *count)
                })
                .collect()
        };
        let name = |index: &u16| counts.names.get(usize::from(*index)).cloned().unwrap_or_default();
        let feedback = &counts.feedback;
        Self {
            started_at: format_rfc3339(started),
            at: format_rfc3339(at),
            sent: counts.sent,
            answered: counts.answered,
            failed: counts.failure_count(),
            in_flight: counts.in_flight,
            skipped: counts.skipped,
            correct: counts.correct,
            shielded: counts.revisions.values().map(|revision| revision.shielded).sum(),
            failed_by_reason: by_reason(&counts.failed),
            latency_ms: LatencyQuantiles::from_histogram(&counts.latency),
            by_revision: counts
                .revisions
                .iter()
                .map(|(index, revision)| (name(index), revision.into()))
                .collect(),
            feedback: FeedbackSummary {
                sent: feedback.sent,
                accepted: feedback.accepted,
                rejected: feedback.rejected,
                dropped: feedback.dropped,
                failed: feedback.failed.values().sum(),
                failed_by_reason: by_reason(&feedback.failed),
            },
        }
    }

    /// A table for a terminal.
    pub(crate) fn to_table(&self) -> String {
        let mut text = format!(
            "sent {}  answered {}  failed {}  in flight {}  skipped {}  correct {}  shielded {}\n",
            self.sent,
            self.answered,
            self.failed,
            self.in_flight,
            self.skipped,
            self.correct,
            self.shielded
        );
        for (reason, count) in &self.failed_by_reason {
            let _ = writeln!(text, "  failed {reason}: {count}");
        }
        let _ = writeln!(
            text,
            "{:<14}{:>9}{:>8}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "REVISION",
            "ANSWERED",
            "FAILED",
            "CORRECT",
            "STOOD IN",
            "SHIELDED",
            "P50 MS",
            "P95 MS",
            "P99 MS"
        );
        let number =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        for (name, r) in &self.by_revision {
            let name = if name.is_empty() { "(no header)" } else { name };
            let latency = [r.latency_ms.p50, r.latency_ms.p95, r.latency_ms.p99].map(number);
            let _ = writeln!(
                text,
                "{name:<14}{:>9}{:>8}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}",
                r.answered,
                r.failed,
                r.correct,
                r.stood_in,
                r.shielded,
                latency[0],
                latency[1],
                latency[2]
            );
        }
        let f = &self.feedback;
        let _ = writeln!(
            text,
            "feedback: sent {}  accepted {}  rejected {}  failed {}  dropped {}",
            f.sent, f.accepted, f.rejected, f.failed, f.dropped
        );
        text
    }

    /// The text format of Prometheus.
    pub(crate) fn to_prometheus_text(&self) -> String {
        let mut text = String::from("# TYPE slipway_loadgen_requests_total counter\n");
        let _ = writeln!(
            text,
            "slipway_loadgen_requests_total{{outcome=\"answered\"}} {}",
            self.answered
        );
        for (reason, count) in &self.failed_by_reason {
            let _ =
                writeln!(text, "slipway_loadgen_requests_total{{outcome=\"{reason}\"}} {count}");
        }
        for (kind, name, value) in [
            ("counter", "slipway_loadgen_skipped_total", self.skipped),
            ("counter", "slipway_loadgen_feedback_accepted_total", self.feedback.accepted),
            ("gauge", "slipway_loadgen_in_flight", self.in_flight),
        ] {
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
        }
        text.push_str("# TYPE slipway_loadgen_answers_total counter\n");
        for (name, revision) in &self.by_revision {
            for (correct, count) in
                [("true", revision.correct), ("false", revision.answered - revision.correct)]
            {
                let labels = format!("{{revision=\"{name}\",correct=\"{correct}\"}}");
                let _ = writeln!(text, "slipway_loadgen_answers_total{labels} {count}");
            }
        }
        text
    }
}

impl From<&RevisionCounts> for RevisionSummary {
    fn from(revision: &RevisionCounts) -> Self {
        Self {
            answered: revision.answered,
            failed: revision.failed,
            correct: revision.correct,
            stood_in: revision.stood_in,
            shielded: revision.shielded,
            first_seen: revision.first_seen.map(format_rfc3339),
            last_seen: revision.last_seen.map(format_rfc3339),
            last_sent_at: revision.last_sent.map(format_rfc3339),
            latency_ms: LatencyQuantiles::from_histogram(&revision.latency),
        }
    }
}

impl LatencyQuantiles {
    fn from_histogram(histogram: &LatencyHistogram) -> Self {
        let quantile = |share| histogram.quantile(share).map(micros_to_millis);
        Self {
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: histogram.max().map(micros_to_millis),
        }
    }
}

impl<'a> RequestLine<'a> {
    /// `run` is the prefix of this run's ids.
    pub(crate) fn new(run: &str, record: &RequestRecord, names: &'a [String]) -> Self {
        let name = |index: u16| {
            names.get(usize::from(index)).map(String::as_str).filter(|name| !name.is_empty())
        };
        // Latency counts from the time at which the request was due, `late` before it was sent.
        let done = record.sent + i64::from(record.latency) - i64::from(record.late);
        Self {
            id: format!("{run}-{}", record.number),
            sent_at: format_rfc3339(record.sent),
            answered_at: format_rfc3339(done),
            late_ms: micros_to_millis(record.late),
            latency_ms: micros_to_millis(record.latency),
            status: record.status,
            revision: name(record.revision),
            shielded: name(record.shielded),
            correct: record.outcome.ok(),
            failed: record.outcome.err().map(|reason| reason.to_string()),
        }
    }
}

fn micros_to_millis(micros: u32) -> f64 {
    f64::from(micros) / 1000.0
}

/// RFC 3339 with milliseconds.
pub(crate) fn format_rfc3339(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map(|time| format!("{time:.3}")).unwrap_or_default()
}
