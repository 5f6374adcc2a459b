//! Checks that a file is valid. Other code relies on this and does not check again.

use std::collections::HashSet;

use crate::{
    BaselineError, BaselineModel, BaselineTensorSpec, CalibrationCurve, FeatureColumn, GoldenSet,
    GoldenTensor, HistogramBins, MAX_FEATURES, MAX_GOLDEN, MAX_GOLDEN_VALUES, MAX_NAME,
    MAX_NUMERIC_BINS, MAX_VALUES, ModelBaseline, ReferenceHistogram,
};

type ValidationResult = Result<(), BaselineError>;

/// Largest number of inputs or outputs, and of dimensions of one.
const MAX_TENSORS: usize = 256;
const MAX_DIMENSIONS: usize = 16;

fn invalid_field<T>(
    field: impl Into<String>,
    problem: impl Into<String>,
) -> Result<T, BaselineError> {
    Err(BaselineError::Invalid { field: field.into(), problem: problem.into() })
}

fn ensure_valid(good: bool, field: &str, problem: &str) -> ValidationResult {
    if good { Ok(()) } else { invalid_field(field, problem) }
}

/// Checks all fields.
pub(crate) fn validate_baseline(baseline: &ModelBaseline) -> ValidationResult {
    if baseline.format != crate::FORMAT {
        return Err(BaselineError::Format(baseline.format.clone()));
    }
    check_model(&baseline.model)?;
    ensure_valid(baseline.rows > 0, "rows", "is 0; a baseline needs reference rows")?;
    if baseline.features.len() > MAX_FEATURES {
        return invalid_field(
            "features",
            format!("{} of them; at most {MAX_FEATURES}", baseline.features.len()),
        );
    }
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    for (i, it) in baseline.features.iter().enumerate() {
        let field = format!("features[{i}]");
        check_feature(&field, it, baseline)?;
        ensure_valid(
            names.insert(&it.name),
            &field,
            &format!("the name {:?} is there twice", it.name),
        )?;
        ensure_valid(
            places.insert((&it.input, it.column)),
            &field,
            "the same column of the same input is there twice",
        )?;
    }
    for (field, it) in [("predictions", &baseline.predictions), ("scores", &baseline.scores)] {
        if let Some(it) = it {
            check_histogram(field, it, baseline.rows)?;
        }
    }
    if let Some(scores) = &baseline.scores {
        ensure_valid(scores.bins.ordered_len() > 0, "scores.bins", "must be numeric")?;
    }
    if let Some(it) = &baseline.calibration {
        check_calibration(it)?;
    }
    check_golden_set(&baseline.golden, &baseline.model)
}

fn check_name(field: &str, text: &str) -> ValidationResult {
    let good = !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    ensure_valid(
        good,
        field,
        &format!("{text:?} must have 1 to {MAX_NAME} bytes and no control characters"),
    )
}

fn check_model(model: &BaselineModel) -> ValidationResult {
    let hex = model.digest.strip_prefix("sha256:").unwrap_or_default();
    let good = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ensure_valid(good, "model.digest", "must be sha256: and 64 lower-case hex digits")?;
    ensure_valid(!model.inputs.is_empty(), "model.inputs", "is empty")?;
    for (side, specs) in [("model.inputs", &model.inputs), ("model.outputs", &model.outputs)] {
        ensure_valid(specs.len() <= MAX_TENSORS, side, &format!("at most {MAX_TENSORS}"))?;
        let mut names = HashSet::new();
        for spec in specs {
            ensure_valid(
                names.insert(&spec.name),
                side,
                &format!("{:?} is there twice", spec.name),
            )?;
            ensure_valid(
                spec.name.len() <= 256 && spec.datatype.len() <= 16,
                side,
                "a name or datatype is too long",
            )?;
            ensure_valid(
                spec.shape.len() <= MAX_DIMENSIONS,
                side,
                &format!("at most {MAX_DIMENSIONS} dimensions"),
            )?;
            ensure_valid(
                spec.shape.iter().all(|d| *d >= -1),
                side,
                "a dimension is -1 or a length",
            )?;
        }
    }
    Ok(())
}

fn check_feature(
    field: &str,
    feature: &FeatureColumn,
    baseline: &ModelBaseline,
) -> ValidationResult {
    check_name(&format!("{field}.name"), &feature.name)?;
    let known = baseline.model.inputs.iter().any(|i| i.name == feature.input);
    ensure_valid(
        known,
        &format!("{field}.input"),
        &format!("{:?} is none of model.inputs", feature.input),
    )?;
    check_histogram(&format!("{field}.histogram"), &feature.histogram, baseline.rows)
}

fn check_ascending(field: &str, edges: &[f64]) -> ValidationResult {
    ensure_valid(edges.iter().all(|e| e.is_finite()), field, "must be finite")?;
    ensure_valid(edges.is_sorted_by(|a, b| a < b), field, "must ascend")
}

