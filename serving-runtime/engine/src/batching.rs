//! Decides whether rows of different requests run together, and records why.
//!
//! By default this is the case only for a model that is proven to treat rows independently: by its
//! graph, which proves it for every input (`slipway-onnx`), and by a trial at load.

mod trial;

use std::path::Path;

use clap::ValueEnum;

use crate::session::OnnxEngine;
use crate::signature::ModelSignature;

/// Who decides whether requests run together (`spec.model.batching`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum BatchingMode {
    /// The server decides: requests run together where it is proven that the model treats rows
    /// independently.
    #[default]
    Auto,
    /// The model's owner decides: the first axis is one of independent rows, so requests run
    /// together.
    Enabled,
    /// The model's owner decides: every request runs alone.
    Disabled,
}

/// The cause of a [`BatchingDecision`]; a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchingCause {
    /// The graph and the trial show that rows are independent.
    Proven,
    /// The owner enabled batching.
    Enabled,
    /// The owner disabled batching or limited batches to one row.
    Disabled,
    /// No first axis is shared by all inputs and outputs.
    NoBatchAxis,
    /// The graph does not prove that rows are independent.
    NotProven,
    /// The trial shows that the result of a row depends on the other rows of its batch.
    TrialDiffers,
    /// The outputs for a batch of zeros do not have one row per input row.
    OutputsDiffer,
}

impl BatchingCause {
    /// The name in metrics and metadata.
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

/// Whether requests of a model run together, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchingDecision {
    pub merged: bool,
    pub cause: BatchingCause,
    /// The reason as a text for the owner of the model.
    pub reason: String,
}

impl BatchingDecision {
    fn unmerged(cause: BatchingCause, reason: impl Into<String>) -> Self {
        Self { merged: false, cause, reason: reason.into() }
    }

    fn merged(cause: BatchingCause, reason: impl Into<String>) -> Self {
        Self { merged: true, cause, reason: reason.into() }
    }

    /// The decision after a batch returned another number of rows than it was given.
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

/// Follows the owner's setting even when the trial contradicts it, because the trial's tolerance
/// may be wrong for the model. The contradiction is logged and becomes part of the reason.
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
