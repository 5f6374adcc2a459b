//! Whether rows of different requests run together, and why.
//!
//! By default only those of a model that is proven to keep rows apart: by its graph, which shows it
//! for every input (`slipway-onnx`), and by a trial at load.

mod trial;

use std::path::Path;

use clap::ValueEnum;

use crate::session::OnnxEngine;
use crate::signature::ModelSignature;

/// Who decides whether requests run together (`spec.model.batching`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum BatchingMode {
    /// The server: where it is proven that the model keeps rows apart.
    #[default]
    Auto,
    /// The owner of the model, who says that the first axis is one of independent rows.
    Enabled,
    /// The owner of the model, who wants every request to run alone.
    Disabled,
}

/// What led to a decision; a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchingCause {
    /// The graph and the trial show that rows are independent.
    Proven,
    /// The owner says so.
    Enabled,
    /// The owner does not want it, or batches of one row are asked for.
    Disabled,
    /// There is no first axis that all inputs and outputs share.
    NoBatchAxis,
    /// The graph does not show it.
    NotProven,
    /// The trial shows that rows change in company.
    TrialDiffers,
    /// Zeros in a batch do not come back row by row.
    OutputsDiffer,
}

impl BatchingCause {
    /// Its name in metrics and metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::NoBatchAxis => "no_batch_axis",
            Self::NotProven => "not_proven",
            Self::TrialDiffers => "trial_differs",
            Self::OutputsDiffer => "outputs_differ",
        }
    }
}

/// Whether requests of a model run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchingDecision {
    /// Whether they do.
    pub merged: bool,
    /// What led to it.
    pub cause: BatchingCause,
    /// The reason in words for the owner of the model.
    pub reason: String,
}

impl BatchingDecision {
    fn unmerged(cause: BatchingCause, reason: impl Into<String>) -> Self {
        Self { merged: false, cause, reason: reason.into() }
    }

    fn merged(cause: BatchingCause, reason: impl Into<String>) -> Self {
        Self { merged: true, cause, reason: reason.into() }
    }

    /// The decision after a batch that came back with another number of rows than it had.
    #[must_use]
    pub fn without_merging(self) -> Self {
        if !self.merged {
            return self;
        }
        Self::unmerged(
            BatchingCause::OutputsDiffer,
            "the outputs of a batch do not have one row for each row of the inputs",
        )
    }
}

/// Decides for the model in `file`, whose batches have at most `max_rows` rows.
pub fn decide_batching(
    mode: BatchingMode,
    file: &Path,
    signature: &ModelSignature,
    engine: &mut OnnxEngine,
    max_rows: usize,
) -> BatchingDecision {
    if mode == BatchingMode::Disabled {
        return BatchingDecision::unmerged(
            BatchingCause::Disabled,
            "spec.model.batching is Disabled (--batching)",
        );
    }
    if max_rows < 2 {
        return BatchingDecision::unmerged(
            BatchingCause::Disabled,
            "a batch has at most one row (--max-batch-rows)",
        );
    }
    if !signature.may_batch() {
        let reason = "its inputs have no open first axis in common, or an output has no axis";
        return BatchingDecision::unmerged(BatchingCause::NoBatchAxis, reason);
    }
    if mode == BatchingMode::Enabled {
        return merge_as_requested(signature, engine);
    }
    let proven = slipway_onnx::read_model(file).map_err(|error| error.to_string());
    if let Err(reason) =
        proven.and_then(|model| slipway_onnx::independence::prove_row_independence(&model))
    {
        return BatchingDecision::unmerged(BatchingCause::NotProven, reason);
    }
    match trial::run_trial(signature, engine) {
        Ok(()) => BatchingDecision::merged(
            BatchingCause::Proven,
            "the graph and a trial at load show that rows are independent",
        ),
        Err(reason) => BatchingDecision::unmerged(BatchingCause::TrialDiffers, reason),
    }
}

/// The owner's word counts, also against the trial, which may be wrong about what is close enough;
/// but it is told.
fn merge_as_requested(signature: &ModelSignature, engine: &mut OnnxEngine) -> BatchingDecision {
    let asked = "spec.model.batching is Enabled (--batching)";
    match trial::run_trial(signature, engine) {
        Ok(()) => BatchingDecision::merged(BatchingCause::Enabled, asked),
        Err(reason) => {
            tracing::warn!(
                reason,
                "requests are merged as asked for, although a trial at load speaks against it"
            );
            BatchingDecision::merged(
                BatchingCause::Enabled,
                format!("{asked}, although a trial at load speaks against it: {reason}"),
            )
        }
    }
}
