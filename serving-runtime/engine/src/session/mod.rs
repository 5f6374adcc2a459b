//! ONNX Runtime: loads models, runs them and converts their values.

mod convert;
mod graph_cache;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights};
use ort::session::{NoSelectedOutputs, RunOptions, Session};

use self::convert::{from_ort, read_signature, to_ort};
pub use self::graph_cache::OptimizedGraphCache;
use crate::error::{LoadError, LoadErrorReason};
use crate::signature::ModelSignature;
use crate::tensor::Tensor;

/// A process can load the library only once, and not again after a failed attempt.
static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();

fn ort_environment(library: &Path) -> Result<&'static Environment, LoadError> {
    // ort does not retry after a failed load, so the file is checked before.
    if !library.is_file() {
        let message = format!(
            "no ONNX Runtime at {}; set ORT_DYLIB_PATH to libonnxruntime.so",
            library.display()
        );
        return Err(LoadError::transient(LoadErrorReason::LoadFailed, message));
    }
    let made = ENVIRONMENT.get_or_init(|| {
        let env = ort::init_from(library).map_err(|e| e.to_string())?;
        let env =
            env.with_name("slipway").with_telemetry(false).build().map_err(|e| e.to_string())?;
        // ONNX Runtime would write its own lines into the log, for some models one per request.
        // Failures are returned as errors anyway.
        env.set_log_level(ort::logging::LogLevel::Fatal);
        Ok(env)
    });
    made.as_ref().map_err(|e| {
        LoadError::transient(
            LoadErrorReason::LoadFailed,
            format!("ONNX Runtime does not start: {e}"),
        )
    })
}

/// Constants larger than this (in bytes) are computed by each run instead of once at load.
/// Otherwise a small file could ask for any amount of memory at load: a file of 180 bytes took 17
/// GB in one of our tests.
const MAX_FOLDED_BYTES: &str = "67108864";

/// A failed run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineError {
    /// The message of ONNX Runtime.
    pub message: String,
}

/// One session. A session runs one call at a time, so every worker thread has its own.
#[derive(Debug)]
pub struct OnnxEngine {
    session: Session,
    signature: ModelSignature,
    canceller: RunCanceller,
    last_run: Duration,
}

/// Inputs of this size, or a previous run that took [`LONG_RUN`], make a run return the memory of
/// ONNX Runtime's arena. Otherwise one large request would hold its memory until the pod ends.
/// Small runs keep the arena, which makes them fast.
const LARGE_RUN_BYTES: usize = 1 << 20;
const LONG_RUN: Duration = Duration::from_millis(20);

/// Cancels an engine's run from another thread, before the next operator of the graph (or of a
/// loop's body). The cancelled run fails; so does every later run until [`Self::reset`].
#[derive(Clone)]
pub struct RunCanceller(Arc<RunOptionsPair>);

/// Two sets of options; each run uses one of them.
struct RunOptionsPair {
    ordinary: RunOptions<NoSelectedOutputs>,
    shrinking: RunOptions<NoSelectedOutputs>,
}

impl fmt::Debug for RunCanceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunCanceller")
    }
}

impl RunCanceller {
    fn new() -> ort::Result<Self> {
        let mut shrinking = RunOptions::new()?;
        shrinking.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        Ok(Self(Arc::new(RunOptionsPair { ordinary: RunOptions::new()?, shrinking })))
    }

    fn run_options(&self) -> [&RunOptions<NoSelectedOutputs>; 2] {
        [&self.0.ordinary, &self.0.shrinking]
    }

    /// Cancels the current run.
    pub fn cancel(&self) {
        for options in self.run_options() {
            // This only sets a flag; it cannot fail.
            let _ = options.terminate();
        }
    }

    /// Allows runs again.
    pub fn reset(&self) {
        for options in self.run_options() {
            let _ = options.unterminate();
        }
    }
}

/// Loads the library of ONNX Runtime into the process.
///
/// # Errors
/// `LoadFailed` when there is no library or it does not start.
pub fn init_onnx_runtime(library: &Path) -> Result<(), LoadError> {
    ort_environment(library).map(drop)
}

/// Loads `count` sessions of the model in `file`. They share prepacked weights, and the optimised
/// graph where a cache for it exists.
///
/// # Errors
/// `InvalidModel` or `LoadFailed`, with the reason.
pub fn load_engines(
    library: &Path,
    file: &Path,
    count: usize,
    intra_threads: usize,
    kept: Option<&OptimizedGraphCache>,
) -> Result<Vec<OnnxEngine>, LoadError> {
    let loader = EngineLoader::new(library, file, intra_threads, kept)?;
    (0..count).map(|_| loader.load_engine()).collect()
}

/// Loads sessions of one model, one after the other.
pub struct EngineLoader<'a> {
    environment: &'static Environment,
    weights: PrepackedWeights,
    file: &'a Path,
    intra_threads: usize,
    graph_cache: Option<&'a OptimizedGraphCache>,
}

impl<'a> EngineLoader<'a> {
    /// Creates a loader for the model in `file`.
    ///
    /// # Errors
    /// `LoadFailed` when ONNX Runtime itself is not there.
    pub fn new(
        library: &Path,
        file: &'a Path,
        intra_threads: usize,
        kept: Option<&'a OptimizedGraphCache>,
    ) -> Result<Self, LoadError> {
        let (environment, weights) = (ort_environment(library)?, PrepackedWeights::new());
        Ok(Self { environment, weights, file, intra_threads, graph_cache: kept })
    }

