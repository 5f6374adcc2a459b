//! `kubectl slipway baseline`: makes a baseline.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use slipway_baseline::{
    BaselineModel as Described, CalibrationCurve, FORMAT, FeatureColumn, GoldenRequest, GoldenSet,
    MAX_GOLDEN, MAX_VALUES, ModelBaseline, NumericTolerance, ReferenceHistogram,
};
use slipway_runtime_engine::tensor::{Tensor, TensorData};
use slipway_runtime_predict::observe::golden;

use crate::layout::{ColumnLayout, DatasetRows};
use crate::model::{LocalModel, ModelPredictions};
use crate::source::TableReader;

/// Largest number of named values of a categorical feature.
const MAX_CATEGORIES: usize = 20;

/// Options of `kubectl slipway baseline`.
#[derive(Debug, Args)]
pub(crate) struct MakeArgs {
    /// The model: a path to an ONNX file, or a URI as in spec.model.uri.
    #[arg(long, required = true)]
    model: Option<String>,
    /// Reference rows, .csv or .parquet: rows on which the model was accepted, not those on which
    /// it was trained.
    #[arg(long, required = true)]
    data: Option<PathBuf>,
    /// Column with the true label; with it the baseline can predict the accuracy of live traffic.
    #[arg(long)]
    label: Option<String>,
    /// Columns that are not inputs.
    #[arg(long, value_delimiter = ',')]
    ignore: Vec<String>,
    /// Columns to describe. Default: the first `--max-features`.
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// Largest number of columns to describe.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(0..=1024))]
    max_features: u16,
    /// Numeric columns that are categories.
    #[arg(long, value_delimiter = ',')]
    categorical: Vec<String>,
    /// Number of quantile bins of a number.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(2..=20))]
    bins: u8,
    /// Golden requests: rows whose answers every pod must reproduce before it serves.
    #[arg(long, default_value_t = 16)]
    golden: usize,
    /// Largest absolute difference of a number in a golden answer; the relative one is ten times
    /// that.
    #[arg(long, default_value_t = 1e-5, value_parser = parse_tolerance)]
    golden_tolerance: f64,
    /// Largest number of rows to read.
    #[arg(long, default_value_t = 1_000_000)]
    max_rows: usize,
    /// ONNX Runtime's shared library.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
    /// File to write.
    #[arg(short, long, default_value = "baseline.json")]
    output: PathBuf,
}

fn parse_tolerance(text: &str) -> Result<f64, String> {
    let tolerance = text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
    tolerance.ok_or_else(|| "want a number, 0 or more".into())
}

pub(crate) fn build_baseline(args: &MakeArgs) -> Result<()> {
    if args.golden > MAX_GOLDEN {
        bail!("--golden: at most {MAX_GOLDEN}");
    }
    let uri = args.model.as_deref().context("--model is missing")?;
    let data = args.data.as_deref().context("--data is missing")?;
    let mut model = LocalModel::load(uri, args.onnxruntime.as_deref())?;
    let mut source = TableReader::open(data)?;
    let layout =
        ColumnLayout::new(&model.inputs, &source.columns, args.label.as_deref(), &args.ignore)?;
    let rows =
        layout.read(&mut source, args.max_rows).with_context(|| data.display().to_string())?;
    if rows.rows == 0 {
        bail!("{}: there are no rows", data.display());
    }
    if rows.truncated {
        eprintln!("note: only the first {} rows were read (--max-rows)", rows.rows);
    }
    let features = describe_features(args, &layout, &rows, &model)?;
    let answers = model.predict_all(&rows.inputs, rows.rows)?;
    let golden = golden_requests(args, &mut model, &rows)?;
    let mut baseline = ModelBaseline {
        format: FORMAT.to_owned(),
        model: Described {
            digest: model.digest.clone(),
            inputs: model.inputs.clone(),
            outputs: model.outputs.clone(),
        },
        rows: rows.rows as u64,
        features,
        predictions: None,
        scores: None,
        calibration: None,
        golden,
    };
    add_predictions(args, &mut baseline, &answers, &rows)?;
    let bytes = baseline
        .to_vec()
        .map_err(|e| anyhow!("{e} (rename the column, or leave it out with --features)"))?;
    // A request that fails here would fail in every pod.
    let buckets: &[usize] = if model.batchable { &[2, 4, 8, 16, 32] } else { &[] };
    golden::replay_requests(&mut model.engine, &baseline, buckets)
        .map_err(|e| anyhow!("the model does not repeat its own answers: {}", e.message))?;
    std::fs::write(&args.output, bytes)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    // Not by `println!`, which panics when the output is closed.
    std::io::stdout()
        .write_all(format_summary(args, &baseline).as_bytes())
        .context("cannot write to standard output")
}

