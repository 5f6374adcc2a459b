//! The load generator's account of every request, as tests and the demo read it.

use std::collections::BTreeMap;

use anyhow::ensure;
use jiff::Timestamp;
use serde::Deserialize;

/// The account of all requests so far.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadAccount {
    /// Requests that were sent.
    pub sent: u64,
    /// Requests with a well-formed answer.
    pub answered: u64,
    /// Requests without a well-formed answer.
    pub failed: u64,
    /// Requests that wait for their answer.
    pub in_flight: u64,
    /// Requests that were due and never sent.
    pub skipped: u64,
    /// Answers that agree with the label.
    pub correct: u64,
    /// Answers of stable in place of a candidate.
    pub shielded: u64,
    /// Number of failures by reason.
    pub failed_by_reason: BTreeMap<String, u64>,
    /// By the revision that answered.
    pub by_revision: BTreeMap<String, RevisionAccount>,
    /// Labels sent as feedback.
    pub feedback: FeedbackAccount,
}

/// The account of one revision.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionAccount {
    pub answered: u64,
    /// Failures attributed to this revision.
    pub failed: u64,
    /// Answers that agree with the label.
    pub correct: u64,
    /// Answers of this revision in place of another.
    pub stood_in: u64,
    /// Answers of another revision in place of this one.
    pub shielded: u64,
    /// When the latest request was sent that this revision answered.
    pub last_sent_at: Option<Timestamp>,
    pub latency_ms: LatencyPercentiles,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct LatencyPercentiles {
    /// Median.
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

/// Labels sent as feedback.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct FeedbackAccount {
    pub sent: u64,
    /// Accepted by the runtime.
    pub accepted: u64,
    /// Rejected by the runtime.
    pub rejected: u64,
}

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SingleRequest {
    /// When the request was sent.
    pub sent_at: Timestamp,
    /// The revision that answered.
    pub revision: Option<String>,
    /// The candidate in whose place stable answered.
    pub shielded: Option<String>,
    /// Whether the answer agrees with the label.
    pub correct: Option<bool>,
    /// Why the request failed.
    pub failed: Option<String>,
}

impl SingleRequest {
    /// Whether the gateway sent it to `revision` first, whichever revision answered in the end.
    pub fn went_to(&self, revision: &str) -> bool {
        self.revision.as_deref() == Some(revision) || self.shielded.as_deref() == Some(revision)
    }

    /// Whether it is evidence against `revision`: it failed there, or the answer was wrong.
    pub fn blames(&self, revision: &str) -> bool {
        self.shielded.as_deref() == Some(revision)
            || self.revision.as_deref() == Some(revision)
                && (self.correct == Some(false) || self.failed.is_some())
    }
}

impl LoadAccount {
    /// Checks that every request has exactly one outcome, and that none of them is a failure.
    pub fn check_complete(&self) -> anyhow::Result<()> {
        ensure!(self.sent > 0, "no request was sent");
        ensure!(
            self.sent == self.answered + self.failed + self.in_flight,
            "requests are missing from the account: {self:?}"
        );
        let by_revision: u64 = self.by_revision.values().map(|revision| revision.answered).sum();
        ensure!(by_revision == self.answered, "answers without a revision: {self:?}");
        ensure!(
            self.failed == 0,
            "{} of {} requests failed: {:?}",
            self.failed,
            self.sent,
            self.failed_by_reason
        );
        Ok(())
    }

    /// The account of one revision; empty when it never answered.
    pub fn revision(&self, revision: &str) -> RevisionAccount {
        self.by_revision.get(revision).cloned().unwrap_or_default()
    }
}
