//! What makes a file valid. After this nobody checks again.

use std::collections::HashSet;

use crate::{
    Baseline, Bins, Calibration, Feature, FileError, Golden, GoldenTensor, Histogram, MAX_FEATURES, MAX_GOLDEN,
    MAX_GOLDEN_VALUES, MAX_NAME, MAX_NUMERIC_BINS, MAX_VALUES, Model, TensorSpec,
};

type Checked = Result<(), FileError>;

/// Most inputs or outputs, and dimensions of one.
const MAX_TENSORS: usize = 256;
const MAX_DIMENSIONS: usize = 16;

fn invalid<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, FileError> {
    Err(FileError::Invalid { field: field.into(), problem: problem.into() })
}

fn ensure(good: bool, field: &str, problem: &str) -> Checked {
    if good { Ok(()) } else { invalid(field, problem) }
}

/// Checks everything.
pub(crate) fn check(baseline: &Baseline) -> Checked {
    if baseline.format != crate::FORMAT {
        return Err(FileError::Format(baseline.format.clone()));
    }
    model(&baseline.model)?;
    ensure(baseline.rows > 0, "rows", "is 0; a baseline needs reference rows")?;
    if baseline.features.len() > MAX_FEATURES {
        return invalid("features", format!("{} of them; at most {MAX_FEATURES}", baseline.features.len()));
    }
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    for (i, it) in baseline.features.iter().enumerate() {
        let field = format!("features[{i}]");
        feature(&field, it, baseline)?;
        ensure(names.insert(&it.name), &field, &format!("the name {:?} is there twice", it.name))?;
        ensure(places.insert((&it.input, it.column)), &field, "the same column of the same input is there twice")?;
    }
    for (field, it) in [("predictions", &baseline.predictions), ("scores", &baseline.scores)] {
        if let Some(it) = it {
            histogram(field, it, baseline.rows)?;
        }
    }
    if let Some(scores) = &baseline.scores {
        ensure(scores.bins.ordered() > 0, "scores.bins", "must be numeric")?;
    }
    if let Some(it) = &baseline.calibration {
        calibration(it)?;
    }
    golden(&baseline.golden, &baseline.model)
}

fn name(field: &str, text: &str) -> Checked {
    let good = !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    ensure(good, field, &format!("{text:?} must have 1 to {MAX_NAME} bytes and no control characters"))
}

fn model(model: &Model) -> Checked {
    let hex = model.digest.strip_prefix("sha256:").unwrap_or_default();
    let good = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ensure(good, "model.digest", "must be sha256: and 64 lower-case hex digits")?;
    ensure(!model.inputs.is_empty(), "model.inputs", "is empty")?;
    for (side, specs) in [("model.inputs", &model.inputs), ("model.outputs", &model.outputs)] {
        ensure(specs.len() <= MAX_TENSORS, side, &format!("at most {MAX_TENSORS}"))?;
        let mut names = HashSet::new();
        for spec in specs {
            ensure(names.insert(&spec.name), side, &format!("{:?} is there twice", spec.name))?;
            ensure(spec.name.len() <= 256 && spec.datatype.len() <= 16, side, "a name or datatype is too long")?;
            ensure(spec.shape.len() <= MAX_DIMENSIONS, side, &format!("at most {MAX_DIMENSIONS} dimensions"))?;
            ensure(spec.shape.iter().all(|d| *d >= -1), side, "a dimension is -1 or a length")?;
        }
    }
    Ok(())
}

fn feature(field: &str, feature: &Feature, baseline: &Baseline) -> Checked {
    name(&format!("{field}.name"), &feature.name)?;
    let known = baseline.model.inputs.iter().any(|i| i.name == feature.input);
    ensure(known, &format!("{field}.input"), &format!("{:?} is none of model.inputs", feature.input))?;
    histogram(&format!("{field}.histogram"), &feature.histogram, baseline.rows)
}

fn ascending(field: &str, edges: &[f64]) -> Checked {
    ensure(edges.iter().all(|e| e.is_finite()), field, "must be finite")?;
    ensure(edges.is_sorted_by(|a, b| a < b), field, "must ascend")
}

