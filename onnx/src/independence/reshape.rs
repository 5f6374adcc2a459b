//! Operators that read shapes, create tensors of a shape, or change shapes without moving elements.

use super::node_call::{NodeCall, RuleResult};
use super::size::SymbolicSize;
use super::value::{self, SizeList, SymbolicTensor};
use crate::graph::{ConstantTensor, NodeAttribute};

pub(super) fn apply_reshape(call: &mut NodeCall<'_>, operator: &str) -> Option<RuleResult> {
    match operator {
        "Constant" => Some(constant_rule(call)),
        "ConstantOfShape" => Some(constant_of_shape_rule(call)),
        "Expand" => Some(expand_rule(call)),
        "Flatten" => Some(flatten_rule(call)),
        "Range" => Some(range_rule(call)),
        "Reshape" => Some(reshape_rule(call)),
        "Shape" => Some(shape_rule(call)),
        "Size" => Some(size_rule(call)),
        "Squeeze" => Some(squeeze_rule(call)),
        "Unsqueeze" => Some(unsqueeze_rule(call)),
        _ => None,
    }
}

fn constant_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let made = match (call.node.attributes.get("value"), call.node.integer("value_int")) {
        (Some(NodeAttribute::Constant(constant)), _) => super::constant_tensor(constant),
        (_, Some(number)) => {
            SymbolicTensor::from_element(Some(SymbolicSize::from_number(number)), false)
        }
        _ => match call.node.integers("value_ints") {
            Some(numbers) => SymbolicTensor::from_elements(
                numbers.iter().map(|number| Some(SymbolicSize::from_number(*number))).collect(),
                false,
            ),
            None if call.node.attributes.contains_key("value_float") => {
                SymbolicTensor::batch_independent(Some(vec![]))
            }
            None => SymbolicTensor::batch_independent(None),
        },
    };
    Ok(call.repeat_output(made))
}

fn shape_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?;
    let Some(shape) = tensor.shape.clone() else {
        return Ok(call.repeat_output(SymbolicTensor {
            batch_dependent: tensor.batch_dependent,
            ..SymbolicTensor::batch_independent(None)
        }));
    };
    let end = |name: &str, default: usize| {
        let given = call.node.integer(name).unwrap_or(i64::try_from(default).unwrap_or(i64::MAX));
        let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
        let from_front = if given < 0 { given.saturating_add(rank) } else { given };
        usize::try_from(from_front.clamp(0, rank)).unwrap_or(0)
    };
    let (from, to) = (end("start", 0), end("end", shape.len()));
    let sizes = shape.get(from..to.max(from)).unwrap_or_default();
    Ok(call.repeat_output(SymbolicTensor::from_elements(
        sizes.iter().cloned().map(Some).collect(),
        tensor.batch_dependent,
    )))
}

fn size_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?;
    let size = tensor.shape.as_ref().and_then(SymbolicSize::product);
    let counted = tensor.has_row_axis() || tensor.batch_dependent;
    Ok(call.repeat_output(SymbolicTensor::from_element(size, counted)))
}

/// The elements of the list in an input, and whether its unknown elements may depend on the number
/// of rows.
fn shape_elements(call: &NodeCall<'_>, number: usize) -> Result<Option<(SizeList, bool)>, String> {
    let tensor = call.required_input(number)?;
    if tensor.has_row_axis() {
        return Err("a shape is computed from the contents of rows".into());
    }
    Ok(tensor.elements.clone().map(|elements| (elements, tensor.batch_dependent)))
}

/// A shape with fresh symbols for unknown sizes. These come from the shapes of the requests, which
/// are equal for all requests that are merged.
fn resolve_shape(
    call: &mut NodeCall<'_>,
    elements: SizeList,
    counted: bool,
) -> Option<Vec<SymbolicSize>> {
    if counted && elements.iter().any(Option::is_none) {
        return None;
    }
    Some(
        elements
            .into_iter()
            .map(|element| element.unwrap_or_else(|| call.symbols.fresh_size()))
            .collect(),
    )
}

