//! Operators that work along some axes: reductions, norms, softmax, sums so far.

use super::size::Size;
use super::value::{self, Tensor};
use super::{Call, Made};

const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
];

pub(super) fn apply(call: &mut Call<'_>, operator: &str) -> Option<Made> {
    match operator {
        "ArgMax" | "ArgMin" => Some(arg(call)),
        "CumSum" => Some(along_input(call)),
        "Softmax" | "LogSoftmax" | "Hardmax" => Some(softmax(call)),
        "LpNormalization" => Some(along(call, -1)),
        "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => Some(from_axis(call)),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => Some(skip_normalization(call)),
        "MeanVarianceNormalization" => Some(mean_variance(call)),
        "TopK" => Some(top(call)),
        _ if REDUCTIONS.contains(&operator) => Some(reduce(call, operator)),
        _ => None,
    }
}

const OVER_ROWS: &str = "it works along the axis of the rows";

/// The axes of a reduction: an attribute, and an input in newer operator sets. `None` is all of them.
fn axes_of(call: &Call<'_>, operator: &str) -> Result<Option<Vec<i64>>, String> {
    let from_input = call.version >= if operator == "ReduceSum" { 13 } else { 18 };
    if !from_input {
        return Ok(call.node.integers("axes").map(<[i64]>::to_vec));
    }
    match call.input(1) {
        None => Ok(None),
        Some(tensor) => tensor.numbers().map(Some).ok_or_else(|| "its axes are not known".into()),
    }
}

fn reduce(call: &mut Call<'_>, operator: &str) -> Made {
    let tensor = call.need(0)?.clone();
    if !tensor.is_rows() && (tensor.counted || tensor.shape.is_none()) {
        // The product of a list of sizes, which some exporters write for the number of elements.
        return call.unknown();
    }
    call.others_are_fixed(&[0])?;
    let axes = axes_of(call, operator)?.filter(|axes| !axes.is_empty());
    let keep = call.node.integer("keepdims").unwrap_or(1) != 0;
    match axes {
        None if call.node.integer("noop_with_empty_axes").unwrap_or(0) != 0 => Ok(call.all(tensor)),
        None if tensor.is_rows() => Err("it reduces over all axes, and so over the rows".into()),
        None => Ok(call.all(Tensor::fixed(None))),
        Some(axes) => Ok(call.all(without(&tensor, &axes, keep)?)),
    }
}

/// The tensor with these axes reduced to one element, or away.
fn without(tensor: &Tensor, axes: &[i64], keep: bool) -> Result<Tensor, String> {
    let Some(shape) = &tensor.shape else { return Ok(Tensor::fixed(None)) };
    let axes = value::axes(axes, shape.len()).ok_or("its axes do not fit its input")?;
    if tensor.axis.is_some_and(|axis| axes.contains(&axis)) {
        return Err(OVER_ROWS.into());
    }
    let axis = tensor.axis.map(|axis| if keep { axis } else { axis - axes.iter().filter(|it| **it < axis).count() });
    let sizes = shape.iter().enumerate().filter_map(|(at, size)| match (axes.contains(&at), keep) {
        (false, _) => Some(size.clone()),
        (true, true) => Some(Size::number(1)),
        (true, false) => None,
    });
    Ok(Tensor { axis, counted: tensor.counted, ..Tensor::fixed(Some(sizes.collect())) })
}

fn arg(call: &mut Call<'_>) -> Made {
    let axis = call.node.integer("axis").unwrap_or(0);
    let keep = call.node.integer("keepdims").unwrap_or(1) != 0;
    let made = without(call.need(0)?, &[axis], keep)?;
    Ok(call.all(made))
}

/// The axis is an input.
fn along_input(call: &mut Call<'_>) -> Made {
    call.others_are_fixed(&[0])?;
    let axis = call.input(1).and_then(Tensor::number).ok_or("its axis is not known")?;
    along_axis(call, axis)
}

fn along(call: &mut Call<'_>, default: i64) -> Made {
    let axis = call.node.integer("axis").unwrap_or(default);
    along_axis(call, axis)
}

