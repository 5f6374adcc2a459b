//! Evidence: the queries for the metrics poller, and its readings.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What the poller reads at each interval, as long as plans contain this request. Two equal
/// requests are the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRequest {
    /// Generation of the weights to judge.
    pub generation: i64,
    /// Start of the window: the confirmation of that generation.
    pub since: Timestamp,
    /// Seconds between two readings.
    pub interval_seconds: i32,
    /// Queries by gate. The poller replaces `{{window}}` with the age of `since` at the time of
    /// the reading, in whole seconds (`37s`).
    pub gates: Vec<GateQueries>,
}

/// The queries of one gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateQueries {
    pub gate: String,
    pub queries: EvidenceQuery,
}

/// The forms of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvidenceQuery {
    /// A vector with the labels `revision` and `result`; `result` is `bad` or `good`. Results in
    /// [`GateReading::Counts`].
    Counts(String),
    /// A vector with the labels `revision` and `le`: cumulative buckets. Results in
    /// [`GateReading::Buckets`].
    Buckets(String),
    /// Exactly one number. Results in [`GateReading::Value`].
    Value(String),
}

/// One reading of all gates.
#[derive(Clone, Debug, PartialEq)]
pub struct GateEvidence {
    /// Generation of the request. Evidence of another generation is never used.
    pub generation: i64,
    /// Time at which the queries were evaluated.
    pub taken_at: Timestamp,
    /// Number of the reading, which increases with every reading.
    pub serial: u64,
    pub gates: BTreeMap<String, GateReading>,
}

/// The reading of one gate.
#[derive(Clone, Debug, PartialEq)]
pub enum GateReading {
    /// Events by revision.
    Counts(BTreeMap<String, GateCounts>),
    /// Cumulative buckets by revision, as (upper bound in seconds, count), ascending, the last
    /// bound infinite.
    Buckets(BTreeMap<String, Vec<(f64, f64)>>),
    /// One number; may be NaN or infinite, which neither passes nor fails.
    Value(f64),
    /// The provider responded without usable data; contains the reason.
    NoData(String),
    /// The provider was unreachable, rejected the query, or took too long; contains the reason.
    ProviderDown(String),
}

/// Events of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GateCounts {
    /// Events that count against the arm (failed requests, wrong predictions).
    pub bad: f64,
    /// All other events.
    pub good: f64,
}