fn check_histogram(field: &str, histogram: &ReferenceHistogram, rows: u64) -> ValidationResult {
    let field_of = |part: &str| format!("{field}.{part}");
    match &histogram.bins {
        HistogramBins::Numeric { edges, low, high } => {
            let field = field_of("bins.edges");
            ensure_valid(
                (1..MAX_NUMERIC_BINS).contains(&edges.len()),
                &field,
                &format!("must be 1 to {}", MAX_NUMERIC_BINS - 1),
            )?;
            check_ascending(&field, edges)?;
            ensure_valid(
                low.is_finite() && high.is_finite(),
                &field_of("bins.low"),
                "low and high must be finite",
            )?;
            let inside = edges.iter().all(|e| low <= e && e <= high);
            ensure_valid(inside, &field, "must lie between low and high")?;
        }
        HistogramBins::Categorical { values } => {
            let field = field_of("bins.values");
            ensure_valid(values.len() <= MAX_VALUES, &field, &format!("at most {MAX_VALUES}"))?;
            let mut seen = HashSet::new();
            for value in values {
                check_name(&field, value)?;
                ensure_valid(
                    HistogramBins::is_category_name(value),
                    &field,
                    &format!("{value:?} is the name of a special bin"),
                )?;
                ensure_valid(seen.insert(value), &field, &format!("{value:?} is there twice"))?;
            }
        }
    }
    let field = field_of("counts");
    ensure_valid(
        histogram.counts.len() == histogram.bins.len(),
        &field,
        &format!("must be {}", histogram.bins.len()),
    )?;
    let total = histogram.counts.iter().try_fold(0_u64, |sum, n| sum.checked_add(*n));
    ensure_valid(total == Some(rows), &field, &format!("must add up to the {rows} rows"))
}

fn check_calibration(table: &CalibrationCurve) -> ValidationResult {
    ensure_valid(
        table.edges.len() < MAX_NUMERIC_BINS,
        "calibration.edges",
        &format!("at most {}", MAX_NUMERIC_BINS - 1),
    )?;
    check_ascending("calibration.edges", &table.edges)?;
    let bins = table.edges.len() + 1;
    let field = "calibration.accuracy";
    ensure_valid(table.accuracy.len() == bins, field, &format!("must be {bins}"))?;
    ensure_valid(
        table.accuracy.iter().all(|a| (0.0..=1.0).contains(a)),
        field,
        "must lie between 0 and 1",
    )?;
    ensure_valid(table.accuracy.is_sorted(), field, "must ascend")?;
    ensure_valid(table.counts.len() == bins, "calibration.counts", &format!("must be {bins}"))?;
    ensure_valid((0.0..=1.0).contains(&table.ece), "calibration.ece", "must lie between 0 and 1")
}

fn check_golden_set(golden: &GoldenSet, model: &BaselineModel) -> ValidationResult {
    let good = |x: f64| x.is_finite() && x >= 0.0;
    let tolerance = golden.tolerance;
    ensure_valid(
        good(tolerance.absolute) && good(tolerance.relative),
        "golden.tolerance",
        "must be finite and not negative",
    )?;
    ensure_valid(
        golden.requests.len() <= MAX_GOLDEN,
        "golden.requests",
        &format!("at most {MAX_GOLDEN}"),
    )?;
    let mut left = MAX_GOLDEN_VALUES;
    for (i, request) in golden.requests.iter().enumerate() {
        let field = format!("golden.requests[{i}]");
        check_tensors(&format!("{field}.inputs"), &request.inputs, &model.inputs, &mut left)?;
        check_tensors(&format!("{field}.outputs"), &request.outputs, &model.outputs, &mut left)?;
    }
    Ok(())
}

fn check_tensors(
    field: &str,
    tensors: &[GoldenTensor],
    specs: &[BaselineTensorSpec],
    left: &mut usize,
) -> ValidationResult {
    ensure_valid(
        tensors.len() == specs.len(),
        field,
        &format!("must be {}, as the model has them", specs.len()),
    )?;
    for (tensor, spec) in tensors.iter().zip(specs) {
        let fits = tensor.name == spec.name && tensor.datatype == spec.datatype;
        ensure_valid(fits, field, &format!("must name {:?} of {} here", spec.name, spec.datatype))?;
        ensure_valid(
            tensor.shape.len() <= MAX_DIMENSIONS,
            field,
            &format!("at most {MAX_DIMENSIONS} dimensions"),
        )?;
        let values = tensor.shape.iter().try_fold(1_usize, |product, d| product.checked_mul(*d));
        ensure_valid(
            values == Some(tensor.data.len()),
            field,
            &format!("{:?}: the shape and the data differ", tensor.name),
        )?;
        *left = match left.checked_sub(tensor.data.len()) {
            Some(left) => left,
            None => {
                return invalid_field(
                    "golden.requests",
                    format!("more than {MAX_GOLDEN_VALUES} values in all"),
                );
            }
        };
    }
    Ok(())
}
