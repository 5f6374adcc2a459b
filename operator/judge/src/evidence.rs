//! Evidence: what the metrics poller brings, and what it is asked for.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What the poller shall read, once an interval, as long as a plan asks for it. Two equal requests
/// are the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRequest {
    /// Generation of the weights that it is about.
    pub generation: i64,
    /// Start of the window: confirmation of that generation.
    pub since: Timestamp,
    /// Seconds between two readings.
    pub interval_seconds: i32,
    /// Queries, by gate. `{{window}}` is replaced by the poller with the age of `since` at the
    /// time of the reading, in whole seconds (`37s`).
    pub gates: Vec<GateQueries>,
}

/// Queries of one gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateQueries {
    /// Name of the gate.
    pub gate: String,
    /// What is asked.
    pub queries: EvidenceQuery,
}

/// The shapes of question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvidenceQuery {
    /// A vector with the labels `revision` and `result`; `result` is `bad` or `good`. Yields
    /// [`GateReading::Counts`].
    Counts(String),
    /// A vector with the labels `revision` and `le`: cumulative buckets. Yields
    /// [`GateReading::Buckets`].
    Buckets(String),
    /// Exactly one number. Yields [`GateReading::Value`].
    Value(String),
}

/// One reading of all gates.
#[derive(Clone, Debug, PartialEq)]
pub struct GateEvidence {
    /// Generation of the request that it answers. Evidence of another generation is never used.
    pub generation: i64,
    /// When the queries were evaluated.
    pub taken_at: Timestamp,
    /// Grows with every reading: tells one look from the next.
    pub serial: u64,
    /// Readings by gate.
    pub gates: BTreeMap<String, GateReading>,
}

/// What came back for one gate.
#[derive(Clone, Debug, PartialEq)]
pub enum GateReading {
    /// Events by revision.
    Counts(BTreeMap<String, GateCounts>),
    /// Cumulative buckets by revision, as (upper bound in seconds, count), ascending, the last
    /// bound infinite.
    Buckets(BTreeMap<String, Vec<(f64, f64)>>),
    /// One number; may be NaN or infinite, which never passes and never fails.
    Value(f64),
    /// The provider answered, with nothing usable; says what.
    NoData(String),
    /// The provider could not be reached, refused, or took too long; says what.
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
