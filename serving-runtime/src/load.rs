//! From a URI to a model that is warm.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::batching::{self, Decision};
use crate::config::ServeArgs;
use crate::engine::{self, Engine, Kept};
use crate::error::{LoadError, Reason};
use crate::fetch::{self, Options, Record};
use crate::memory::Memory;
use crate::models::Model;
use crate::observe::{Observer, golden};
use crate::pool::{Pool, PoolOptions};
use crate::prediction::Reader;
use crate::stats::Stats;

/// Fetches, verifies, loads and warms the model. Blocks: it has a thread to itself.
pub fn load(args: &ServeArgs) -> Result<Model, LoadError> {
    let options = Options::of(args);
    // Writing and hashing block, so the download has its own runtime on this thread and the probes answer meanwhile.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|e| LoadError::transient(Reason::LoadFailed, format!("no runtime for the download: {e}")))?;
    let (path, digest) = runtime.block_on(fetched(args, &options))?;
    tracing::info!(path = %path.display(), digest, "the model file is here");
    let baseline = baseline_file(args, &options, &runtime)?;
    let (name, version) = (args.model_name.clone(), args.model_version.clone());
    let optimised_dir = args.optimised_dir.clone();
    build(args, Artifact { name, version, path, digest, bytes: 0, baseline, optimised_dir })
}

/// The model's file and its digest: as the pod's fetch step left it, or fetched here.
async fn fetched(args: &ServeArgs, options: &Options) -> Result<(PathBuf, String), LoadError> {
    let record = args.fetched_record.as_deref().and_then(|file| Record::read(file, &args.model_uri));
    // What the step fetched is what this pod serves, also when the address has other bytes by now.
    let record = record.filter(|record| args.model_digest.is_empty() || args.model_digest == record.digest());
    if let Some(record) = &record
        && let Some(path) = record.untouched()
    {
        return Ok((path.to_owned(), record.digest().to_owned()));
    }
    let pin = record.as_ref().map_or(args.model_digest.as_str(), Record::digest);
    let fetched = fetch::fetch(&args.model_uri, pin, options).await?;
    Ok((fetched.path, fetched.digest))
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
    /// `sha256:<hex>` of the model, weights beside its file included.
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
    let loader = engine::Loader::new(&args.onnxruntime, &path, intra_threads, kept.as_ref())?;
    let mut memory = Memory::begin(args.max_memory_bytes);
    let mut first = loader.open()?;
    let signature = first.signature().clone();
    let baseline = baseline.map(|file| golden::read(&file, &digest, &signature)).transpose()?;
    let max_rows = args.max_batch_rows as usize;
    let batching = batching::decide(args.batching, &path, &signature, &mut first, max_rows);
    let mut batching = warm_up(&mut first, batching, max_rows);
    let mut engines = vec![first];
    while engines.len() < workers && memory.has_room() {
        let mut engine = loader.open()?;
        batching = warm_up(&mut engine, batching, max_rows);
        engines.push(engine);
    }
    memory.report(engines.len(), workers);
    if let Some(baseline) = &baseline {
        let buckets: Vec<_> = buckets(max_rows).take_while(|n| batching.merged || *n == 1).collect();
        for engine in &mut engines {
            golden::replay(engine, baseline, &buckets)?;
        }
    }
    tracing::info!(
        model = name, workers = engines.len(), batching = batching.merged, reason = batching.reason, inputs = ?signature.inputs,
        outputs = ?signature.outputs, "the model is loaded and warm"
    );
    let reader = Reader::new(&signature);
    let (most, only) = (usize::from(args.observe.baseline_max_features), &args.observe.baseline_features);
    let observer = baseline.map(|baseline| Arc::new(Observer::new(&baseline, &signature, reader, most, only)));
    let options = PoolOptions {
        capacity: args.queue_capacity as usize,
        max_rows,
        batching: batching.merged,
        bounded: checked.bounded,
    };
    let stats = Arc::new(Stats::default());
    let pool = Pool::start(engines, options, Arc::clone(&stats));
    let pool = pool.map_err(|e| LoadError::transient(Reason::LoadFailed, format!("cannot start the workers: {e}")))?;
    let used = AtomicU64::new(0);
    Ok(Model { name, version, digest, signature, batching, pool, reader, observer, stats, bytes, used })
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
    let options = Options { max_bytes: golden::MAX_FILE, external_data: false, ..options.clone() };
    let fetched =
        runtime.block_on(fetch::fetch(&observe.baseline, &observe.baseline_digest, &options)).map_err(|e| {
            // The model is not at fault, and the reason's name alone would say so.
            LoadError { message: format!("the baseline: {}", e.message), ..e }
        })?;
    tracing::info!(digest = fetched.digest, "the baseline is here");
    Ok(Some(fetched.path))
}

/// Runs zeros through each size of batch; the decision falls when batches do not come back row by row.
///
/// A failure is no failure to load: zeros may be outside what a model takes (an encoder without that category).
fn warm_up(engine: &mut Engine, batching: Decision, max_rows: usize) -> Decision {
    let mut rows_kept = true;
    for rows in buckets(max_rows).take_while(|n| batching.merged || *n == 1) {
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
    if rows_kept { batching } else { batching.outputs_differ() }
}