    /// Loads one more session. It shares prepacked weights with the others, and the optimised graph
    /// where a cache for it exists.
    ///
    /// # Errors
    /// `InvalidModel` or `LoadFailed`, with the reason.
    pub fn load_engine(&self) -> Result<OnnxEngine, LoadError> {
        let open = |graph: GraphSource<'_>| {
            build_session(self.environment, graph, self.intra_threads, &self.weights)
        };
        let kept = self.graph_cache.and_then(|kept| open_cached(kept, open));
        let session = kept
            .map_or_else(|| open_original(self.graph_cache, self.file, open), Ok)
            .map_err(|e| load_error(&e))?;
        let signature = read_signature(&session)?;
        let brake = RunCanceller::new().map_err(|e| load_error(&e))?;
        Ok(OnnxEngine { session, signature, canceller: brake, last_run: Duration::ZERO })
    }
}

/// The file from which a session is created.
#[derive(Debug, Clone, Copy)]
enum GraphSource<'a> {
    /// The model, and the path to which its optimised graph is written.
    Model(&'a Path, Option<&'a Path>),
    /// A cached optimised graph.
    Optimised(&'a Path),
}

/// Opens a session of the cached graph. A graph that cannot be loaded is removed, and the model
/// itself is loaded instead.
fn open_cached(
    kept: &OptimizedGraphCache,
    open: impl Fn(GraphSource<'_>) -> ort::Result<Session>,
) -> Option<Session> {
    let session = open(GraphSource::Optimised(kept.cached_file()?));
    if let Err(error) = &session {
        tracing::warn!(%error, "the optimised graph that was kept cannot be loaded; the model is optimised again");
        kept.discard();
    }
    session.ok()
}

/// Opens a session of the model itself, and caches its optimised graph if possible.
fn open_original(
    kept: Option<&OptimizedGraphCache>,
    file: &Path,
    open: impl Fn(GraphSource<'_>) -> ort::Result<Session>,
) -> ort::Result<Session> {
    if let Some(kept) = kept {
        let draft = kept.draft_path();
        if let Ok(session) = open(GraphSource::Model(file, Some(&draft))) {
            kept.commit(&draft);
            return Ok(session);
        }
        // The attempt without a draft shows whether the model is bad or the disk is full.
        let _ = std::fs::remove_file(&draft);
    }
    open(GraphSource::Model(file, None))
}

fn build_session(
    env: &Environment,
    graph: GraphSource<'_>,
    intra_threads: usize,
    weights: &PrepackedWeights,
) -> ort::Result<Session> {
    let (file, level) = match graph {
        GraphSource::Model(file, _) => (file, GraphOptimizationLevel::All),
        GraphSource::Optimised(file) => (file, GraphOptimizationLevel::Disable),
    };
    let mut builder = Session::builder(env)?;
    if let GraphSource::Model(_, Some(draft)) = graph {
        builder = builder.with_optimized_model_path(draft)?;
    }
    builder
        .with_optimization_level(level)?
        .with_intra_threads(intra_threads)?
        .with_inter_threads(1)?
        // A spinning thread uses up the pod's CPU quota while idle.
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_prepacked_weights(weights)?
        .with_config_entry(
            "optimization.constant_folding_max_output_size_in_bytes",
            MAX_FOLDED_BYTES,
        )?
        .commit_from_file(file)
}

fn load_error(e: &ort::Error) -> LoadError {
    use ort::ErrorCode as C;
    match e.code() {
        C::GenericFailure
        | C::EngineError
        | C::ExecutionProviderFailure
        | C::ModelLoadCanceled
        | C::RuntimeException => {
            // ONNX Runtime reports a wrong operator version or a failed shape inference as a plain
            // failure: the cause is more often the model than the machine.
            LoadError::permanent(
                LoadErrorReason::LoadFailed,
                format!("ONNX Runtime cannot load the model: {e}"),
            )
        }
        C::NoSuchFile => LoadError::transient(
            LoadErrorReason::LoadFailed,
            format!("the model file vanished while loading: {e}"),
        ),
        _ => LoadError::permanent(
            LoadErrorReason::InvalidModel,
            format!("not a model that ONNX Runtime can load: {e}"),
        ),
    }
}

impl OnnxEngine {
    /// The inputs and outputs of the model.
    pub fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    /// The canceller of this engine's runs.
    pub fn canceller(&self) -> RunCanceller {
        self.canceller.clone()
    }

    /// Whether a run failed for lack of memory.
    pub fn is_out_of_memory(error: &EngineError) -> bool {
        ["Failed to allocate memory", "bad_alloc"].iter().any(|part| error.message.contains(part))
    }

    /// Runs the model; inputs and outputs are in the signature's order.
    pub fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EngineError> {
        self.try_run(inputs).map_err(|e| EngineError { message: e.message().to_owned() })
    }

    fn try_run(&mut self, inputs: Vec<Tensor>) -> ort::Result<Vec<Tensor>> {
        let large = inputs.iter().map(Tensor::bytes).sum::<usize>() >= LARGE_RUN_BYTES
            || self.last_run >= LONG_RUN;
        let values = inputs.into_iter().map(to_ort).collect::<ort::Result<Vec<_>>>()?;
        let options = if large { &self.canceller.0.shrinking } else { &self.canceller.0.ordinary };
        let begun = Instant::now();
        let outputs = self.session.run_with_options(values.as_slice(), options);
        self.last_run = begun.elapsed();
        let outputs = outputs?;
        outputs.values().map(|v| from_ort(&v)).collect()
    }

    /// Runs the model on `rows` rows of zeros.
    pub fn warm_up(&mut self, rows: usize) -> Result<Vec<Tensor>, EngineError> {
        let inputs = self.signature.inputs.iter().map(|s| s.sample_tensor(rows)).collect();
        self.run(inputs)
    }
}