/// The position in a shape that depends on the number of rows, if there is exactly one.
fn find_row_axis(shape: &[SymbolicSize]) -> Option<usize> {
    let mut places =
        shape.iter().enumerate().filter(|(_, size)| size.has_rows()).map(|(place, _)| place);
    places.next().filter(|_| places.next().is_none())
}

/// The same number in every element, so the rows are equal.
fn constant_of_shape_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let Some((elements, counted)) = shape_elements(call, 0)? else {
        let counted = call.required_input(0)?.batch_dependent;
        return Ok(call.repeat_output(SymbolicTensor {
            batch_dependent: counted,
            ..SymbolicTensor::batch_independent(None)
        }));
    };
    let Some(shape) = resolve_shape(call, elements, counted) else {
        return Ok(call.repeat_output(SymbolicTensor::batch_dependent(None)));
    };
    if !shape.iter().any(SymbolicSize::has_rows) {
        let value = match call.node.attributes.get("value") {
            Some(NodeAttribute::Constant(ConstantTensor { integers: Some(numbers), .. })) => {
                numbers.first().copied()
            }
            _ => None,
        };
        let made = match (value, shape.as_slice()) {
            (Some(value), []) => {
                SymbolicTensor::from_element(Some(SymbolicSize::from_number(value)), false)
            }
            // A list of equal numbers, with which exporters compare shapes.
            (Some(value), [length])
                if (0..=value::MAX_ELEMENTS).contains(&length.as_number().unwrap_or(-1)) =>
            {
                let length =
                    length.as_number().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
                SymbolicTensor::from_elements(
                    vec![Some(SymbolicSize::from_number(value)); length],
                    false,
                )
            }
            _ => SymbolicTensor::batch_independent(Some(shape)),
        };
        return Ok(call.repeat_output(made));
    }
    let axis = find_row_axis(&shape).ok_or("it makes a tensor that counts rows along two axes")?;
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(shape, axis)))
}

fn range_rule(call: &mut NodeCall<'_>) -> RuleResult {
    if call.has_rows() {
        return Err("a range is computed from the contents of rows".into());
    }
    let counted = call.inputs.iter().flatten().any(|tensor| tensor.batch_dependent);
    let ends: Option<Vec<SymbolicSize>> =
        (0..3).map(|number| call.input(number)?.elements.as_ref()?.first()?.clone()).collect();
    let length = match ends.as_deref() {
        Some([from, to, step]) if from.equals_number(0) && step.equals_number(1) => {
            Some(to.clone())
        }
        _ => None,
    };
    let length = length.or_else(|| (!counted).then(|| call.symbols.fresh_size()));
    // If the length is the number of rows, the elements are the numbers of the rows and differ
    // between rows. So the result must not count as a tensor of rows.
    Ok(call.repeat_output(SymbolicTensor {
        batch_dependent: counted,
        ..SymbolicTensor::batch_independent(length.map(|length| vec![length]))
    }))
}

fn expand_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    let target = match shape_elements(call, 1)? {
        Some((elements, counted)) => resolve_shape(call, elements, counted),
        None => None,
    };
    let Some(target) = target else {
        let counted = tensor.batch_dependent || call.required_input(1)?.batch_dependent;
        if tensor.has_row_axis() {
            return Err("the shape that it expands to is not followed".into());
        }
        return Ok(call.repeat_output(SymbolicTensor {
            batch_dependent: counted,
            ..SymbolicTensor::batch_independent(None)
        }));
    };
    if tensor.batch_dependent {
        return Ok(call.repeat_output(SymbolicTensor::batch_dependent(None)));
    }
    // Equivalent to broadcasting with a tensor of that shape whose elements are all equal.
    let other = match find_row_axis(&target) {
        Some(axis) => SymbolicTensor::with_row_axis(target, axis),
        None if target.iter().any(SymbolicSize::has_rows) => {
            return Err("it counts rows along two axes".into());
        }
        None => SymbolicTensor::batch_independent(Some(target)),
    };
    if !tensor.has_row_axis() && !other.has_row_axis() {
        let shapes =
            tensor.shape.as_ref().zip(other.shape.as_ref()).map(|(a, b)| [a.clone(), b.clone()]);
        let shape =
            shapes.map(|shapes| super::elementwise::broadcast_shapes(&shapes, call.symbols));
        return Ok(call.repeat_output(SymbolicTensor::batch_independent(shape)));
    }
    let made = super::elementwise::broadcast_tensors(&[&tensor, &other], call.symbols)?;
    Ok(call.repeat_output(made))
}

