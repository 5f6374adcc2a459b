//! Loads a model: from a URI to warm sessions.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use slipway_runtime_engine::batching::{self, BatchingDecision, BatchingMode};
use slipway_runtime_engine::error::{LoadError, LoadErrorReason};
use slipway_runtime_engine::fetch::{self, FetchOptions, FetchRecord};
use slipway_runtime_engine::memory::SessionMemory;
use slipway_runtime_engine::pool::{PoolOptions, WorkerPool};
use slipway_runtime_engine::session::{self, OnnxEngine, OptimizedGraphCache};
use slipway_runtime_engine::stats::ModelStats;

use crate::models::LoadedModel;
use crate::observe::{Observer, golden};
use crate::prediction::OutputReader;

/// How models are built from their files.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// The path of ONNX Runtime's shared library.
    pub onnxruntime: PathBuf,
    /// Threads that run the model, each with its own session.
    pub workers: usize,
    /// Threads within one run of the model.
    pub intra_op_threads: usize,
    /// Memory available to the sessions of the model, in bytes; by default the free memory.
    pub max_memory_bytes: Option<u64>,
    /// Largest number of rows of a merged batch.
    pub max_batch_rows: usize,
    /// Whether requests may run together.
    pub batching: BatchingMode,
    /// Largest number of waiting requests.
    pub queue_capacity: usize,
    /// Largest number of features of a baseline whose bins are exported.
    pub max_features: usize,
    /// Names of the features to export; if empty, the first ones of the baseline.
    pub features: Vec<String>,
}

/// The location of the pod's own model, and how it is built.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The model's name in the protocol.
    pub name: String,
    /// The model's version in the protocol.
    pub version: String,
    pub uri: String,
    /// `sha256:<hex>` of the model; empty when not pinned.
    pub digest: String,
    /// The record that the pod's fetch step wrote.
    pub fetched_record: Option<PathBuf>,
    /// Directory of the optimised graph; `None` when it is not cached.
    pub optimised_dir: Option<PathBuf>,
    /// The URI of the baseline; empty for none.
    pub baseline: String,
    /// `sha256:<hex>` of the baseline; empty when not pinned.
    pub baseline_digest: String,
    /// Limits of the download.
    pub fetch: FetchOptions,
    pub build: BuildOptions,
}

/// Fetches, verifies, loads and warms the model. Blocks, so it needs a thread of its own.
pub fn load_model(options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    // Writing and hashing block, so the download has its own runtime on this thread; the probes are
    // answered by another one meanwhile.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| {
        LoadError::transient(
            LoadErrorReason::LoadFailed,
            format!("no runtime for the download: {e}"),
        )
    })?;
    let (path, digest) = runtime.block_on(fetch_or_reuse(options))?;
    tracing::info!(path = %path.display(), digest, "the model file is here");
    let baseline = fetch_baseline(options, &runtime)?;
    let (name, version) = (options.name.clone(), options.version.clone());
    let optimised_dir = options.optimised_dir.clone();
    build_model(
        &options.build,
        ModelArtifact { name, version, path, digest, bytes: 0, baseline, optimised_dir },
    )
}

/// The model's file and its digest, as the pod's fetch step recorded them, or fetched here.
async fn fetch_or_reuse(options: &LoadOptions) -> Result<(PathBuf, String), LoadError> {
    let record =
        options.fetched_record.as_deref().and_then(|file| FetchRecord::read(file, &options.uri));
    // The pod serves what the fetch step fetched, even if the URI has other content by now.
    let record =
        record.filter(|record| options.digest.is_empty() || options.digest == record.digest());
    if let Some(record) = &record
        && let Some(path) = record.unchanged_path()
    {
        return Ok((path.to_owned(), record.digest().to_owned()));
    }
    let pin = record.as_ref().map_or(options.digest.as_str(), FetchRecord::digest);
    let fetched = fetch::fetch_model(&options.uri, pin, &options.fetch).await?;
    Ok((fetched.path, fetched.digest))
}

/// A model file with the model's name, version and properties.
#[derive(Debug, Clone)]
pub struct ModelArtifact {
    /// The model's name in the protocol.
    pub name: String,
    /// The model's version in the protocol.
    pub version: String,
    pub path: PathBuf,
    /// `sha256:<hex>` of the model, including weights next to its file.
    pub digest: String,
    /// Memory of the model in bytes; 0 when it is unknown.
    pub bytes: u64,
    /// The file of the model's baseline, if it has one.
    pub baseline: Option<PathBuf>,
    /// Directory of the optimised graph; `None` when it is not cached.
    pub optimised_dir: Option<PathBuf>,
}

