//! Operators that move, cut, repeat and concatenate elements.

use super::node_call::{NodeCall, RuleResult};
use super::size::SymbolicSize;
use super::value::{self, SizeList, SymbolicTensor};

pub(super) fn apply_movement(call: &mut NodeCall<'_>, operator: &str) -> Option<RuleResult> {
    match operator {
        "Concat" => Some(concat_rule(call)),
        "OneHot" => Some(one_hot_rule(call)),
        "Pad" => Some(pad_rule(call)),
        "Slice" => Some(slice_rule(call)),
        "Split" => Some(split_rule(call)),
        "Tile" => Some(tile_rule(call)),
        "Transpose" => Some(transpose_rule(call)),
        "Trilu" => Some(trilu_rule(call)),
        _ => None,
    }
}

const ALONG_ROWS: &str = "it works along the axis of the rows";

fn concat_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensors: Vec<SymbolicTensor> =
        call.inputs.iter().flatten().map(|tensor| (*tensor).clone()).collect();
    if !call.has_rows() {
        let lists: Option<Vec<SizeList>> =
            tensors.iter().map(|tensor| tensor.elements.clone()).collect();
        let flat = tensors.iter().all(|tensor| tensor.rank() == Some(1));
        if let (Some(lists), true) = (lists, flat) {
            let unknown = tensors
                .iter()
                .any(|it| it.batch_dependent && it.elements.iter().flatten().any(Option::is_none));
            return Ok(call.repeat_output(SymbolicTensor::from_elements(lists.concat(), unknown)));
        }
        let shapes: Option<Vec<Vec<SymbolicSize>>> =
            tensors.iter().map(|tensor| tensor.shape.clone()).collect();
        let shape = shapes.and_then(|shapes| concat_shape(call, &shapes).ok());
        return Ok(call.output_without_rows(shape));
    }
    let shapes: Option<Vec<Vec<SymbolicSize>>> =
        tensors.iter().map(|tensor| tensor.shape.clone()).collect();
    let shapes = shapes.ok_or("the shape of one of its inputs is not known")?;
    let rows = tensors.iter().zip(&shapes).map(|(tensor, shape)| {
        let axis = tensor.row_axis.ok_or("it joins rows with a tensor that is not made of them")?;
        Ok((axis, shape.get(axis).cloned()))
    });
    let rows = rows.collect::<Result<Vec<_>, String>>()?;
    let (axis, _) = rows[0];
    if rows.iter().any(|other| *other != rows[0]) {
        return Err("it joins rows with rows along another axis".into());
    }
    let along = value::resolve_axis(call.node.integer("axis").unwrap_or(0), shapes[0].len());
    if along.ok_or("its axis does not fit its inputs")? == axis {
        return Err(ALONG_ROWS.into());
    }
    let shape = concat_shape(call, &shapes)?;
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(shape, axis)))
}

/// The shape of concatenated tensors.
fn concat_shape(
    call: &mut NodeCall<'_>,
    shapes: &[Vec<SymbolicSize>],
) -> Result<Vec<SymbolicSize>, String> {
    let mut shape = shapes.first().cloned().ok_or("it has no inputs")?;
    let along = value::resolve_axis(call.node.integer("axis").unwrap_or(0), shape.len());
    let along = along.filter(|_| shapes.iter().all(|other| other.len() == shape.len()));
    let along = along.ok_or("its axis does not fit its inputs")?;
    let sizes: Vec<&SymbolicSize> = shapes.iter().map(|shape| &shape[along]).collect();
    let numbers: Option<Vec<i64>> = sizes.iter().map(|size| size.as_number()).collect();
    shape[along] = match numbers {
        Some(numbers) => SymbolicSize::from_number(
            numbers.iter().fold(0, |sum, number| sum.saturating_add(*number)),
        ),
        None => call.symbols.computed_size("Concat", &sizes),
    };
    Ok(shape)
}

fn one_hot_rule(call: &mut NodeCall<'_>) -> RuleResult {
    if !call.has_rows() {
        return call.unknown_operator();
    }
    call.ensure_others_fixed(&[0])?;
    let (tensor, mut shape) = (call.required_input(0)?.clone(), call.input_shape(0)?);
    let axis = call.node.integer("axis").unwrap_or(-1);
    let axis =
        value::resolve_axis(axis, shape.len() + 1).ok_or("its axis does not fit its input")?;
    let depth = call.input(1).and_then(|tensor| tensor.elements.as_ref()?.first()?.clone());
    shape.insert(axis, depth.unwrap_or_else(|| call.symbols.fresh_size()));
    let rows = tensor.row_axis.map_or(0, |rows| if rows < axis { rows } else { rows + 1 });
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(shape, rows)))
}