fn reshape_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    // In the first operator sets the shape was an attribute.
    let target = match call.node.integers("shape") {
        Some(numbers) => Some((
            numbers.iter().map(|number| Some(SymbolicSize::from_number(*number))).collect(),
            false,
        )),
        None => shape_elements(call, 1)?,
    };
    let Some((elements, counted)) = target else {
        if tensor.has_row_axis() {
            return Err("the shape that it gives to rows is not followed".into());
        }
        let counted =
            tensor.batch_dependent || call.input(1).is_some_and(|tensor| tensor.batch_dependent);
        return Ok(call.repeat_output(SymbolicTensor {
            batch_dependent: counted,
            ..SymbolicTensor::batch_independent(None)
        }));
    };
    let zero_is_zero = call.node.integer("allowzero").unwrap_or(0) != 0;
    if counted && elements.iter().any(Option::is_none) {
        if tensor.has_row_axis() {
            return Err("the shape that it gives to rows depends on their number in a way that is not followed".into());
        }
        return Ok(call.repeat_output(SymbolicTensor::batch_dependent(None)));
    }
    let mut shape = Vec::with_capacity(elements.len());
    let mut open = None;
    for (place, element) in elements.into_iter().enumerate() {
        shape.push(match element {
            Some(size) if size.equals_number(-1) => {
                open = Some(place);
                SymbolicSize::from_number(1)
            }
            Some(size) if size.equals_number(0) && !zero_is_zero => {
                let kept = tensor.shape.as_ref().and_then(|shape| shape.get(place).cloned());
                match kept {
                    Some(size) => size,
                    None if tensor.has_row_axis() => {
                        return Err("its shape does not fit its input".into());
                    }
                    None => call.symbols.fresh_size(),
                }
            }
            Some(size) => size,
            None => call.symbols.fresh_size(),
        });
    }
    if let Some(place) = open {
        let rest = SymbolicSize::product(&shape);
        let all = tensor.shape.as_ref().and_then(SymbolicSize::product);
        let size = all.zip(rest).and_then(|(all, rest)| all.exact_quotient(&rest));
        shape[place] = match size {
            Some(size) => size,
            None if tensor.has_row_axis() || tensor.batch_dependent => {
                return Err("how many rows its shape leaves is not followed".into());
            }
            None => call.symbols.fresh_size(),
        };
    }
    let made = reshape_tensor(&tensor, shape)?;
    Ok(call.repeat_output(made))
}

/// The tensor in another shape. Elements keep their order, so the product of the sizes after the
/// axis of the rows keeps its value within each row, and so does the number of sequences of all
/// rows before it: the product of the sizes before the axis, and `repeats`.
fn reshape_tensor(
    tensor: &SymbolicTensor,
    shape: Vec<SymbolicSize>,
) -> Result<SymbolicTensor, String> {
    let Some(axis) = tensor.row_axis else {
        // A list of sizes that becomes another list or a single size.
        let elements = tensor.elements.clone().filter(|_| shape.len() <= 1);
        let counted = tensor.batch_dependent || shape.iter().any(SymbolicSize::has_rows);
        return Ok(SymbolicTensor {
            batch_dependent: counted,
            elements,
            ..SymbolicTensor::batch_independent(Some(shape))
        });
    };
    let known = tensor.shape.as_deref().unwrap_or_default();
    let place = find_row_axis(&shape)
        .ok_or("the shape that it gives to rows does not tell where they are")?;
    let sequences = SymbolicSize::product(known[..axis].iter().chain(&tensor.repeats));
    let before = SymbolicSize::product(&shape[..place]);
    let repeats =
        sequences.zip(before).and_then(|(sequences, before)| sequences.exact_quotient(&before));
    let repeats = repeats
        .filter(|repeats| shape[place].exact_quotient(repeats).is_some_and(|size| size.has_rows()));
    let repeats =
        repeats.ok_or("it gives rows a shape in which they are no longer in one piece each")?;
    let repeats = Some(repeats).filter(|repeats| !repeats.equals_number(1));
    Ok(SymbolicTensor { repeats, ..SymbolicTensor::with_row_axis(shape, place) })
}

