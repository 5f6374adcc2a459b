//! `kubectl slipway baseline check`: compares rows with a baseline.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use slipway_baseline::stats::DriftStatistics;
use slipway_baseline::{HistogramBinner, ModelBaseline, ReferenceHistogram};

use crate::build::{Column, column_of};
use crate::layout::ColumnLayout;
use crate::model::LocalModel;
use crate::source::TableReader;

/// Options of `kubectl slipway baseline check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The baseline.
    #[arg(long)]
    baseline: PathBuf,
    /// Rows to compare, .csv or .parquet, with the columns of the reference.
    #[arg(long)]
    data: PathBuf,
    /// The model of the baseline; with it predictions and scores are compared as well.
    #[arg(long)]
    model: Option<String>,
    /// Columns that are not inputs, for example the label.
    #[arg(long, value_delimiter = ',')]
    ignore: Vec<String>,
    /// Largest number of rows to read.
    #[arg(long, default_value_t = 1_000_000)]
    max_rows: usize,
    /// Exit with status 3 when something has drifted.
    #[arg(long)]
    exit_code: bool,
    /// ONNX Runtime's shared library, for `--model`.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
}

struct DriftRow {
    name: String,
    drift: DriftStatistics,
}

/// Prints the drift of every feature.
pub(crate) fn check_baseline(args: &CheckArgs) -> Result<ExitCode> {
    let named = || args.baseline.display().to_string();
    let bytes = std::fs::read(&args.baseline).with_context(named)?;
    let baseline = ModelBaseline::from_slice(&bytes).with_context(named)?;
    let mut source = TableReader::open(&args.data)?;
    let layout = ColumnLayout::new(&baseline.model.inputs, &source.columns, None, &args.ignore)?;
    let rows =
        layout.read(&mut source, args.max_rows).with_context(|| args.data.display().to_string())?;
    if rows.rows == 0 {
        bail!("{}: there are no rows", args.data.display());
    }
    let mut lines = Vec::new();
    for feature in &baseline.features {
        let input = baseline.model.inputs.iter().position(|i| i.name == feature.input);
        let Some((input, tensor)) = input.and_then(|i| Some((i, rows.inputs.get(i)?))) else {
            continue;
        };
        let drift = measure_drift(
            &feature.histogram,
            &column_of(tensor, layout.width(input), feature.column),
        );
        lines.push(DriftRow { name: feature.name.clone(), drift });
    }
    if let Some(uri) = &args.model {
        let mut model = LocalModel::load(uri, args.onnxruntime.as_deref())?;
        if model.digest != baseline.model.digest {
            bail!(
                "{uri} has digest {}; the baseline is of {}",
                model.digest,
                baseline.model.digest
            );
        }
        let answers = model.predict_all(&rows.inputs, rows.rows)?;
        if let Some(histogram) = &baseline.predictions {
            let column = if answers.labels.is_empty() {
                Column::Numbers(answers.values)
            } else {
                Column::Texts(answers.labels.into_iter().map(Option::unwrap_or_default).collect())
            };
            lines.push(DriftRow {
                name: "(predictions)".to_owned(),
                drift: measure_drift(histogram, &column),
            });
        }
        if let Some(histogram) = &baseline.scores {
            let drift = measure_drift(histogram, &Column::Numbers(answers.scores));
            lines.push(DriftRow { name: "(scores)".to_owned(), drift });
        }
    }
    if lines.is_empty() {
        return Err(anyhow!("{}: the baseline describes no features", named()));
    }
    let text = render_table(&mut lines, baseline.rows, rows.rows);
    // Not by `print!`, which panics when the output is closed.
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    let drifted = lines.iter().any(|l| l.drift.has_drifted());
    Ok(if drifted && args.exit_code { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

fn measure_drift(histogram: &ReferenceHistogram, column: &Column) -> DriftStatistics {
    let binner = HistogramBinner::new(&histogram.bins);
    let mut live = vec![0_u64; histogram.bins.len()];
    let mut add = |bin: usize| {
        if let Some(count) = live.get_mut(bin) {
            *count += 1;
        }
    };
    match column {
        Column::Numbers(values) => values.iter().for_each(|x| add(binner.number_bin(*x))),
        Column::Texts(values) => values.iter().for_each(|s| add(binner.text_bin(s))),
    }
    DriftStatistics::between(&histogram.counts, &live, histogram.bins.ordered_len())
}

fn render_table(lines: &mut [DriftRow], reference: u64, live: usize) -> String {
    lines.sort_by(|a, b| {
        (b.drift.psi - b.drift.threshold).total_cmp(&(a.drift.psi - a.drift.threshold))
    });
    let width = lines.iter().map(|l| l.name.chars().count()).chain([7]).max().unwrap_or(7);
    let mut text = format!(
        "{:width$}  {:>8}  {:>9}  {:>8}  {:>6}  {:>6}  VERDICT\n",
        "FEATURE", "PSI", "THRESHOLD", "EXCESS", "JS", "KS"
    );
    for DriftRow { name, drift } in lines.iter() {
        let ks = drift.kolmogorov_smirnov.map_or_else(|| "-".to_owned(), |ks| format!("{ks:.3}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:width$}  {:8.4}  {:9.4}  {:8.4}  {:6.3}  {ks:>6}  {}",
            drift.psi,
            drift.threshold,
            (drift.psi - drift.noise).max(0.0),
            drift.jensen_shannon,
            if drift.has_drifted() { "drift" } else { "ok" }
        );
    }
    let drifted = lines.iter().filter(|l| l.drift.has_drifted()).count();
    let _ = writeln!(
        text,
        "{drifted} of {} drifted ({live} rows against {reference}). Chance alone puts about {:.1} of them above a threshold of 95 %.",
        lines.len(),
        lines.len() as f64 * 0.05
    );
    text
}
