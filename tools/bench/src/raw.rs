//! The lower bound: the model in ONNX Runtime, in this process, without any server.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use slipway_runtime_engine::session::{self, OnnxEngine};
use slipway_runtime_engine::tensor::{Tensor, TensorData};

use crate::model::BenchModel;
use crate::process;

/// The cost of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawMeasurement {
    /// CPU microseconds per run.
    pub(crate) cpu_us: f64,
    /// Runs per second of one thread.
    pub(crate) per_second: f64,
}

fn load_engine(library: &Path, model: &BenchModel) -> anyhow::Result<OnnxEngine> {
    let engines = session::load_engines(library, &model.path, 1, 1, None)
        .map_err(|error| anyhow!("{error}"))?;
    engines.into_iter().next().context("no engine")
}

fn input_tensors(model: &BenchModel) -> Vec<Tensor> {
    let shape =
        model.row.shape.iter().map(|size| usize::try_from(*size).unwrap_or_default()).collect();
    vec![Tensor { shape, data: TensorData::F32(model.row.data.clone()) }]
}

/// The model's output for its row: the reference for all servers.
pub(crate) fn reference_output(library: &Path, model: &BenchModel) -> anyhow::Result<Vec<f32>> {
    let mut engine = load_engine(library, model)?;
    let index = engine.signature().outputs.iter().position(|spec| spec.name.contains("probabilit"));
    let index = index.context("no probabilities")?;
    let outputs = engine.run(input_tensors(model)).map_err(|error| anyhow!(error.message))?;
    match outputs.get(index).map(|tensor| &tensor.data) {
        Some(TensorData::F32(values)) => Ok(values.clone()),
        other => Err(anyhow!("probabilities are {other:?}")),
    }
}

/// Runs the model for `seconds`. Creating the input and reading the outputs are included, because
/// every server must do this too.
pub(crate) fn measure_raw(
    library: &Path,
    model: &BenchModel,
    core: usize,
    seconds: f64,
) -> anyhow::Result<RawMeasurement> {
    process::pin_to_core(core)?;
    let mut engine = load_engine(library, model)?;
    let mut turn = |seconds: f64| -> anyhow::Result<(u64, f64, f64)> {
        let (begun, cpu) = (Instant::now(), process::thread_cpu_seconds());
        let mut runs = 0;
        while begun.elapsed().as_secs_f64() < seconds {
            engine.run(input_tensors(model)).map_err(|error| anyhow!(error.message))?;
            runs += 1;
        }
        Ok((runs, process::thread_cpu_seconds() - cpu, begun.elapsed().as_secs_f64()))
    };
    turn(seconds / 5.0)?;
    let (runs, cpu, wall) = turn(seconds)?;
    Ok(RawMeasurement { cpu_us: cpu * 1e6 / runs as f64, per_second: runs as f64 / wall })
}