fn flatten_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    let Some(shape) = &tensor.shape else { return call.unknown_operator() };
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let axis = call.node.integer("axis").unwrap_or(1);
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis })
        .ok()
        .filter(|axis| *axis <= shape.len());
    let axis = axis.ok_or("its axis does not fit its input")?;
    let sizes = [SymbolicSize::product(&shape[..axis]), SymbolicSize::product(&shape[axis..])];
    let [Some(front), Some(back)] = sizes else { return Err("its shape is not followed".into()) };
    let made = reshape_tensor(&tensor, vec![front, back])?;
    Ok(call.repeat_output(made))
}

/// Axes from an input in newer operator sets, else from an attribute.
fn axes_argument(call: &NodeCall<'_>) -> Result<Option<Vec<i64>>, String> {
    match call.input(1) {
        Some(tensor) => tensor.numbers().map(Some).ok_or_else(|| "its axes are not known".into()),
        None => Ok(call.node.integers("axes").map(<[i64]>::to_vec)),
    }
}

fn squeeze_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    let Some(shape) = &tensor.shape else { return call.unknown_operator() };
    let axes = match axes_argument(call)?.filter(|axes| !axes.is_empty()) {
        Some(axes) => axes,
        None if tensor.has_row_axis() => {
            return Err("it drops every axis with one element, and so that of a single row".into());
        }
        None if shape.iter().all(|size| size.as_number().is_some()) => (0_i64..)
            .zip(shape)
            .filter(|(_, size)| size.equals_number(1))
            .map(|(axis, _)| axis)
            .collect(),
        None => return call.unknown_operator(),
    };
    let axes = value::resolve_axes(&axes, shape.len()).ok_or("its axes do not fit its input")?;
    if tensor.row_axis.is_some_and(|axis| axes.contains(&axis)) {
        return Err("it drops the axis of the rows".into());
    }
    let left = shape
        .iter()
        .enumerate()
        .filter(|(at, _)| !axes.contains(at))
        .map(|(_, size)| size.clone())
        .collect();
    let axis = tensor.row_axis.map(|axis| axis - axes.iter().filter(|it| **it < axis).count());
    Ok(call.repeat_output(SymbolicTensor { shape: Some(left), row_axis: axis, ..tensor }))
}

fn unsqueeze_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    let Some(shape) = &tensor.shape else { return call.unknown_operator() };
    let axes = axes_argument(call)?.ok_or("its axes are not known")?;
    let axes = value::resolve_axes(&axes, shape.len() + axes.len())
        .ok_or("its axes do not fit its input")?;
    let mut rest = shape.iter().cloned();
    let (mut sizes, mut axis) = (Vec::new(), None);
    for place in 0..shape.len() + axes.len() {
        if axes.contains(&place) {
            sizes.push(SymbolicSize::from_number(1));
            continue;
        }
        if tensor.row_axis == Some(shape.len() - rest.len()) {
            axis = Some(place);
        }
        sizes.extend(rest.next());
    }
    // The elements of a single size are those of a list with one element.
    let elements = tensor.elements.clone().filter(|_| sizes.len() <= 1);
    Ok(call.repeat_output(SymbolicTensor {
        row_axis: axis,
        batch_dependent: tensor.batch_dependent,
        elements,
        ..SymbolicTensor::batch_independent(Some(sizes))
    }))
}
