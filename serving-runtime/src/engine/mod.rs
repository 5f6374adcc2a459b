//! ONNX Runtime: loading a model, running it, and turning its values into ours.

mod kept;
mod signature;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights};
use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor as OrtTensor, TensorElementType, ValueType};

pub use self::kept::Kept;
pub use self::signature::{Signature, TensorSpec};
use crate::error::{LoadError, Reason};
use crate::tensor::{DataType, Tensor, TensorData};

/// The library can be loaded once in a process, and after a failed attempt not again.
static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();

fn environment(library: &Path) -> Result<&'static Environment, LoadError> {
    // ort keeps its slot for the library after a failed load, so look before.
    if !library.is_file() {
        let message = format!("no ONNX Runtime at {}; set ORT_DYLIB_PATH to libonnxruntime.so", library.display());
        return Err(LoadError::transient(Reason::LoadFailed, message));
    }
    let made = ENVIRONMENT.get_or_init(|| {
        let env = ort::init_from(library).map_err(|e| e.to_string())?;
        let env = env.with_name("slipway").with_telemetry(false).build().map_err(|e| e.to_string())?;
        // It would write its own lines between ours, for some models one for every request. What fails comes back as an error anyway.
        env.set_log_level(ort::logging::LogLevel::Fatal);
        Ok(env)
    });
    made.as_ref().map_err(|e| LoadError::transient(Reason::LoadFailed, format!("ONNX Runtime does not start: {e}")))
}

/// Constants larger than this are computed by each run rather than once at load. Otherwise a small file can ask for any amount of memory
/// before anybody sends a request: 180 bytes took 17 GB in one of our tests.
const MAX_FOLDED_BYTES: &str = "67108864";

/// How a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunError {
    /// What ONNX Runtime says.
    pub message: String,
}

/// One session. A session runs one call at a time, so every worker thread has its own.
#[derive(Debug)]
pub struct Engine {
    session: Session,
    signature: Signature,
    brake: Brake,
    /// How long the last run took.
    last: Duration,
}

/// Runs of so many bytes of inputs, and those after a run that took so long, give back what ONNX Runtime's arena took for them. Otherwise one large
/// request would hold its memory until the pod's end; for small runs the arena is what makes them fast.
const LARGE_RUN_BYTES: usize = 1 << 20;
const LONG_RUN: Duration = Duration::from_millis(20);

/// Stops an engine's run from another thread, before the next operator of the graph (of a loop's body as well). What runs then fails; so does every
/// later run, until the brake is released.
#[derive(Clone)]
pub struct Brake(Arc<Options>);

/// One of them is used by each run.
struct Options {
    ordinary: RunOptions<NoSelectedOutputs>,
    shrinking: RunOptions<NoSelectedOutputs>,
}

impl fmt::Debug for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Brake")
    }
}

impl Brake {
    fn new() -> ort::Result<Self> {
        let mut shrinking = RunOptions::new()?;
        shrinking.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        Ok(Self(Arc::new(Options { ordinary: RunOptions::new()?, shrinking })))
    }

    fn all(&self) -> [&RunOptions<NoSelectedOutputs>; 2] {
        [&self.0.ordinary, &self.0.shrinking]
    }

    /// Stops what runs.
    pub fn pull(&self) {
        for options in self.all() {
            // It sets a flag; it cannot fail.
            let _ = options.terminate();
        }
    }

    /// Lets runs run again.
    pub fn release(&self) {
        for options in self.all() {
            let _ = options.unterminate();
        }
    }
}

/// Brings ONNX Runtime itself into the process.
///
/// # Errors
/// `LoadFailed` when there is no library or it does not start.
pub fn start(library: &Path) -> Result<(), LoadError> {
    environment(library).map(drop)
}

/// Loads `count` sessions of the model in `file`; they share prepacked weights, and the optimised graph where there is a place to keep it.
///
/// # Errors
/// `InvalidModel` or `LoadFailed`, with the reason.
pub fn load(
    library: &Path,
    file: &Path,
    count: usize,
    intra_threads: usize,
    kept: Option<&Kept>,
) -> Result<Vec<Engine>, LoadError> {
    let loader = Loader::new(library, file, intra_threads, kept)?;
    (0..count).map(|_| loader.open()).collect()
}

/// Loads sessions of one model, one after the other.
pub struct Loader<'a> {
    environment: &'static Environment,
    weights: PrepackedWeights,
    file: &'a Path,
    intra_threads: usize,
    kept: Option<&'a Kept>,
}

