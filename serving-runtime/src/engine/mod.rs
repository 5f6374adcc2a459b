//! ONNX Runtime: loading a model, running it, and turning its values into ours.

mod signature;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights};
use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor as OrtTensor, TensorElementType, ValueType};

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
}

/// Stops an engine's run from another thread, before the next operator of the graph (of a loop's body as well). What runs then fails; so does every
/// later run, until the brake is released.
#[derive(Clone)]
pub struct Brake(Arc<RunOptions<NoSelectedOutputs>>);

impl fmt::Debug for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Brake")
    }
}

impl Brake {
    /// Stops what runs.
    pub fn pull(&self) {
        // It sets a flag; it cannot fail.
        let _ = self.0.terminate();
    }

    /// Lets runs run again.
    pub fn release(&self) {
        let _ = self.0.unterminate();
    }
}

/// Brings ONNX Runtime itself into the process.
///
/// # Errors
/// `LoadFailed` when there is no library or it does not start.
pub fn start(library: &Path) -> Result<(), LoadError> {
    environment(library).map(drop)
}

/// Loads `count` sessions of the model in `file`; they share prepacked weights.
pub fn load(library: &Path, file: &Path, count: usize, intra_threads: usize) -> Result<Vec<Engine>, LoadError> {
    let env = environment(library)?;
    let weights = PrepackedWeights::new();
    let mut engines = Vec::with_capacity(count);
    for _ in 0..count {
        let session = session(env, file, intra_threads, &weights).map_err(|e| load_error(&e))?;
        let signature = signature_of(&session)?;
        let brake = Brake(Arc::new(RunOptions::new().map_err(|e| load_error(&e))?));
        engines.push(Engine { session, signature, brake });
    }
    Ok(engines)
}

fn session(env: &Environment, file: &Path, intra_threads: usize, weights: &PrepackedWeights) -> ort::Result<Session> {
    Session::builder(env)?
        .with_optimization_level(GraphOptimizationLevel::All)?
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
        let values = inputs.into_iter().map(to_ort).collect::<ort::Result<Vec<_>>>()?;
        let outputs = self.session.run_with_options(values.as_slice(), &*self.brake.0)?;
        outputs.values().map(|v| from_ort(&v)).collect()
    }

    /// Runs zeros of `rows` rows.
    pub fn warm_up(&mut self, rows: usize) -> Result<Vec<Tensor>, RunError> {
        let inputs = self.signature.inputs.iter().map(|s| s.sample(rows)).collect();
        self.run(inputs)
    }
}
