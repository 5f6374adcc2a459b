//! Operators that work along some axes: reductions, norms, softmax, cumulative sums.

use super::node_call::{NodeCall, RuleResult};
use super::size::SymbolicSize;
use super::value::{self, SymbolicTensor};

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

pub(super) fn apply_reduction(call: &mut NodeCall<'_>, operator: &str) -> Option<RuleResult> {
    match operator {
        "ArgMax" | "ArgMin" => Some(arg_max_rule(call)),
        "CumSum" => Some(cumsum_rule(call)),
        "Softmax" | "LogSoftmax" | "Hardmax" => Some(softmax_rule(call)),
        "LpNormalization" => Some(along_attribute_axis(call, -1)),
        "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => {
            Some(layer_norm_rule(call))
        }
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => Some(skip_norm_rule(call)),
        "MeanVarianceNormalization" => Some(mean_variance_rule(call)),
        "TopK" => Some(top_k_rule(call)),
        _ if REDUCTIONS.contains(&operator) => Some(reduce_rule(call, operator)),
        _ => None,
    }
}

const OVER_ROWS: &str = "it works along the axis of the rows";

/// The axes of a reduction: an attribute, or an input in newer operator sets. `None` means all
/// axes.
fn reduction_axes(call: &NodeCall<'_>, operator: &str) -> Result<Option<Vec<i64>>, String> {
    let from_input = call.version >= if operator == "ReduceSum" { 13 } else { 18 };
    if !from_input {
        return Ok(call.node.integers("axes").map(<[i64]>::to_vec));
    }
    match call.input(1) {
        None => Ok(None),
        Some(tensor) => tensor.numbers().map(Some).ok_or_else(|| "its axes are not known".into()),
    }
}

fn reduce_rule(call: &mut NodeCall<'_>, operator: &str) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    if !tensor.has_row_axis() && (tensor.batch_dependent || tensor.shape.is_none()) {
        // The product of a list of sizes, which some exporters use to compute the number of
        // elements.
        return call.unknown_operator();
    }
    call.ensure_others_fixed(&[0])?;
    let axes = reduction_axes(call, operator)?.filter(|axes| !axes.is_empty());
    let keep = call.node.integer("keepdims").unwrap_or(1) != 0;
    match axes {
        None if call.node.integer("noop_with_empty_axes").unwrap_or(0) != 0 => {
            Ok(call.repeat_output(tensor))
        }
        None if tensor.has_row_axis() => {
            Err("it reduces over all axes, and so over the rows".into())
        }
        None => Ok(call.repeat_output(SymbolicTensor::batch_independent(None))),
        Some(axes) => Ok(call.repeat_output(reduce_axes(&tensor, &axes, keep)?)),
    }
}

/// The tensor with these axes reduced to size 1, or removed.
fn reduce_axes(
    tensor: &SymbolicTensor,
    axes: &[i64],
    keep: bool,
) -> Result<SymbolicTensor, String> {
    let Some(shape) = &tensor.shape else { return Ok(SymbolicTensor::batch_independent(None)) };
    let axes = value::resolve_axes(axes, shape.len()).ok_or("its axes do not fit its input")?;
    if tensor.row_axis.is_some_and(|axis| axes.contains(&axis)) {
        return Err(OVER_ROWS.into());
    }
    let axis = tensor
        .row_axis
        .map(|axis| if keep { axis } else { axis - axes.iter().filter(|it| **it < axis).count() });
    let sizes =
        shape.iter().enumerate().filter_map(|(at, size)| match (axes.contains(&at), keep) {
            (false, _) => Some(size.clone()),
            (true, true) => Some(SymbolicSize::from_number(1)),
            (true, false) => None,
        });
    Ok(SymbolicTensor {
        row_axis: axis,
        batch_dependent: tensor.batch_dependent,
        ..SymbolicTensor::batch_independent(Some(sizes.collect()))
    })
}

fn arg_max_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let axis = call.node.integer("axis").unwrap_or(0);
    let keep = call.node.integer("keepdims").unwrap_or(1) != 0;
    let made = reduce_axes(call.required_input(0)?, &[axis], keep)?;
    Ok(call.repeat_output(made))
}

/// The axis is an input.
fn cumsum_rule(call: &mut NodeCall<'_>) -> RuleResult {
    call.ensure_others_fixed(&[0])?;
    let axis = call.input(1).and_then(SymbolicTensor::number).ok_or("its axis is not known")?;
    along_axis(call, axis)
}

fn along_attribute_axis(call: &mut NodeCall<'_>, default: i64) -> RuleResult {
    let axis = call.node.integer("axis").unwrap_or(default);
    along_axis(call, axis)
}