fn describe_features(
    args: &MakeArgs,
    layout: &ColumnLayout,
    rows: &DatasetRows,
    model: &LocalModel,
) -> Result<Vec<FeatureColumn>> {
    let known = |name: &String| layout.features().any(|(_, _, n)| n == name);
    if let Some(name) = args.features.iter().chain(&args.categorical).find(|name| !known(name)) {
        bail!("there is no input column {name:?}");
    }
    let wanted = |name: &str| args.features.is_empty() || args.features.iter().any(|f| f == name);
    let all =
        layout.features().filter(|(_, _, name)| wanted(name)).take(usize::from(args.max_features));
    let features = all.filter_map(|(input, column, name)| {
        let tensor = rows.inputs.get(input)?;
        let categorical = args.categorical.iter().any(|c| c == name);
        let histogram = build_histogram(
            tensor,
            layout.width(input),
            column,
            categorical,
            usize::from(args.bins),
        );
        Some(FeatureColumn {
            name: name.to_owned(),
            input: model.inputs.get(input)?.name.clone(),
            column,
            histogram,
        })
    });
    Ok(features.collect())
}

fn build_histogram(
    tensor: &Tensor,
    width: usize,
    column: usize,
    categorical: bool,
    bins: usize,
) -> ReferenceHistogram {
    match column_of(tensor, width, column) {
        Column::Texts(values) => {
            ReferenceHistogram::categorical(values.iter().map(String::as_str), MAX_CATEGORIES)
        }
        Column::Numbers(values) if categorical => {
            // Written in the format in which the model server looks up a number.
            let values: Vec<_> = values.iter().map(f64::to_string).collect();
            ReferenceHistogram::categorical(values.iter().map(String::as_str), MAX_CATEGORIES)
        }
        Column::Numbers(values) => ReferenceHistogram::numeric(&values, bins),
    }
}

