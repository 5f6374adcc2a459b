//! Golden requests: before the pod serves, the model must give the answers that it gave where the
//! baseline was made, in batches of every size.

use std::path::Path;

use serde_json::Value;
use slipway_baseline::{
    BaselineTensorSpec, GoldenRequest, GoldenTensor, MAX_BYTES, ModelBaseline, NumericTolerance,
};
use slipway_runtime_engine::error::{LoadError, LoadErrorReason};
use slipway_runtime_engine::session::{self, OnnxEngine};
use slipway_runtime_engine::signature::ModelSignature;
use slipway_runtime_engine::tensor::{DataType, Tensor, TensorData};

fn invalid_baseline(message: impl Into<String>) -> LoadError {
    LoadError::permanent(LoadErrorReason::InvalidBaseline, message)
}

/// Reads the baseline in `file` and checks that it belongs to the model with this digest and
/// signature.
///
/// # Errors
/// `InvalidBaseline`, permanent; transient when the file cannot be read.
pub fn read_baseline(
    file: &Path,
    digest: &str,
    signature: &ModelSignature,
) -> Result<ModelBaseline, LoadError> {
    let bytes = std::fs::read(file).map_err(|e| {
        LoadError::transient(
            LoadErrorReason::LoadFailed,
            format!("cannot read the baseline {}: {e}", file.display()),
        )
    })?;
    let baseline =
        ModelBaseline::from_slice(&bytes).map_err(|e| invalid_baseline(e.to_string()))?;
    if baseline.model.digest != digest {
        return Err(invalid_baseline(format!(
            "the baseline is of the model {}, and the model here is {digest}; make one for it with `kubectl slipway baseline`",
            baseline.model.digest
        )));
    }
    for (side, ours, theirs) in [
        ("inputs", &signature.inputs, &baseline.model.inputs),
        ("outputs", &signature.outputs, &baseline.model.outputs),
    ] {
        let ours: Vec<_> = ours.iter().map(baseline_spec).collect();
        if ours != *theirs {
            return Err(invalid_baseline(format!(
                "the baseline's model.{side} are {theirs:?}, and the model's are {ours:?}"
            )));
        }
    }
    Ok(baseline)
}

/// Largest baseline that is fetched, in bytes.
pub const MAX_BASELINE_BYTES: u64 = MAX_BYTES as u64;

/// The description of a tensor in the baseline's format.
pub fn baseline_spec(
    spec: &slipway_runtime_engine::signature::TensorSignature,
) -> BaselineTensorSpec {
    BaselineTensorSpec {
        name: spec.name.clone(),
        datatype: spec.datatype.name().to_owned(),
        shape: spec.wire_shape(),
    }
}

/// A tensor in the baseline's format.
pub fn golden_tensor(name: &str, tensor: &Tensor) -> GoldenTensor {
    macro_rules! values {
        ($($variant:ident),*) => {
            match &tensor.data {
                $(TensorData::$variant(v) => v.iter().map(|x| Value::from(x.clone())).collect(),)*
                TensorData::F16(v) => v.iter().map(|x| Value::from(x.to_f32())).collect(),
            }
        };
    }
    let data = values!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F32, F64, Bytes);
    let datatype = tensor.data.datatype().name().to_owned();
    GoldenTensor { name: name.to_owned(), datatype, shape: tensor.shape.clone(), data }
}