/// The output has the shape of the input, and each element depends on all elements along one axis.
fn along_axis(call: &mut NodeCall<'_>, axis: i64) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    if let (Some(rows), Some(rank)) = (tensor.row_axis, tensor.rank()) {
        match value::resolve_axis(axis, rank) {
            Some(axis) if axis != rows => {}
            Some(_) => return Err(OVER_ROWS.into()),
            None => return Err("its axis does not fit its input".into()),
        }
    }
    Ok(call.repeat_output(SymbolicTensor { elements: None, ..tensor }))
}

fn softmax_rule(call: &mut NodeCall<'_>) -> RuleResult {
    if call.version >= 13 {
        return along_attribute_axis(call, -1);
    }
    // In older versions, all axes from this one on were combined.
    along_trailing_axes(call, 1)
}

fn layer_norm_rule(call: &mut NodeCall<'_>) -> RuleResult {
    call.ensure_others_fixed(&[0])?;
    let made = along_trailing_axes(call, -1)?;
    let Some(tensor) = made.into_iter().next() else { return call.unknown_operator() };
    let Some(rank) = tensor.rank() else { return Ok(call.repeat_output(tensor)) };
    let axis = value::resolve_axis(call.node.integer("axis").unwrap_or(-1), rank)
        .ok_or("its axis does not fit its input")?;
    if tensor.has_row_axis() {
        // Scale and bias belong to the normalised axes.
        let inside = |number: usize| match call.input(number) {
            None => true,
            Some(it) => it.rank().is_some_and(|it| it + axis <= rank),
        };
        if !inside(1) || !inside(2) {
            return Err("its scale may have an element for each row".into());
        }
    }
    let reduced: Vec<i64> = (axis..rank).filter_map(|axis| i64::try_from(axis).ok()).collect();
    let statistics = reduce_axes(&tensor, &reduced, true)?;
    let rest = call.node.outputs.len().saturating_sub(1);
    Ok(std::iter::once(tensor).chain(std::iter::repeat_n(statistics, rest)).collect())
}

/// The output depends on all axes from one on together.
fn along_trailing_axes(call: &mut NodeCall<'_>, default: i64) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    if let (Some(rows), Some(rank)) = (tensor.row_axis, tensor.rank()) {
        let axis = value::resolve_axis(call.node.integer("axis").unwrap_or(default), rank);
        if axis.ok_or("its axis does not fit its input")? <= rows {
            return Err(OVER_ROWS.into());
        }
    }
    Ok(call.repeat_output(SymbolicTensor { elements: None, ..tensor }))
}

/// Input and skip are added, and normalised along the last axis.
fn skip_norm_rule(call: &mut NodeCall<'_>) -> RuleResult {
    call.ensure_others_fixed(&[0, 1])?;
    let (input, skip) = (call.required_input(0)?.clone(), call.required_input(1)?.clone());
    let joined = super::elementwise::broadcast_tensors(&[&input, &skip], call.symbols)?;
    if joined.row_axis.is_some_and(|axis| Some(axis + 1) == joined.rank()) {
        return Err(OVER_ROWS.into());
    }
    let flat = |number: usize| call.input(number).is_none_or(|it| it.rank() == Some(1));
    if !(2..call.inputs.len()).all(flat) {
        return Err("its scale may have an element for each row".into());
    }
    Ok(call.repeat_output(joined))
}

fn mean_variance_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let axes = call.node.integers("axes").unwrap_or(&[0, 2, 3]).to_vec();
    let tensor = call.required_input(0)?.clone();
    reduce_axes(&tensor, &axes, true)?;
    Ok(call.repeat_output(tensor))
}

fn top_k_rule(call: &mut NodeCall<'_>) -> RuleResult {
    call.ensure_others_fixed(&[0])?;
    let tensor = call.required_input(0)?.clone();
    let Some(mut shape) = tensor.shape.clone() else { return call.unknown_operator() };
    let axis = value::resolve_axis(call.node.integer("axis").unwrap_or(-1), shape.len())
        .ok_or("its axis does not fit")?;
    if tensor.row_axis == Some(axis) {
        return Err(OVER_ROWS.into());
    }
    let many = call.input(1).and_then(|tensor| tensor.elements.as_ref()?.first()?.clone());
    shape[axis] = many.unwrap_or_else(|| call.symbols.fresh_size());
    Ok(call.repeat_output(SymbolicTensor {
        row_axis: tensor.row_axis,
        batch_dependent: tensor.batch_dependent,
        ..SymbolicTensor::batch_independent(Some(shape))
    }))
}