fn histogram(field: &str, histogram: &Histogram, rows: u64) -> Checked {
    let field_of = |part: &str| format!("{field}.{part}");
    match &histogram.bins {
        Bins::Numeric { edges, low, high } => {
            let field = field_of("bins.edges");
            ensure(
                (1..MAX_NUMERIC_BINS).contains(&edges.len()),
                &field,
                &format!("must be 1 to {}", MAX_NUMERIC_BINS - 1),
            )?;
            ascending(&field, edges)?;
            ensure(low.is_finite() && high.is_finite(), &field_of("bins.low"), "low and high must be finite")?;
            let inside = edges.iter().all(|e| low <= e && e <= high);
            ensure(inside, &field, "must lie between low and high")?;
        }
        Bins::Categorical { values } => {
            let field = field_of("bins.values");
            ensure(values.len() <= MAX_VALUES, &field, &format!("at most {MAX_VALUES}"))?;
            let mut seen = HashSet::new();
            for value in values {
                name(&field, value)?;
                ensure(Bins::nameable(value), &field, &format!("{value:?} is the name of a special bin"))?;
                ensure(seen.insert(value), &field, &format!("{value:?} is there twice"))?;
            }
        }
    }
    let field = field_of("counts");
    ensure(histogram.counts.len() == histogram.bins.len(), &field, &format!("must be {}", histogram.bins.len()))?;
    let total = histogram.counts.iter().try_fold(0_u64, |sum, n| sum.checked_add(*n));
    ensure(total == Some(rows), &field, &format!("must add up to the {rows} rows"))
}

fn calibration(table: &Calibration) -> Checked {
    ensure(table.edges.len() < MAX_NUMERIC_BINS, "calibration.edges", &format!("at most {}", MAX_NUMERIC_BINS - 1))?;
    ascending("calibration.edges", &table.edges)?;
    let bins = table.edges.len() + 1;
    let field = "calibration.accuracy";
    ensure(table.accuracy.len() == bins, field, &format!("must be {bins}"))?;
    ensure(table.accuracy.iter().all(|a| (0.0..=1.0).contains(a)), field, "must lie between 0 and 1")?;
    ensure(table.accuracy.is_sorted(), field, "must ascend")?;
    ensure(table.counts.len() == bins, "calibration.counts", &format!("must be {bins}"))?;
    ensure((0.0..=1.0).contains(&table.ece), "calibration.ece", "must lie between 0 and 1")
}

fn golden(golden: &Golden, model: &Model) -> Checked {
    let good = |x: f64| x.is_finite() && x >= 0.0;
    let tolerance = golden.tolerance;
    ensure(
        good(tolerance.absolute) && good(tolerance.relative),
        "golden.tolerance",
        "must be finite and not negative",
    )?;
    ensure(golden.requests.len() <= MAX_GOLDEN, "golden.requests", &format!("at most {MAX_GOLDEN}"))?;
    let mut left = MAX_GOLDEN_VALUES;
    for (i, request) in golden.requests.iter().enumerate() {
        let field = format!("golden.requests[{i}]");
        tensors(&format!("{field}.inputs"), &request.inputs, &model.inputs, &mut left)?;
        tensors(&format!("{field}.outputs"), &request.outputs, &model.outputs, &mut left)?;
    }
    Ok(())
}

fn tensors(field: &str, tensors: &[GoldenTensor], specs: &[TensorSpec], left: &mut usize) -> Checked {
    ensure(tensors.len() == specs.len(), field, &format!("must be {}, as the model has them", specs.len()))?;
    for (tensor, spec) in tensors.iter().zip(specs) {
        let fits = tensor.name == spec.name && tensor.datatype == spec.datatype;
        ensure(fits, field, &format!("must name {:?} of {} here", spec.name, spec.datatype))?;
        ensure(tensor.shape.len() <= MAX_DIMENSIONS, field, &format!("at most {MAX_DIMENSIONS} dimensions"))?;
        let values = tensor.shape.iter().try_fold(1_usize, |product, d| product.checked_mul(*d));
        ensure(values == Some(tensor.data.len()), field, &format!("{:?}: the shape and the data differ", tensor.name))?;
        *left = match left.checked_sub(tensor.data.len()) {
            Some(left) => left,
            None => return invalid("golden.requests", format!("more than {MAX_GOLDEN_VALUES} values in all")),
        };
    }
    Ok(())
}