/// The output has the shape of the input, and holds along one axis what is made of all that is there.
fn along_axis(call: &mut Call<'_>, axis: i64) -> Made {
    let tensor = call.need(0)?.clone();
    if let (Some(rows), Some(rank)) = (tensor.axis, tensor.rank()) {
        match value::axis(axis, rank) {
            Some(axis) if axis != rows => {}
            Some(_) => return Err(OVER_ROWS.into()),
            None => return Err("its axis does not fit its input".into()),
        }
    }
    Ok(call.all(Tensor { elements: None, ..tensor }))
}

fn softmax(call: &mut Call<'_>) -> Made {
    if call.version >= 13 {
        return along(call, -1);
    }
    // Before, all axes from this one on were taken together.
    from(call, 1)
}

fn from_axis(call: &mut Call<'_>) -> Made {
    call.others_are_fixed(&[0])?;
    let made = from(call, -1)?;
    let Some(tensor) = made.into_iter().next() else { return call.unknown() };
    let Some(rank) = tensor.rank() else { return Ok(call.all(tensor)) };
    let axis = value::axis(call.node.integer("axis").unwrap_or(-1), rank).ok_or("its axis does not fit its input")?;
    if tensor.is_rows() {
        // Scale and bias belong to the places that are normed.
        let inside = |number: usize| match call.input(number) {
            None => true,
            Some(it) => it.rank().is_some_and(|it| it + axis <= rank),
        };
        if !inside(1) || !inside(2) {
            return Err("its scale may have an element for each row".into());
        }
    }
    let reduced: Vec<i64> = (axis..rank).filter_map(|axis| i64::try_from(axis).ok()).collect();
    let statistics = without(&tensor, &reduced, true)?;
    let rest = call.node.outputs.len().saturating_sub(1);
    Ok(std::iter::once(tensor).chain(std::iter::repeat_n(statistics, rest)).collect())
}

/// What works over all axes from one on.
fn from(call: &mut Call<'_>, default: i64) -> Made {
    let tensor = call.need(0)?.clone();
    if let (Some(rows), Some(rank)) = (tensor.axis, tensor.rank()) {
        let axis = value::axis(call.node.integer("axis").unwrap_or(default), rank);
        if axis.ok_or("its axis does not fit its input")? <= rows {
            return Err(OVER_ROWS.into());
        }
    }
    Ok(call.all(Tensor { elements: None, ..tensor }))
}

/// Input and skip are added, and normed along the last axis.
fn skip_normalization(call: &mut Call<'_>) -> Made {
    call.others_are_fixed(&[0, 1])?;
    let (input, skip) = (call.need(0)?.clone(), call.need(1)?.clone());
    let joined = super::elementwise::broadcast(&[&input, &skip], call.symbols)?;
    if joined.axis.is_some_and(|axis| Some(axis + 1) == joined.rank()) {
        return Err(OVER_ROWS.into());
    }
    let flat = |number: usize| call.input(number).is_none_or(|it| it.rank() == Some(1));
    if !(2..call.inputs.len()).all(flat) {
        return Err("its scale may have an element for each row".into());
    }
    Ok(call.all(joined))
}

fn mean_variance(call: &mut Call<'_>) -> Made {
    let axes = call.node.integers("axes").unwrap_or(&[0, 2, 3]).to_vec();
    let tensor = call.need(0)?.clone();
    without(&tensor, &axes, true)?;
    Ok(call.all(tensor))
}

fn top(call: &mut Call<'_>) -> Made {
    call.others_are_fixed(&[0])?;
    let tensor = call.need(0)?.clone();
    let Some(mut shape) = tensor.shape.clone() else { return call.unknown() };
    let axis = value::axis(call.node.integer("axis").unwrap_or(-1), shape.len()).ok_or("its axis does not fit")?;
    if tensor.axis == Some(axis) {
        return Err(OVER_ROWS.into());
    }
    let many = call.input(1).and_then(|tensor| tensor.elements.as_ref()?.first()?.clone());
    shape[axis] = many.unwrap_or_else(|| call.symbols.fresh());
    Ok(call.all(Tensor { axis: tensor.axis, counted: tensor.counted, ..Tensor::fixed(Some(shape)) }))
}
