//! The one way from tensors to a prediction, whatever protocol they came by.

use std::time::Instant;

use slipway_prediction_id::{MAX_ROWS, PredictionReport};

use crate::batch::RequestPriority;
use crate::cache;
use crate::error::ApiError;
use crate::models::LoadedModel;
use crate::pool::InferenceResult;
use crate::server::AppState;
use crate::tensor::Tensor;

/// What a model said.
#[derive(Debug)]
pub struct Prediction {
    /// All outputs, in the signature's order.
    pub outputs: Vec<Tensor>,
    /// What whoever issues prediction ids is told of it.
    pub report: PredictionReport,
    /// How the result cache was involved, when there is one.
    pub cache: Option<cache::CacheOutcome>,
    /// How many outputs hold a NaN.
    pub nan_outputs: usize,
}

/// Runs `inputs` (valid for the model's signature) and counts what came out. Dropping the future
/// takes the request back.
///
/// # Errors
/// `BadRequest` for more rows than one request may have, `Busy` when the queue is full, `Deadline`,
/// and `Internal` when the model fails.
pub async fn make_prediction(
    app: &AppState,
    model: &LoadedModel,
    inputs: Vec<Tensor>,
    deadline: Instant,
) -> Result<Prediction, ApiError> {
    predict_with_priority(app, model, inputs, deadline, RequestPriority::default()).await
}

/// [`make_prediction`] at a priority of its own.
///
/// # Errors
/// As [`make_prediction`].
pub async fn predict_with_priority(
    app: &AppState,
    model: &LoadedModel,
    inputs: Vec<Tensor>,
    deadline: Instant,
    priority: RequestPriority,
) -> Result<Prediction, ApiError> {
    let rows = model.signature.rows(&inputs);
    let binned = model.observer.as_ref().map(|observer| observer.bin_inputs(&inputs, rows));
    let sampler = app.sampler.get();
    let sampled = sampler.and_then(|sampler| sampler.sample_inputs(&inputs));
    let run = async |inputs| run_timed(app, model, inputs, deadline, priority).await;
    let (outputs, cache) = match &app.caches.results {
        Some(cache) => {
            let answer = Box::pin(cache.get_or_run(model, inputs, deadline, run)).await?;
            (answer.outputs, answer.outcome)
        }
        None => (run(inputs).await?.outputs, None),
    };
    // A kept answer is a prediction like any other: it is counted, and has an id and a sample
    // number of its own.
    let predictions = model.reader.read(&outputs);
    app.metrics.record_predictions(&predictions);
    if let (Some(observer), Some(binned)) = (&model.observer, binned) {
        observer.count_request(&binned, &outputs, &predictions, rows);
    }
    let nan_outputs = predictions.nan;
    let mut labels = predictions.labels;
    labels.truncate(MAX_ROWS);
    let report = PredictionReport { sample: rand::random(), labels };
    if let (Some(sampler), Some(sampled)) = (sampler, sampled) {
        sampler.offer(sampled, &report.sample_text(), &model.name, &model.signature, &outputs);
    }
    Ok(Prediction { outputs, report, cache, nan_outputs })
}

/// Runs the model. Only what runs is timed: whoever judges a revision by its inference time must
/// not see how well its answers are kept.
async fn run_timed(
    app: &AppState,
    model: &LoadedModel,
    inputs: Vec<Tensor>,
    deadline: Instant,
    priority: RequestPriority,
) -> Result<InferenceResult, ApiError> {
    let done = run_untimed(model, inputs, deadline, priority).await?;
    app.metrics.record_durations(done.queued, done.inference);
    model.stats.record_inference(done.queued, done.inference);
    Ok(done)
}

/// Runs the model, and leaves no trace of it.
pub(crate) async fn run_untimed(
    model: &LoadedModel,
    inputs: Vec<Tensor>,
    deadline: Instant,
    priority: RequestPriority,
) -> Result<InferenceResult, ApiError> {
    let rows = model.signature.rows(&inputs);
    let answer = model.pool.run(inputs, rows, deadline, priority);
    let span = || slipway_telemetry::span!("inference", model = model.name, rows);
    slipway_telemetry::run_in_span(span, answer).await
}

/// Refuses requests of too many rows; cheap, so that they are refused before they wait.
///
/// # Errors
/// `BadRequest`.
pub fn check_rows(app: &AppState, model: &LoadedModel, inputs: &[Tensor]) -> Result<(), ApiError> {
    let (rows, most) = (model.signature.rows(inputs), app.args.request_rows(model.batching.merged));
    if rows > most {
        return Err(ApiError::bad_request(format!(
            "the request has {rows} rows; send at most {most} in one (--max-request-rows)"
        )));
    }
    Ok(())
}
