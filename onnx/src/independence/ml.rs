//! Operators of classic models (`ai.onnx.ml`), which have the rows along the first of two axes.

use super::node_call::{NodeCall, RuleResult};
use super::size::SymbolicSize;
use super::value::SymbolicTensor;

/// Operators whose output has the shape of the input.
const SAME_SHAPE: &[&str] =
    &["Binarizer", "CategoryMapper", "CastMap", "Imputer", "LabelEncoder", "Scaler"];

pub(super) fn apply_ml(call: &mut NodeCall<'_>) -> RuleResult {
    if !call.has_rows() {
        return call.unknown_operator();
    }
    match call.node.op_type.as_str() {
        "ArrayFeatureExtractor" => feature_extractor_rule(call),
        "FeatureVectorizer" => vectorizer_rule(call),
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" => classifier_rule(call),
        "LinearRegressor" | "SVMRegressor" | "TreeEnsemble" | "TreeEnsembleRegressor" => {
            regressor_rule(call)
        }
        // Divides by the maximum, the sum or the norm of a row.
        "Normalizer" => {
            matrix_row_count(call, 0)?;
            same_shape_rule(call)
        }
        "OneHotEncoder" => {
            let tensor = call.required_input(0)?.clone();
            let mut shape = call.input_shape(0)?;
            shape.push(call.symbols.fresh_size());
            Ok(call.repeat_output(SymbolicTensor { shape: Some(shape), elements: None, ..tensor }))
        }
        other if SAME_SHAPE.contains(&other) => same_shape_rule(call),
        _ => call.unknown_operator(),
    }
}

fn same_shape_rule(call: &mut NodeCall<'_>) -> RuleResult {
    call.ensure_others_fixed(&[0])?;
    let tensor = call.required_input(0)?.clone();
    // Values per column belong to the last axis.
    if tensor.row_axis.is_some_and(|axis| Some(axis + 1) == tensor.rank())
        && tensor.rank() != Some(1)
    {
        return Err("it works along the axis of the rows".into());
    }
    if tensor.rank() == Some(1)
        && call.node.op_type != "LabelEncoder"
        && call.node.op_type != "Binarizer"
    {
        return Err("it takes an input of one axis for a single row".into());
    }
    Ok(call.repeat_output(SymbolicTensor { elements: None, ..tensor }))
}

/// The number of rows of an input `[rows, columns]`: an input with a single axis would be a single
/// row.
fn matrix_row_count(call: &NodeCall<'_>, number: usize) -> Result<SymbolicSize, String> {
    let (tensor, shape) = (call.required_input(number)?, call.input_shape(number)?);
    match (tensor.row_axis, shape.len()) {
        (Some(0), 2) => Ok(shape[0].clone()),
        (_, 1) => Err("it takes an input of one axis for a single row".into()),
        _ => Err("the rows are not along the first of two axes".into()),
    }
}

fn classifier_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let rows = matrix_row_count(call, 0)?;
    let scores = vec![rows.clone(), call.symbols.fresh_size()];
    let made =
        [SymbolicTensor::with_row_axis(vec![rows], 0), SymbolicTensor::with_row_axis(scores, 0)];
    Ok(made.into_iter().take(call.node.outputs.len()).collect())
}

fn regressor_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let rows = matrix_row_count(call, 0)?;
    let many = call.node.integer("n_targets").or_else(|| call.node.integer("targets"));
    let many = many.map_or_else(|| call.symbols.fresh_size(), SymbolicSize::from_number);
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(vec![rows, many], 0)))
}

/// Selects columns, along the last axis.
fn feature_extractor_rule(call: &mut NodeCall<'_>) -> RuleResult {
    call.ensure_others_fixed(&[0])?;
    let rows = matrix_row_count(call, 0)?;
    let many = call.input(1).and_then(|tensor| SymbolicSize::product(tensor.shape.as_ref()?));
    let many = many.unwrap_or_else(|| call.symbols.fresh_size());
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(vec![rows, many], 0)))
}

/// Concatenates columns.
fn vectorizer_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let mut rows = None;
    for number in 0..call.inputs.len() {
        let own = matrix_row_count(call, number)?;
        if rows.as_ref().is_some_and(|rows| *rows != own) {
            return Err("it joins rows with other multiples of rows".into());
        }
        rows = Some(own);
    }
    let rows = rows.ok_or("it has no inputs")?;
    let many = call.node.integers("inputdimensions").map(|sizes| sizes.iter().sum());
    let many = many.map_or_else(|| call.symbols.fresh_size(), SymbolicSize::from_number);
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(vec![rows, many], 0)))
}