fn pad_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    if !tensor.has_row_axis() {
        return call.unknown_operator();
    }
    call.ensure_others_fixed(&[0])?;
    let shape = call.input_shape(0)?;
    let pads = match call.node.integers("pads") {
        Some(pads) => pads.to_vec(),
        None => call.input_numbers(1).ok_or("how much it adds is not known")?,
    };
    let axes = match call.input(3) {
        Some(axes) => {
            let numbers = axes.numbers().ok_or("its axes are not known")?;
            value::resolve_axes(&numbers, shape.len()).ok_or("its axes do not fit its input")?
        }
        None => (0..shape.len()).collect(),
    };
    if pads.len() != axes.len() * 2 {
        return Err("how much it adds does not fit its axes".into());
    }
    let mut sizes = shape;
    for (number, axis) in axes.iter().enumerate() {
        let added = [pads[number], pads[number + axes.len()]];
        if added == [0, 0] {
            continue;
        }
        if tensor.row_axis == Some(*axis) {
            return Err("it adds rows".into());
        }
        let size = &sizes[*axis];
        sizes[*axis] = match size.as_number() {
            Some(size) => {
                SymbolicSize::from_number(size.saturating_add(added[0]).saturating_add(added[1]))
            }
            None => call.symbols.computed_size(
                "Pad",
                &[size, &SymbolicSize::from_number(added[0]), &SymbolicSize::from_number(added[1])],
            ),
        };
    }
    Ok(call.repeat_output(SymbolicTensor { shape: Some(sizes), elements: None, ..tensor }))
}

fn slice_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    let Some(shape) = tensor.shape.clone() else { return call.unknown_operator() };
    if call.inputs.iter().skip(1).flatten().any(|tensor| tensor.has_row_axis()) {
        return Err("what it cuts out depends on the contents of rows".into());
    }
    // In the first operator sets starts, ends and axes were attributes.
    let given = |name: &str, number: usize| match call.node.integers(name) {
        Some(numbers) => {
            Some(numbers.iter().map(|number| Some(SymbolicSize::from_number(*number))).collect())
        }
        None => call.input(number).and_then(|tensor| tensor.elements.clone()),
    };
    let (starts, ends): (Option<SizeList>, Option<SizeList>) =
        (given("starts", 1), given("ends", 2));
    let listed: Option<Vec<i64>> = match (call.node.integers("axes"), call.input(3)) {
        (Some(axes), _) => Some(axes.to_vec()),
        (None, Some(axes)) => axes.numbers(),
        (None, None) => starts.as_ref().map(|starts| (0_i64..).take(starts.len()).collect()),
    };
    let axes = listed.and_then(|axes| value::resolve_axes(&axes, shape.len()));
    if tensor.elements.is_some()
        && let Some(made) = slice_sizes(
            &tensor,
            starts.as_deref(),
            ends.as_deref(),
            call.input(4).map(SymbolicTensor::number),
        )
    {
        return Ok(call.repeat_output(made));
    }
    let counted = call.inputs.iter().skip(1).flatten().any(|tensor| tensor.batch_dependent)
        || tensor.batch_dependent;
    let Some(axes) = axes else {
        if tensor.has_row_axis() {
            return Err("along which axes it cuts is not known".into());
        }
        return Ok(call.repeat_output(SymbolicTensor {
            batch_dependent: counted,
            ..SymbolicTensor::batch_independent(None)
        }));
    };
    if let Some(rows) = tensor.row_axis {
        if axes.contains(&rows) {
            return Err("it cuts among the rows".into());
        }
        if counted {
            return Err("what it cuts out depends on the number of rows".into());
        }
    }
    let mut sizes = shape;
    for axis in axes {
        sizes[axis] = call.symbols.fresh_size();
    }
    Ok(call.repeat_output(SymbolicTensor {
        row_axis: tensor.row_axis,
        batch_dependent: counted,
        ..SymbolicTensor::batch_independent(Some(sizes))
    }))
}

/// A slice of a list of sizes.
fn slice_sizes(
    tensor: &SymbolicTensor,
    starts: Option<&[Option<SymbolicSize>]>,
    ends: Option<&[Option<SymbolicSize>]>,
    step: Option<Option<i64>>,
) -> Option<SymbolicTensor> {
    let (elements, length) =
        (tensor.elements.as_ref()?, i64::try_from(tensor.elements.as_ref()?.len()).ok()?);
    if tensor.rank() != Some(1) || !matches!(step, None | Some(Some(1))) {
        return None;
    }
    let end = |given: Option<&[Option<SymbolicSize>]>| match given? {
        [Some(size)] => {
            let number = size.as_number()?;
            let from_front = if number < 0 { number.saturating_add(length) } else { number };
            usize::try_from(from_front.clamp(0, length)).ok()
        }
        _ => None,
    };
    let (from, to) = (end(starts)?, end(ends)?);
    let made = elements.get(from..to.max(from))?.to_vec();
    let unknown = tensor.batch_dependent && made.iter().any(Option::is_none);
    Some(SymbolicTensor::from_elements(made, unknown))
}