impl<'a> Loader<'a> {
    /// For the model in `file`.
    ///
    /// # Errors
    /// `LoadFailed` when ONNX Runtime itself is not there.
    pub fn new(
        library: &Path,
        file: &'a Path,
        intra_threads: usize,
        kept: Option<&'a Kept>,
    ) -> Result<Self, LoadError> {
        let (environment, weights) = (environment(library)?, PrepackedWeights::new());
        Ok(Self { environment, weights, file, intra_threads, kept })
    }

    /// One more session. It shares prepacked weights with the others, and the optimised graph where there is a place to keep it.
    ///
    /// # Errors
    /// `InvalidModel` or `LoadFailed`, with the reason.
    pub fn open(&self) -> Result<Engine, LoadError> {
        let open = |graph: Graph<'_>| session(self.environment, graph, self.intra_threads, &self.weights);
        let kept = self.kept.and_then(|kept| open_kept(kept, open));
        let session = kept.map_or_else(|| first(self.kept, self.file, open), Ok).map_err(|e| load_error(&e))?;
        let signature = signature_of(&session)?;
        let brake = Brake::new().map_err(|e| load_error(&e))?;
        Ok(Engine { session, signature, brake, last: Duration::ZERO })
    }
}

/// What a session is made from.
#[derive(Debug, Clone, Copy)]
enum Graph<'a> {
    /// The model, to be optimised; and where the optimised graph is written to.
    Model(&'a Path, Option<&'a Path>),
    /// A graph that was optimised before.
    Optimised(&'a Path),
}

/// A session of the graph that is kept. One that cannot be loaded is forgotten: the model itself decides.
fn open_kept(kept: &Kept, open: impl Fn(Graph<'_>) -> ort::Result<Session>) -> Option<Session> {
    let session = open(Graph::Optimised(kept.file()?));
    if let Err(error) = &session {
        tracing::warn!(%error, "the optimised graph that was kept cannot be loaded; the model is optimised again");
        kept.forget();
    }
    session.ok()
}

/// A session of the model itself, whose optimised graph is kept if that can be.
fn first(kept: Option<&Kept>, file: &Path, open: impl Fn(Graph<'_>) -> ort::Result<Session>) -> ort::Result<Session> {
    if let Some(kept) = kept {
        let draft = kept.draft();
        if let Ok(session) = open(Graph::Model(file, Some(&draft))) {
            kept.keep(&draft);
            return Ok(session);
        }
        // Whether the model is bad or the disk is full shows without a draft.
        let _ = std::fs::remove_file(&draft);
    }
    open(Graph::Model(file, None))
}

fn session(
    env: &Environment,
    graph: Graph<'_>,
    intra_threads: usize,
    weights: &PrepackedWeights,
) -> ort::Result<Session> {
    let (file, level) = match graph {
        Graph::Model(file, _) => (file, GraphOptimizationLevel::All),
        Graph::Optimised(file) => (file, GraphOptimizationLevel::Disable),
    };
    let mut builder = Session::builder(env)?;
    if let Graph::Model(_, Some(draft)) = graph {
        builder = builder.with_optimized_model_path(draft)?;
    }
    builder
        .with_optimization_level(level)?
        .with_intra_threads(intra_threads)?
        .with_inter_threads(1)?
        // A spinning thread burns the pod's CPU quota while idle.
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_prepacked_weights(weights)?
        .with_config_entry("optimization.constant_folding_max_output_size_in_bytes", MAX_FOLDED_BYTES)?
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
            // ORT reports a wrong operator version or a failed shape inference as a plain failure: more often the model than the machine.
            LoadError::permanent(Reason::LoadFailed, format!("ONNX Runtime cannot load the model: {e}"))
        }
        C::NoSuchFile => {
            LoadError::transient(Reason::LoadFailed, format!("the model file vanished while loading: {e}"))
        }
        _ => LoadError::permanent(Reason::InvalidModel, format!("not a model that ONNX Runtime can load: {e}")),
    }
}

fn signature_of(session: &Session) -> Result<Signature, LoadError> {
    let specs = |side: &str, outlets: &[Outlet]| outlets.iter().map(|o| spec(side, o)).collect::<Result<Vec<_>, _>>();
    let inputs = specs("input", session.inputs())?;
    let outputs = specs("output", session.outputs())?;
    Ok(Signature { inputs, outputs })
}

