//! Operators of classic models (`ai.onnx.ml`): they take rows along the first of two axes.

use super::size::Size;
use super::value::Tensor;
use super::{Call, Made};

/// The shape of the input.
const SAME_SHAPE: &[&str] = &["Binarizer", "CategoryMapper", "CastMap", "Imputer", "LabelEncoder", "Scaler"];

pub(super) fn apply(call: &mut Call<'_>) -> Made {
    if !call.has_rows() {
        return call.unknown();
    }
    match call.node.op_type.as_str() {
        "ArrayFeatureExtractor" => columns(call),
        "FeatureVectorizer" => vectorize(call),
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" => classifier(call),
        "LinearRegressor" | "SVMRegressor" | "TreeEnsemble" | "TreeEnsembleRegressor" => regressor(call),
        // By the largest, the sum or the length of a row.
        "Normalizer" => {
            rows_of_two_axes(call, 0)?;
            same_shape(call)
        }
        "OneHotEncoder" => {
            let tensor = call.need(0)?.clone();
            let mut shape = call.shape_of(0)?;
            shape.push(call.symbols.fresh());
            Ok(call.all(Tensor { shape: Some(shape), elements: None, ..tensor }))
        }
        other if SAME_SHAPE.contains(&other) => same_shape(call),
        _ => call.unknown(),
    }
}

fn same_shape(call: &mut Call<'_>) -> Made {
    call.others_are_fixed(&[0])?;
    let tensor = call.need(0)?.clone();
    // Values for each column belong to the last axis.
    if tensor.axis.is_some_and(|axis| Some(axis + 1) == tensor.rank()) && tensor.rank() != Some(1) {
        return Err("it works along the axis of the rows".into());
    }
    if tensor.rank() == Some(1) && call.node.op_type != "LabelEncoder" && call.node.op_type != "Binarizer" {
        return Err("it takes an input of one axis for a single row".into());
    }
    Ok(call.all(Tensor { elements: None, ..tensor }))
}

/// The number of rows of an input `[rows, columns]`: one axis alone would be a single row.
fn rows_of_two_axes(call: &Call<'_>, number: usize) -> Result<Size, String> {
    let (tensor, shape) = (call.need(number)?, call.shape_of(number)?);
    match (tensor.axis, shape.len()) {
        (Some(0), 2) => Ok(shape[0].clone()),
        (_, 1) => Err("it takes an input of one axis for a single row".into()),
        _ => Err("the rows are not along the first of two axes".into()),
    }
}

fn classifier(call: &mut Call<'_>) -> Made {
    let rows = rows_of_two_axes(call, 0)?;
    let scores = vec![rows.clone(), call.symbols.fresh()];
    let made = [Tensor::rows(vec![rows], 0), Tensor::rows(scores, 0)];
    Ok(made.into_iter().take(call.node.outputs.len()).collect())
}

fn regressor(call: &mut Call<'_>) -> Made {
    let rows = rows_of_two_axes(call, 0)?;
    let many = call.node.integer("n_targets").or_else(|| call.node.integer("targets"));
    let many = many.map_or_else(|| call.symbols.fresh(), Size::number);
    Ok(call.all(Tensor::rows(vec![rows, many], 0)))
}

/// Picks columns, along the last axis.
fn columns(call: &mut Call<'_>) -> Made {
    call.others_are_fixed(&[0])?;
    let rows = rows_of_two_axes(call, 0)?;
    let many = call.input(1).and_then(|tensor| Size::product(tensor.shape.as_ref()?));
    let many = many.unwrap_or_else(|| call.symbols.fresh());
    Ok(call.all(Tensor::rows(vec![rows, many], 0)))
}

/// Joins columns.
fn vectorize(call: &mut Call<'_>) -> Made {
    let mut rows = None;
    for number in 0..call.inputs.len() {
        let own = rows_of_two_axes(call, number)?;
        if rows.as_ref().is_some_and(|rows| *rows != own) {
            return Err("it joins rows with other multiples of rows".into());
        }
        rows = Some(own);
    }
    let rows = rows.ok_or("it has no inputs")?;
    let many = call.node.integers("inputdimensions").map(|sizes| sizes.iter().sum());
    let many = many.map_or_else(|| call.symbols.fresh(), Size::number);
    Ok(call.all(Tensor::rows(vec![rows, many], 0)))
}