/// Parses a tensor in the baseline's format.
///
/// # Errors
/// A text that names the value that does not fit.
pub fn parse_golden_tensor(golden: &GoldenTensor) -> Result<Tensor, String> {
    let name = &golden.name;
    let datatype = DataType::parse(&golden.datatype)
        .ok_or_else(|| format!("{name:?}: no datatype {}", golden.datatype))?;
    let bad = |i: usize| format!("{name:?}: value {i} is no {}", golden.datatype);
    fn all<T>(data: &[Value], get: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, usize> {
        data.iter().enumerate().map(|(i, v)| get(v).ok_or(i)).collect()
    }
    let float = |v: &Value| if v.is_null() { Some(f64::NAN) } else { v.as_f64() };
    macro_rules! integers {
        ($variant:ident, $as:ident) => {
            TensorData::$variant(all(&golden.data, |v| v.$as()?.try_into().ok()).map_err(bad)?)
        };
    }
    let data = match datatype {
        DataType::Bool => TensorData::Bool(all(&golden.data, Value::as_bool).map_err(bad)?),
        DataType::U8 => integers!(U8, as_u64),
        DataType::U16 => integers!(U16, as_u64),
        DataType::U32 => integers!(U32, as_u64),
        DataType::U64 => integers!(U64, as_u64),
        DataType::I8 => integers!(I8, as_i64),
        DataType::I16 => integers!(I16, as_i64),
        DataType::I32 => integers!(I32, as_i64),
        DataType::I64 => integers!(I64, as_i64),
        DataType::F16 => {
            TensorData::F16(all(&golden.data, |v| float(v).map(half::f16::from_f64)).map_err(bad)?)
        }
        DataType::F32 => {
            TensorData::F32(all(&golden.data, |v| float(v).map(|x| x as f32)).map_err(bad)?)
        }
        DataType::F64 => TensorData::F64(all(&golden.data, float).map_err(bad)?),
        DataType::Bytes => {
            TensorData::Bytes(all(&golden.data, |v| v.as_str().map(str::to_owned)).map_err(bad)?)
        }
    };
    Ok(Tensor { shape: golden.shape.clone(), data })
}

/// A golden request as tensors.
struct GoldenCase {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

fn parse_case(index: usize, request: &GoldenRequest) -> Result<GoldenCase, LoadError> {
    let all = |side: &str, golden: &[GoldenTensor]| {
        let read = |g| {
            parse_golden_tensor(g).map_err(|e| {
                invalid_baseline(format!("baseline field golden.requests[{index}].{side}: {e}"))
            })
        };
        golden.iter().map(read).collect::<Result<Vec<_>, _>>()
    };
    Ok(GoldenCase {
        inputs: all("inputs", &request.inputs)?,
        outputs: all("outputs", &request.outputs)?,
    })
}

/// Replays the golden requests alone and, where `buckets` has more than one row, stacked into
/// batches of each of these sizes.
///
/// # Errors
/// `GoldenRequestFailed`, permanent: the same model would fail the same request again.
pub fn replay_requests(
    engine: &mut OnnxEngine,
    baseline: &ModelBaseline,
    buckets: &[usize],
) -> Result<(), LoadError> {
    let requests = &baseline.golden.requests;
    let cases = requests
        .iter()
        .enumerate()
        .map(|(i, r)| parse_case(i, r))
        .collect::<Result<Vec<_>, _>>()?;
    if cases.is_empty() {
        return Ok(());
    }
    let tolerance = baseline.golden.tolerance;
    for (i, case) in cases.iter().enumerate() {
        let got = run_golden(engine, case.inputs.clone(), &format!("golden request {i}"))?;
        compare_outputs(engine.signature(), &got, &case.outputs, tolerance, (i, 1))?;
    }
    for rows in buckets.iter().copied().filter(|rows| *rows > 1) {
        // As many rows as the batch has; golden requests repeat when there are fewer.
        let inputs = engine.signature().inputs.len();
        let stacked = |i: usize| {
            Tensor::stack((0..rows).filter_map(|row| cases[row % cases.len()].inputs.get(i)))
        };
        let Some(inputs) = (0..inputs).map(stacked).collect::<Option<Vec<_>>>() else { continue };
        let got = run_golden(engine, inputs, &format!("a batch of {rows} golden requests"))?;
        for row in 0..rows {
            let own: Vec<_> = got.iter().map(|t| t.slice_rows(row, 1)).collect();
            let which = row % cases.len();
            compare_outputs(
                engine.signature(),
                &own,
                &cases[which].outputs,
                tolerance,
                (which, rows),
            )?;
        }
    }
    tracing::info!(
        requests = cases.len(),
        ?buckets,
        "the golden requests are answered as the baseline says"
    );
    Ok(())
}

fn run_golden(
    engine: &mut OnnxEngine,
    inputs: Vec<Tensor>,
    what: &str,
) -> Result<Vec<Tensor>, LoadError> {
    let failed = |e: session::EngineError| {
        LoadError::permanent(
            LoadErrorReason::GoldenRequestFailed,
            format!("the model fails on {what}: {}", e.message),
        )
    };
    engine.run(inputs).map_err(failed)
}

fn compare_outputs(
    signature: &ModelSignature,
    got: &[Tensor],
    want: &[Tensor],
    tolerance: NumericTolerance,
    (request, rows): (usize, usize),
) -> Result<(), LoadError> {
    for (spec, (got, want)) in signature.outputs.iter().zip(got.iter().zip(want)) {
        if let Some(difference) = describe_difference(got, want, tolerance) {
            let name = &spec.name;
            return Err(LoadError::permanent(
                LoadErrorReason::GoldenRequestFailed,
                format!(
                    "output {name:?} of golden request {request} (in a batch of {rows}): {difference}; \
                     is this the model, the ONNX Runtime and the processor that the baseline was made with? \
                     If so, make it again, or with a larger --golden-tolerance"
                ),
            ));
        }
    }
    Ok(())
}

/// Describes the difference between two tensors; `None` when they are equal within the tolerance.
fn describe_difference(got: &Tensor, want: &Tensor, tolerance: NumericTolerance) -> Option<String> {
    if got.shape != want.shape {
        return Some(format!("shape {:?} instead of {:?}", got.shape, want.shape));
    }
    let floats = |a: &[f64], b: &[f64]| {
        let differs =
            a.iter().zip(b).enumerate().find(|(_, (got, want))| !tolerance.accepts(**got, **want));
        differs.map(|(i, (got, want))| {
            format!("value {i} is {got} instead of {want} (difference {:e})", (got - want).abs())
        })
    };
    match (float_values(&got.data), float_values(&want.data)) {
        (Some(a), Some(b)) => floats(&a, &b),
        _ if got.data == want.data => None,
        _ => {
            let at = (0..got.data.len())
                .find(|i| got.data.slice(*i, i + 1) != want.data.slice(*i, i + 1))
                .unwrap_or(0);
            Some(format!(
                "value {at} is {:?} instead of {:?}",
                got.data.slice(at, at + 1),
                want.data.slice(at, at + 1)
            ))
        }
    }
}

fn float_values(data: &TensorData) -> Option<Vec<f64>> {
    Some(match data {
        TensorData::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
        TensorData::F32(v) => v.iter().map(|x| f64::from(*x)).collect(),
        TensorData::F64(v) => v.clone(),
        _ => return None,
    })
}