fn spec(side: &str, outlet: &Outlet) -> Result<TensorSpec, LoadError> {
    let name = outlet.name();
    let invalid = |what: String| LoadError::permanent(Reason::InvalidModel, format!("{side} {name:?} {what}"));
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Err(invalid(format!(
            "is a {}, not a tensor; convert the model with `zipmap=False` (skl2onnx: options={{id(model): {{'zipmap': False}}}})",
            outlet.dtype()
        )));
    };
    let datatype = datatype(*ty).ok_or_else(|| invalid(format!("has elements of type {ty}, which we do not serve")))?;
    let dims: Vec<_> = shape.iter().map(|d| usize::try_from(*d).ok()).collect();
    let axis = match (dims.first(), dimension_symbols.first()) {
        (Some(None), Some(symbol)) if !symbol.is_empty() => Some(symbol.to_string()),
        _ => None,
    };
    Ok(TensorSpec { name: name.to_owned(), datatype, shape: dims, axis })
}

const fn datatype(ty: TensorElementType) -> Option<DataType> {
    Some(match ty {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::U8,
        TensorElementType::Uint16 => DataType::U16,
        TensorElementType::Uint32 => DataType::U32,
        TensorElementType::Uint64 => DataType::U64,
        TensorElementType::Int8 => DataType::I8,
        TensorElementType::Int16 => DataType::I16,
        TensorElementType::Int32 => DataType::I32,
        TensorElementType::Int64 => DataType::I64,
        TensorElementType::Float16 => DataType::F16,
        TensorElementType::Float32 => DataType::F32,
        TensorElementType::Float64 => DataType::F64,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}

fn to_ort(tensor: Tensor) -> ort::Result<SessionInputValue<'static>> {
    let Tensor { shape, data } = tensor;
    macro_rules! convert {
        ($($variant:ident),*) => {
            match data {
                $(TensorData::$variant(v) => OrtTensor::from_array((shape, v))?.into(),)*
                TensorData::Bytes(v) => OrtTensor::from_string_array((shape, v.as_slice()))?.into(),
            }
        };
    }
    Ok(convert!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64))
}

fn from_ort(value: &DynValue) -> ort::Result<Tensor> {
    let ty = value.dtype().tensor_type().and_then(datatype);
    let Some(ty) = ty else { return Err(ort::Error::new(format!("an output is a {}", value.dtype()))) };
    macro_rules! convert {
        ($($variant:ident),*) => {
            match ty {
                $(DataType::$variant => {
                    let (shape, values) = value.try_extract_tensor()?;
                    (shape, TensorData::$variant(values.to_vec()))
                })*
                DataType::Bytes => {
                    let (shape, values) = value.try_extract_strings()?;
                    (shape, TensorData::Bytes(values))
                }
            }
        };
    }
    let (shape, data) = convert!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64);
    Ok(Tensor { shape: shape.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect(), data })
}

impl Engine {
    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What stops its runs.
    pub fn brake(&self) -> Brake {
        self.brake.clone()
    }

    /// Whether a failed run wanted more memory than there was.
    pub fn out_of_memory(error: &RunError) -> bool {
        ["Failed to allocate memory", "bad_alloc"].iter().any(|part| error.message.contains(part))
    }

    /// Runs the model; inputs and outputs are in the signature's order.
    pub fn run(&mut self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, RunError> {
        self.try_run(inputs).map_err(|e| RunError { message: e.message().to_owned() })
    }

    fn try_run(&mut self, inputs: Vec<Tensor>) -> ort::Result<Vec<Tensor>> {
        let large = inputs.iter().map(Tensor::bytes).sum::<usize>() >= LARGE_RUN_BYTES || self.last >= LONG_RUN;
        let values = inputs.into_iter().map(to_ort).collect::<ort::Result<Vec<_>>>()?;
        let options = if large { &self.brake.0.shrinking } else { &self.brake.0.ordinary };
        let begun = Instant::now();
        let outputs = self.session.run_with_options(values.as_slice(), options);
        self.last = begun.elapsed();
        let outputs = outputs?;
        outputs.values().map(|v| from_ort(&v)).collect()
    }

    /// Runs zeros of `rows` rows.
    pub fn warm_up(&mut self, rows: usize) -> Result<Vec<Tensor>, RunError> {
        let inputs = self.signature.inputs.iter().map(|s| s.sample(rows)).collect();
        self.run(inputs)
    }
}
