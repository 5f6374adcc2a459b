//! From a URI to a model that is warm.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::config::ServeArgs;
use crate::engine::{self, Engine, Kept, Signature};
use crate::error::{LoadError, Reason};
use crate::fetch::{self, Options};
use crate::merging;
use crate::models::Model;
use crate::observe::{Observer, golden};
use crate::pool::{Pool, PoolOptions};
use crate::prediction::Reader;
use crate::stats::Stats;

/// Fetches, verifies, loads and warms the model. Blocks: it has a thread to itself.
pub fn load(args: &ServeArgs) -> Result<Model, LoadError> {
    let options = Options {
        cache_dir: args.cache_dir.clone(),
        volume_root: args.volume_root.clone(),
        max_bytes: args.max_model_bytes,
        timeout: std::time::Duration::from_secs(args.download_timeout_seconds),
        attempts: args.download_attempts,
    };
    // Writing and hashing block, so the download has its own runtime on this thread and the probes answer meanwhile.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|e| LoadError::transient(Reason::LoadFailed, format!("no runtime for the download: {e}")))?;
    let fetched = runtime.block_on(fetch::fetch(&args.model_uri, &args.model_digest, &options))?;
    tracing::info!(path = %fetched.path.display(), digest = fetched.digest, "the model file is here");
    let baseline = baseline_file(args, &options, &runtime)?;
    let (name, version) = (args.model_name.clone(), args.model_version.clone());
    let optimised_dir = args.optimised_dir.clone();
    let (path, digest) = (fetched.path, fetched.digest);
    build(args, Artifact { name, version, path, digest, bytes: 0, baseline, optimised_dir })
}

/// A model file, and what the model is called.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its name in the protocol.
    pub name: String,
    /// Its version in the protocol.
    pub version: String,
    /// Its file.
    pub path: PathBuf,
    /// `sha256:<hex>` of the file.
    pub digest: String,
    /// Memory that it takes, in bytes, as far as that is known.
    pub bytes: u64,
    /// The file of its baseline, when it has one.
    pub baseline: Option<PathBuf>,
    /// Where its optimised graph is kept, if it is.
    pub optimised_dir: Option<PathBuf>,
}

/// Loads and warms a model from its file. Blocks.
///
/// # Errors
/// `InvalidModel` or `LoadFailed`, with the reason.
pub fn build(args: &ServeArgs, artifact: Artifact) -> Result<Model, LoadError> {
    let Artifact { name, version, path, digest, bytes, baseline, optimised_dir } = artifact;
    let checked = slipway_onnx::check(&path)?;
    let workers = args.threads().workers;
    let place = |dir: PathBuf| Kept::place(&dir, &digest, &path, &args.onnxruntime);
    let kept = optimised_dir.filter(|_| checked.is_whole()).and_then(place);
    let intra_threads = usize::from(args.intra_op_threads);
    let mut engines = engine::load(&args.onnxruntime, &path, workers, intra_threads, kept.as_ref())?;
    let Some(signature) = engines.first().map(|e| e.signature().clone()) else {
        return Err(LoadError::permanent(Reason::LoadFailed, "there are no workers"));
    };
    let baseline = baseline.map(|file| golden::read(&file, &digest, &signature)).transpose()?;
    let max_rows = args.max_batch_rows as usize;
    let mut batching = merge(args, &path, &signature, &mut engines, max_rows);
    for engine in &mut engines {
        batching &= warm_up(engine, batching, max_rows);
    }
    if let Some(baseline) = &baseline {
        let buckets: Vec<_> = buckets(max_rows).take_while(|n| batching || *n == 1).collect();
        for engine in &mut engines {
            golden::replay(engine, baseline, &buckets)?;
        }
    }
    tracing::info!(model = name, workers, batching, inputs = ?signature.inputs, outputs = ?signature.outputs, "the model is loaded and warm");
    let reader = Reader::new(&signature);
    let (most, only) = (usize::from(args.observe.baseline_max_features), &args.observe.baseline_features);
    let observer = baseline.map(|baseline| Arc::new(Observer::new(&baseline, &signature, reader, most, only)));
    let options = PoolOptions { capacity: args.queue_capacity as usize, max_rows, batching, bounded: checked.bounded };
    let stats = Arc::new(Stats::default());
    let pool = Pool::start(engines, options, Arc::clone(&stats));
    let pool = pool.map_err(|e| LoadError::transient(Reason::LoadFailed, format!("cannot start the workers: {e}")))?;
    Ok(Model { name, version, digest, signature, pool, reader, observer, stats, bytes, used: AtomicU64::new(0) })
}

/// Whether requests may be merged; the reason is logged when they may not.
fn merge(args: &ServeArgs, path: &Path, signature: &Signature, engines: &mut [Engine], max_rows: usize) -> bool {
    let Some(engine) = engines.first_mut().filter(|_| !args.no_batching && max_rows > 1) else { return false };
    let proven = merging::prove(path, signature, engine);
    if let Err(reason) = &proven {
        tracing::info!(reason, "it is not proven that the model keeps rows apart; every request runs alone");
    }
    proven.is_ok()
}

/// The sizes of batches that are tried before the model serves: 1, 2, 4 … and the greatest.
fn buckets(max_rows: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1_usize), |n| Some(n * 2)).take_while(move |n| *n < max_rows).chain([max_rows])
}

/// The file of the pod's own model's baseline, when it is given one.
fn baseline_file(
    args: &ServeArgs,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
) -> Result<Option<PathBuf>, LoadError> {
    let observe = &args.observe;
    if observe.baseline.is_empty() {
        return Ok(None);
    }
    let options = Options { max_bytes: golden::MAX_FILE, ..options.clone() };
    let fetched =
        runtime.block_on(fetch::fetch(&observe.baseline, &observe.baseline_digest, &options)).map_err(|e| {
            // The model is not at fault, and the reason's name alone would say so.
            LoadError { message: format!("the baseline: {}", e.message), ..e }
        })?;
    tracing::info!(digest = fetched.digest, "the baseline is here");
    Ok(Some(fetched.path))
}

/// Runs zeros through each size of batch, and tells whether batches come back row by row.
///
/// A failure is no failure to load: zeros may be outside what a model takes (an encoder without that category).
fn warm_up(engine: &mut Engine, batching: bool, max_rows: usize) -> bool {
    let mut rows_kept = true;
    for rows in buckets(max_rows).take_while(|n| batching || *n == 1) {
        match engine.warm_up(rows) {
            Ok(outputs) => rows_kept &= outputs.iter().all(|t| !t.shape.is_empty() && t.rows() == rows),
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
    if batching && !rows_kept {
        tracing::info!("the outputs do not follow the rows of a batch; every request runs alone");
    }
    rows_kept
}
