//! Loads a model in the same way as the model server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use slipway_baseline::BaselineTensorSpec;
use slipway_runtime_engine::batching::{self, BatchingMode};
use slipway_runtime_engine::error::LoadErrorReason;
use slipway_runtime_engine::fetch::{self, FetchOptions};
use slipway_runtime_engine::session::{self, OnnxEngine};
use slipway_runtime_engine::tensor::{Tensor, TensorData};
use slipway_runtime_predict::observe::{ScoreRows, golden, regression_output};
use slipway_runtime_predict::prediction::{OutputReader, PredictedLabel};

use crate::progress::ProgressReporter;

/// Number of rows that run at once.
const BATCH_ROWS: usize = 256;
/// Largest model that is loaded, in bytes.
const MAX_MODEL_BYTES: u64 = 4 << 30;

/// A loaded model.
#[derive(Debug)]
pub(crate) struct LocalModel {
    pub(crate) engine: OnnxEngine,
    pub(crate) digest: String,
    pub(crate) inputs: Vec<BaselineTensorSpec>,
    pub(crate) outputs: Vec<BaselineTensorSpec>,
    /// Whether rows run together.
    pub(crate) batchable: bool,
    reader: OutputReader,
}

/// The model's predictions for many rows.
#[derive(Debug, Default)]
pub(crate) struct ModelPredictions {
    /// Labels by row; empty for a model without labels.
    pub(crate) labels: Vec<Option<String>>,
    /// Highest probabilities by row; NaN where the scores are not probabilities. Empty for a model
    /// without scores.
    pub(crate) scores: Vec<f64>,
    /// Values of a regression by row.
    pub(crate) values: Vec<f64>,
}

impl LocalModel {
    /// Loads the model at `uri`.
    pub(crate) fn load(uri: &str, library: Option<&Path>) -> Result<Self> {
        let library =
            library.map_or_else(|| PathBuf::from("/usr/lib/libonnxruntime.so"), Path::to_owned);
        let cache = std::env::temp_dir().join("kubectl-slipway");
        let options = FetchOptions {
            cache_dir: cache,
            volume_root: PathBuf::from("/mnt/models"),
            max_bytes: MAX_MODEL_BYTES,
            timeout: Duration::from_secs(600),
            attempts: 3,
            external_data: true,
        };
        let uri = if uri.contains("://") {
            uri.to_owned()
        } else {
            std::path::absolute(uri)?.display().to_string()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let fetched = runtime
            .block_on(fetch::fetch_model(&uri, "", &options))
            .map_err(|e| anyhow!(e.message))?;
        let mut engines =
            session::load_engines(&library, &fetched.path, 1, 1, None).map_err(|e| {
                match e.reason {
                    LoadErrorReason::LoadFailed => anyhow!("{} (--onnxruntime)", e.message),
                    _ => anyhow!("{uri}: {}", e.message),
                }
            })?;
        let mut engine = engines.pop().context("the model has no session")?;
        let signature = &engine.signature().clone();
        // A model that mixes rows runs row by row, as it does in the model server.
        let batching = batching::decide_batching(
            BatchingMode::Auto,
            &fetched.path,
            signature,
            &mut engine,
            BATCH_ROWS,
        );
        let specs = |all: &[slipway_runtime_engine::signature::TensorSignature]| {
            all.iter().map(golden::baseline_spec).collect::<Vec<_>>()
        };
        let (inputs, outputs) = (specs(&signature.inputs), specs(&signature.outputs));
        let (batches, reader) = (batching.merged, OutputReader::new(signature));
        Ok(Self { engine, digest: fetched.digest, inputs, outputs, batchable: batches, reader })
    }

    pub(crate) fn predict_row(
        &mut self,
        inputs: &[Tensor],
        row: usize,
    ) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let inputs: Vec<_> = inputs.iter().map(|t| t.slice_rows(row, 1)).collect();
        let outputs = self.run(inputs.clone(), row)?;
        Ok((inputs, outputs))
    }

    fn run(&mut self, inputs: Vec<Tensor>, row: usize) -> Result<Vec<Tensor>> {
        self.engine
            .run(inputs)
            .map_err(|e| anyhow!("the model fails at row {}: {}", row + 1, e.message))
    }

    pub(crate) fn predict_all(
        &mut self,
        inputs: &[Tensor],
        rows: usize,
    ) -> Result<ModelPredictions> {
        let mut answers = ModelPredictions::default();
        let regression = regression_output(self.engine.signature(), self.reader);
        let mut progress = ProgressReporter::new("running the model");
        let (mut row, size) = (0, if self.batchable { BATCH_ROWS } else { 1 });
        while row < rows {
            let count = size.min(rows - row);
            let outputs =
                self.run(inputs.iter().map(|t| t.slice_rows(row, count)).collect(), row)?;
            self.collect_predictions(&outputs, regression, &mut answers);
            row += count;
            let seen = answers.labels.len().max(answers.values.len()).max(answers.scores.len());
            if seen != 0 && seen != row {
                bail!(
                    "the model gives {seen} predictions for {row} rows; only models that predict row by row have a baseline"
                );
            }
            progress.update(row, Some(rows));
        }
        Ok(answers)
    }

    fn collect_predictions(
        &self,
        outputs: &[Tensor],
        regression: Option<usize>,
        answers: &mut ModelPredictions,
    ) {
        let predictions = self.reader.read(outputs);
        answers
            .labels
            .extend(predictions.labels.iter().map(|l| l.as_ref().map(PredictedLabel::to_string)));
        if let Some(scores) = self.reader.score_output().and_then(|i| outputs.get(i)) {
            answers.scores.extend(
                ScoreRows::from_tensor(scores).map(|row| row.probability.map_or(f64::NAN, |p| p.0)),
            );
        }
        match regression.and_then(|i| outputs.get(i)).map(|t| &t.data) {
            Some(TensorData::F32(v)) => answers.values.extend(v.iter().map(|x| f64::from(*x))),
            Some(TensorData::F64(v)) => answers.values.extend(v),
            _ => {}
        }
    }
}