fn split_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    let Some(shape) = tensor.shape.clone() else { return call.unknown_operator() };
    call.ensure_others_fixed(&[0])?;
    let axis = value::resolve_axis(call.node.integer("axis").unwrap_or(0), shape.len())
        .ok_or("its axis does not fit")?;
    if tensor.row_axis == Some(axis) {
        return Err("it takes rows apart from one another".into());
    }
    let parts = call.node.outputs.len();
    let sizes = match call.node.integers("split") {
        Some(numbers) => Some(numbers.to_vec()),
        None => call.input_numbers(1),
    };
    let even = shape[axis]
        .exact_quotient(&SymbolicSize::from_number(i64::try_from(parts).unwrap_or(i64::MAX)));
    let made = (0..parts).map(|part| {
        let size = match (&sizes, &even) {
            (Some(sizes), _) => sizes.get(part).map(|size| SymbolicSize::from_number(*size)),
            (None, even) => even.clone(),
        };
        let mut shape = shape.clone();
        shape[axis] = size.unwrap_or_else(|| call.symbols.fresh_size());
        SymbolicTensor {
            row_axis: tensor.row_axis,
            batch_dependent: tensor.batch_dependent,
            ..SymbolicTensor::batch_independent(Some(shape))
        }
    });
    Ok(made.collect())
}

fn tile_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    let repeats = call.required_input(1)?.clone();
    if repeats.has_row_axis() {
        return Err("how often it repeats depends on the contents of rows".into());
    }
    let (Some(shape), Some(elements)) = (&tensor.shape, &repeats.elements) else {
        if tensor.has_row_axis() {
            return Err("how often it repeats is not known".into());
        }
        return Ok(call.repeat_output(SymbolicTensor {
            batch_dependent: tensor.batch_dependent || repeats.batch_dependent,
            ..SymbolicTensor::batch_independent(None)
        }));
    };
    if elements.len() != shape.len() {
        return Err("how often it repeats does not fit its input".into());
    }
    let mut rows = tensor.row_axis;
    let mut sizes = Vec::with_capacity(shape.len());
    for (place, (size, repeat)) in shape.iter().zip(elements).enumerate() {
        let Some(repeat) = repeat else {
            if repeats.batch_dependent || tensor.row_axis == Some(place) {
                return Err("how often it repeats is not followed".into());
            }
            sizes.push(call.symbols.fresh_size());
            continue;
        };
        if tensor.row_axis == Some(place) && !repeat.equals_number(1) {
            return Err("it repeats the rows one behind the other".into());
        }
        if repeat.has_rows() {
            // One copy for each row.
            if rows.is_some() || !size.equals_number(1) || tensor.batch_dependent {
                return Err("it repeats something by the number of rows".into());
            }
            rows = Some(place);
        }
        sizes.push(size.times(repeat).ok_or("its shape is not followed")?);
    }
    Ok(call.repeat_output(SymbolicTensor {
        row_axis: rows,
        batch_dependent: tensor.batch_dependent,
        ..SymbolicTensor::batch_independent(Some(sizes))
    }))
}

fn transpose_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let tensor = call.required_input(0)?.clone();
    let Some(shape) = &tensor.shape else { return call.unknown_operator() };
    let order: Vec<usize> = match call.node.integers("perm") {
        Some(order) => {
            value::resolve_axes(order, shape.len()).ok_or("its order does not fit its input")?
        }
        None => (0..shape.len()).rev().collect(),
    };
    let mut seen = order.clone();
    seen.sort_unstable();
    if !seen.iter().copied().eq(0..shape.len()) {
        return Err("its order does not fit its input".into());
    }
    let sizes = order.iter().map(|axis| shape[*axis].clone()).collect();
    let rows = tensor.row_axis.and_then(|rows| order.iter().position(|axis| *axis == rows));
    let elements = tensor.elements.clone().filter(|_| shape.len() <= 1);
    Ok(call.repeat_output(SymbolicTensor {
        row_axis: rows,
        batch_dependent: tensor.batch_dependent,
        elements,
        ..SymbolicTensor::batch_independent(Some(sizes))
    }))
}

/// Works on the last two axes.
fn trilu_rule(call: &mut NodeCall<'_>) -> RuleResult {
    call.ensure_others_fixed(&[0])?;
    let tensor = call.required_input(0)?.clone();
    if let (Some(rows), Some(rank)) = (tensor.row_axis, tensor.rank())
        && rows + 2 >= rank
    {
        return Err(ALONG_ROWS.into());
    }
    Ok(call.repeat_output(SymbolicTensor { elements: None, ..tensor }))
}
