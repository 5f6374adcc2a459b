//! The path from tensors to a prediction, shared by all protocols.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use slipway_chassis::telemetry;
use slipway_prediction_id::{MAX_ROWS, PredictionReport};
use slipway_runtime_cache::{CacheOutcome, RuntimeCaches};
use slipway_runtime_common::keys::DeploymentKeys;
use slipway_runtime_engine::batch::RequestPriority;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_engine::pool::InferenceResult;
use slipway_runtime_engine::tensor::Tensor;

use crate::metrics::RuntimeMetrics;
use crate::models::{LoadedModel, ModelRegistry};
use crate::samples::PayloadSampler;

/// Default limit of the rows of one request.
const DEFAULT_REQUEST_ROWS: u32 = 4096;

/// The result of a prediction.
#[derive(Debug)]
pub struct Prediction {
    /// All outputs, in the signature's order.
    pub outputs: Vec<Tensor>,
    /// The report for the issuer of prediction ids.
    pub report: PredictionReport,
    /// How the result cache was involved, if there is one.
    pub cache: Option<CacheOutcome>,
    /// Number of outputs that hold a NaN.
    pub nan_outputs: usize,
}

/// The models and everything that a prediction needs: shared by REST, gRPC and jobs.
#[derive(Debug)]
pub struct Predictor {
    /// The models, each once it is loaded and warm.
    pub models: ModelRegistry,
    pub caches: RuntimeCaches,
    pub metrics: RuntimeMetrics,
    /// Takes samples, if they are configured.
    pub sampler: OnceLock<PayloadSampler>,
    /// The keys of the namespace.
    pub keys: Arc<DeploymentKeys>,
    /// Configured limit of the rows of one request.
    pub max_request_rows: Option<u32>,
}

impl Predictor {
    /// Runs `inputs` (valid for the model's signature) and counts the result. Dropping the future
    /// cancels the request.
    ///
    /// # Errors
    /// `Invalid` for more rows than one request may have, `Overloaded` when the queue is full,
    /// `DeadlineExceeded`, and `ModelFailed` when the model fails.
    pub async fn predict(
        &self,
        model: &LoadedModel,
        inputs: Vec<Tensor>,
        deadline: Instant,
    ) -> Result<Prediction, PredictError> {
        self.predict_with_priority(model, inputs, deadline, RequestPriority::default()).await
    }

    /// Like [`Self::predict`], with a priority.
    ///
    /// # Errors
    /// As [`Self::predict`].
    pub async fn predict_with_priority(
        &self,
        model: &LoadedModel,
        inputs: Vec<Tensor>,
        deadline: Instant,
        priority: RequestPriority,
    ) -> Result<Prediction, PredictError> {
        let rows = model.signature.rows(&inputs);
        let binned = model.observer.as_ref().map(|observer| observer.bin_inputs(&inputs, rows));
        let sampler = self.sampler.get();
        let sampled = sampler.and_then(|sampler| sampler.sample_inputs(&inputs));
        let run = async |inputs| self.run_timed(model, inputs, deadline, priority).await;
        let (outputs, cache) = match &self.caches.results {
            Some(cache) => {
                let answer = Box::pin(cache.get_or_run(
                    &model.digest,
                    &model.signature,
                    inputs,
                    deadline,
                    run,
                ))
                .await?;
                if let Some(found) = answer.outcome.and_then(CacheOutcome::found) {
                    model.stats.record_cache_lookup(found, answer.lookup);
                }
                (answer.outputs, answer.outcome)
            }
            None => (run(inputs).await?.outputs, None),
        };
        // A cached answer is a prediction like any other: it is counted, and has its own id and
        // sample number.
        let predictions = model.reader.read(&outputs);
        self.metrics.record_predictions(&predictions);
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

    /// Runs the model. Only runs are timed: the inference time by which a revision is judged must
    /// not depend on its cache hits.
    async fn run_timed(
        &self,
        model: &LoadedModel,
        inputs: Vec<Tensor>,
        deadline: Instant,
        priority: RequestPriority,
    ) -> Result<InferenceResult, PredictError> {
        let done = run_untimed(model, inputs, deadline, priority).await?;
        self.metrics.record_durations(done.queued, done.inference);
        model.stats.record_inference(done.queued, done.inference);
        Ok(done)
    }

    /// Rejects requests of too many rows. The check is cheap, so it runs before the request is
    /// queued.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn check_rows(&self, model: &LoadedModel, inputs: &[Tensor]) -> Result<(), PredictError> {
        let (rows, most) = (model.signature.rows(inputs), self.max_rows(model.batching.merged));
        if rows > most {
            return Err(PredictError::invalid(format!(
                "the request has {rows} rows; send at most {most} in one (--max-request-rows)"
            )));
        }
        Ok(())
    }

    /// The largest number of rows of one request, for a model whose first axis is known to be one
    /// of rows or not.
    pub fn max_rows(&self, known: bool) -> usize {
        let default = if known { DEFAULT_REQUEST_ROWS } else { u32::MAX };
        self.max_request_rows.unwrap_or(default) as usize
    }
}

/// Runs the model without counting it.
pub(crate) async fn run_untimed(
    model: &LoadedModel,
    inputs: Vec<Tensor>,
    deadline: Instant,
    priority: RequestPriority,
) -> Result<InferenceResult, PredictError> {
    let rows = model.signature.rows(&inputs);
    let answer = model.pool.run(inputs, rows, deadline, priority);
    let span = || slipway_chassis::span!("inference", model = model.name, rows);
    telemetry::run_in_span(span, answer).await
}
