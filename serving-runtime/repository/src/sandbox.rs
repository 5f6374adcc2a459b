//! Tries a model in a separate process before it is loaded into this one.
//!
//! A model of the repository shares the process with the server's own. ONNX Runtime folds constants
//! and allocates while it loads, so a small file can ask for any amount of memory, and a malformed
//! one may crash it. The trial bounds memory and time, and measures what the model costs.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};
use slipway_runtime_engine::error::{LoadError, LoadErrorReason};
use slipway_runtime_engine::session::{self, OnnxEngine};

/// Address space of the process without a model, in bytes: the libraries, their threads, the
/// allocator's reserves.
const BASE_ADDRESS_SPACE: u64 = 1 << 30;
const TRIAL_TIMEOUT: Duration = Duration::from_secs(120);

/// Options of `vet`.
#[derive(Debug, Clone, Args)]
pub struct VetArgs {
    /// The model file.
    #[arg(long)]
    pub model: PathBuf,
    /// ONNX Runtime's shared library.
    #[arg(long, env = "ORT_DYLIB_PATH", default_value = "/usr/lib/libonnxruntime.so")]
    pub onnxruntime: PathBuf,
    /// Memory that the model may take, in bytes.
    #[arg(long)]
    pub memory_bytes: u64,
    /// Rows of the largest batch.
    #[arg(long, default_value_t = 1)]
    pub rows: usize,
}

/// The result of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialReport {
    /// Memory of one session in bytes.
    pub bytes: u64,
}

/// Runs the trial; called in the separate process.
pub fn run_vet(args: &VetArgs) -> ExitCode {
    let outcome = load_within_limits(args);
    let (line, code) = match &outcome {
        Ok(facts) => (serde_json::to_string(facts), ExitCode::SUCCESS),
        Err(error) => (serde_json::to_string(error), ExitCode::FAILURE),
    };
    println!("{}", line.unwrap_or_default());
    if let Err(error) = &outcome {
        // For the log; the server reads the line above.
        eprintln!("error: {}", error.message);
    }
    code
}

fn load_within_limits(args: &VetArgs) -> Result<TrialReport, LoadError> {
    let bound = |resource, limit| {
        setrlimit(resource, limit, limit).map_err(|e| {
            LoadError::transient(
                LoadErrorReason::LoadFailed,
                format!("cannot bound the trial: {e}"),
            )
        })
    };
    bound(Resource::RLIMIT_CORE, 0)?;
    bound(Resource::RLIMIT_CPU, TRIAL_TIMEOUT.as_secs())?;
    bound(Resource::RLIMIT_AS, BASE_ADDRESS_SPACE.saturating_add(args.memory_bytes))?;
    slipway_onnx::check_model(&args.model)?;
    // The server itself has the library loaded already, so it is not part of the model's memory.
    session::init_onnx_runtime(&args.onnxruntime)?;
    let before = peak_memory();
    let mut engines = session::load_engines(&args.onnxruntime, &args.model, 1, 1, None)?;
    for engine in &mut engines {
        let rows = if engine.signature().may_batch() { args.rows } else { 1 };
        // A model that does not accept zeros may still be valid; one that exceeds its memory limit
        // is not.
        if let Some(error) = engine.warm_up(rows).err().filter(OnnxEngine::is_out_of_memory) {
            let message = format!(
                "a run of {rows} rows wants more memory than the {} bytes that it may have (--max-models-bytes): {}",
                args.memory_bytes, error.message
            );
            return Err(LoadError::permanent(LoadErrorReason::InvalidModel, message));
        }
    }
    let file = std::fs::metadata(&args.model).map_or(0, |m| m.len());
    Ok(TrialReport { bytes: peak_memory().saturating_sub(before).max(file) })
}

/// The largest resident memory so far in bytes; 0 where the kernel does not report it.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Tries the model in `file` in a separate process, with batches of `rows` rows and at most
/// `memory_bytes` of memory.
///
/// # Errors
/// The failure that the trial reported, or how its process ended.
pub async fn trial_load(
    onnxruntime: &Path,
    file: &Path,
    memory_bytes: u64,
    rows: usize,
) -> Result<TrialReport, LoadError> {
    let failed = |what: String| LoadError::transient(LoadErrorReason::LoadFailed, what);
    let program =
        std::env::current_exe().map_err(|e| failed(format!("cannot find this program: {e}")))?;
    let child = tokio::process::Command::new(program)
        .arg("vet")
        .arg("--model")
        .arg(file)
        .arg("--onnxruntime")
        .arg(onnxruntime)
        .arg("--memory-bytes")
        .arg(memory_bytes.to_string())
        .arg("--rows")
        .arg(rows.to_string())
        // Otherwise every thread reserves address space, which counts towards the limit.
        .env("MALLOC_ARENA_MAX", "1")
        .env("RUST_LOG", "off")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TRIAL_TIMEOUT, child).await;
    let output = output
        .map_err(|_| {
            LoadError::permanent(
                LoadErrorReason::LoadFailed,
                format!("the model did not load within {} s", TRIAL_TIMEOUT.as_secs()),
            )
        })?
        .map_err(|e| failed(format!("cannot try the model: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    if let Ok(facts) = serde_json::from_str(line) {
        return Ok(facts);
    }
    Err(serde_json::from_str(line).unwrap_or_else(|_| {
        let message = format!(
            "loading the model ended the trial ({}); it may take {memory_bytes} bytes of memory (--max-models-bytes) and {} s",
            output.status,
            TRIAL_TIMEOUT.as_secs()
        );
        LoadError::permanent(LoadErrorReason::InvalidModel, message)
    }))
}