/// One column of an input.
#[derive(Debug)]
pub(crate) enum Column {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

/// The values at `column` of every row of `width` values.
pub(crate) fn column_of(tensor: &Tensor, width: usize, column: usize) -> Column {
    macro_rules! numbers {
        ($values:expr, $convert:expr) => {
            Column::Numbers(
                $values.iter().skip(column).step_by(width.max(1)).map($convert).collect(),
            )
        };
    }
    match &tensor.data {
        TensorData::Bool(v) => numbers!(v, |x| f64::from(u8::from(*x))),
        TensorData::U8(v) => numbers!(v, |x| f64::from(*x)),
        TensorData::U16(v) => numbers!(v, |x| f64::from(*x)),
        TensorData::U32(v) => numbers!(v, |x| f64::from(*x)),
        TensorData::U64(v) => numbers!(v, |x| *x as f64),
        TensorData::I8(v) => numbers!(v, |x| f64::from(*x)),
        TensorData::I16(v) => numbers!(v, |x| f64::from(*x)),
        TensorData::I32(v) => numbers!(v, |x| f64::from(*x)),
        TensorData::I64(v) => numbers!(v, |x| *x as f64),
        TensorData::F16(v) => numbers!(v, |x| x.to_f64()),
        TensorData::F32(v) => numbers!(v, |x| f64::from(*x)),
        TensorData::F64(v) => numbers!(v, |x| *x),
        TensorData::Bytes(v) => {
            Column::Texts(v.iter().skip(column).step_by(width.max(1)).cloned().collect())
        }
    }
}

/// Adds the model's predictions.
fn add_predictions(
    args: &MakeArgs,
    baseline: &mut ModelBaseline,
    answers: &ModelPredictions,
    rows: &DatasetRows,
) -> Result<()> {
    let bins = usize::from(args.bins);
    if !answers.labels.is_empty() {
        let labels = answers.labels.iter().map(|l| l.as_deref().unwrap_or_default());
        baseline.predictions = Some(ReferenceHistogram::categorical(labels, MAX_VALUES));
    } else if !answers.values.is_empty() {
        baseline.predictions = Some(ReferenceHistogram::numeric(&answers.values, bins));
    }
    if answers.scores.iter().any(|s| s.is_finite()) {
        baseline.scores = Some(ReferenceHistogram::numeric(&answers.scores, bins));
    }
    if let Some(name) = &args.label {
        if baseline.scores.is_none() {
            bail!(
                "--label {name}: the model gives no probabilities, so there is nothing to calibrate; leave --label out and use --ignore {name}"
            );
        }
        let right = rows.labels.iter().zip(&answers.labels).zip(&answers.scores);
        let right = right.filter_map(|((truth, predicted), score)| {
            Some((*score, truth.as_ref()? == predicted.as_ref()?))
        });
        let right: Vec<_> = right.collect();
        if !right.iter().any(|(_, right)| *right) {
            bail!(
                "--label {name}: no row's label is what the model says; does the column hold the classes as the model names them?"
            );
        }
        baseline.calibration = CalibrationCurve::fit(&right, bins);
    }
    Ok(())
}

/// Selects rows at equal distances, so that a sorted file contributes rows of all kinds.
fn golden_requests(
    args: &MakeArgs,
    model: &mut LocalModel,
    rows: &DatasetRows,
) -> Result<GoldenSet> {
    let (count, mut requests, mut skipped) = (args.golden.min(rows.rows), Vec::new(), 0);
    for i in 0..count {
        let (inputs, outputs) = model.predict_row(&rows.inputs, i * rows.rows / count)?;
        // JSON has no infinity, and an answer of NaN is not useful as a golden answer.
        let infinite = |t: &Tensor| match &t.data {
            TensorData::F32(v) => v.iter().any(|x| x.is_infinite()),
            TensorData::F64(v) => v.iter().any(|x| x.is_infinite()),
            TensorData::F16(v) => v.iter().any(|x| x.is_infinite()),
            _ => false,
        };
        if inputs.iter().any(infinite)
            || outputs.iter().any(|t| t.data.first_non_finite().is_some())
        {
            skipped += 1;
            continue;
        }
        let named = |specs: &[slipway_baseline::BaselineTensorSpec], tensors: &[Tensor]| {
            specs
                .iter()
                .zip(tensors)
                .map(|(spec, tensor)| golden::golden_tensor(&spec.name, tensor))
                .collect()
        };
        requests.push(GoldenRequest {
            inputs: named(&model.inputs, &inputs),
            outputs: named(&model.outputs, &outputs),
        });
    }
    if skipped > 0 {
        eprintln!(
            "note: {skipped} golden requests were left out, because they hold infinities or their answers are not finite"
        );
    }
    let tolerance = NumericTolerance {
        absolute: args.golden_tolerance,
        relative: args.golden_tolerance * 10.0,
    };
    Ok(GoldenSet { tolerance, requests })
}

fn format_summary(args: &MakeArgs, baseline: &ModelBaseline) -> String {
    let calibration = baseline.calibration.as_ref().map_or_else(
        || "no calibration (give --label for expected accuracy)".to_owned(),
        |c| {
            format!(
                "calibrated on {} labels (error of the raw scores {:.3})",
                c.counts.iter().sum::<u64>(),
                c.ece
            )
        },
    );
    format!(
        "{}: {} rows, {} features, {} golden requests, {calibration}, of model {}\n",
        args.output.display(),
        baseline.rows,
        baseline.features.len(),
        baseline.golden.requests.len(),
        baseline.model.digest
    )
}