/// Loads and warms a model from its file. Blocks.
///
/// # Errors
/// `InvalidModel` or `LoadFailed`, with the reason.
pub fn build_model(
    options: &BuildOptions,
    artifact: ModelArtifact,
) -> Result<LoadedModel, LoadError> {
    let ModelArtifact { name, version, path, digest, bytes, baseline, optimised_dir } = artifact;
    let checked = slipway_onnx::check_model(&path)?;
    let workers = options.workers;
    let place =
        |dir: PathBuf| OptimizedGraphCache::for_model(&dir, &digest, &path, &options.onnxruntime);
    let kept = optimised_dir.filter(|_| checked.is_self_contained()).and_then(place);
    let intra_threads = options.intra_op_threads;
    let loader =
        session::EngineLoader::new(&options.onnxruntime, &path, intra_threads, kept.as_ref())?;
    let mut memory = SessionMemory::start(options.max_memory_bytes);
    let mut first = loader.load_engine()?;
    let signature = first.signature().clone();
    let baseline =
        baseline.map(|file| golden::read_baseline(&file, &digest, &signature)).transpose()?;
    let max_rows = options.max_batch_rows;
    let batching =
        batching::decide_batching(options.batching, &path, &signature, &mut first, max_rows);
    let mut batching = warm_up_engine(&mut first, batching, max_rows);
    let mut engines = vec![first];
    while engines.len() < workers && memory.has_room() {
        let mut engine = loader.load_engine()?;
        batching = warm_up_engine(&mut engine, batching, max_rows);
        engines.push(engine);
    }
    memory.warn_if_short(engines.len(), workers);
    if let Some(baseline) = &baseline {
        let buckets: Vec<_> =
            batch_sizes(max_rows).take_while(|n| batching.merged || *n == 1).collect();
        for engine in &mut engines {
            golden::replay_requests(engine, baseline, &buckets)?;
        }
    }
    tracing::info!(
        model = name, workers = engines.len(), batching = batching.merged, reason = batching.reason, inputs = ?signature.inputs,
        outputs = ?signature.outputs, "the model is loaded and warm"
    );
    let reader = OutputReader::new(&signature);
    let (most, only) = (options.max_features, &options.features);
    let observer =
        baseline.map(|baseline| Arc::new(Observer::new(&baseline, &signature, reader, most, only)));
    let pool_options = PoolOptions {
        capacity: options.queue_capacity,
        max_rows,
        batching: batching.merged,
        bounded: checked.bounded,
    };
    let stats = Arc::new(ModelStats::default());
    let pool = WorkerPool::start(engines, pool_options, Arc::clone(&stats));
    let pool = pool.map_err(|e| {
        LoadError::transient(LoadErrorReason::LoadFailed, format!("cannot start the workers: {e}"))
    })?;
    let used = AtomicU64::new(0);
    Ok(LoadedModel {
        name,
        version,
        digest,
        signature,
        batching,
        pool,
        reader,
        observer,
        stats,
        bytes,
        last_used: used,
    })
}

/// The batch sizes that are run before the model serves: 1, 2, 4 … and the largest.
fn batch_sizes(max_rows: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1_usize), |n| Some(n * 2))
        .take_while(move |n| *n < max_rows)
        .chain([max_rows])
}

/// Fetches the baseline of the pod's own model, if one is configured.
fn fetch_baseline(
    options: &LoadOptions,
    runtime: &tokio::runtime::Runtime,
) -> Result<Option<PathBuf>, LoadError> {
    if options.baseline.is_empty() {
        return Ok(None);
    }
    let bounds = FetchOptions {
        max_bytes: golden::MAX_BASELINE_BYTES,
        external_data: false,
        ..options.fetch.clone()
    };
    let fetched = runtime
        .block_on(fetch::fetch_model(&options.baseline, &options.baseline_digest, &bounds))
        .map_err(|e| {
            // Without the prefix, the reason's name would blame the model.
            LoadError { message: format!("the baseline: {}", e.message), ..e }
        })?;
    tracing::info!(digest = fetched.digest, "the baseline is here");
    Ok(Some(fetched.path))
}

/// Runs zeros with each batch size, and changes the batching decision when a batch does not return
/// one row per row.
///
/// A failed run is no failure to load: zeros may be invalid inputs for a model (an encoder without
/// that category).
fn warm_up_engine(
    engine: &mut OnnxEngine,
    batching: BatchingDecision,
    max_rows: usize,
) -> BatchingDecision {
    let mut rows_kept = true;
    for rows in batch_sizes(max_rows).take_while(|n| batching.merged || *n == 1) {
        match engine.warm_up(rows) {
            Ok(outputs) => {
                rows_kept &= outputs.iter().all(|t| !t.shape.is_empty() && t.rows() == rows)
            }
            Err(error) => {
                tracing::warn!(
                    rows,
                    error = error.message,
                    "the model does not take zeros; its first requests will be slower"
                );
                break;
            }
        }
    }
    if rows_kept { batching } else { batching.without_merging() }
}
