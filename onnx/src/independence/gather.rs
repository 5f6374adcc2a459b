//! Operators that select elements by indices, or write elements at indices.

use super::node_call::{NodeCall, RuleResult};
use super::size::SymbolicSize;
use super::value::{self, SymbolicTensor};

pub(super) fn apply_gather(call: &mut NodeCall<'_>, operator: &str) -> Option<RuleResult> {
    match operator {
        "Gather" => Some(gather_rule(call)),
        "GatherElements" => Some(gather_elements_rule(call)),
        "GatherND" => Some(gather_nd_rule(call)),
        "ScatterElements" | "Scatter" => Some(scatter_elements_rule(call)),
        _ => None,
    }
}

fn gather_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let (data, indices) = (call.required_input(0)?.clone(), call.required_input(1)?.clone());
    let axis = call.node.integer("axis").unwrap_or(0);
    if !call.has_rows() {
        if let Some(tensor) = pick_sizes(&data, &indices) {
            return Ok(call.repeat_output(tensor));
        }
        let shape = match (&data.shape, &indices.shape) {
            (Some(data), Some(indices)) => value::resolve_axis(axis, data.len())
                .map(|axis| [&data[..axis], indices, &data[axis + 1..]].concat()),
            _ => None,
        };
        return Ok(call.output_without_rows(shape));
    }
    if data.batch_dependent || indices.batch_dependent {
        return Err("it picks by something that depends on the number of rows".into());
    }
    let (Some(of_data), Some(of_indices)) = (&data.shape, &indices.shape) else {
        return Err("the shape of one of its inputs is not known".into());
    };
    let axis = value::resolve_axis(axis, of_data.len()).ok_or("its axis does not fit its input")?;
    let shape = [&of_data[..axis], of_indices, &of_data[axis + 1..]].concat();
    let rows = match (data.row_axis, indices.row_axis) {
        (Some(rows), None) if rows < axis => rows,
        (Some(rows), None) if rows > axis => rows + of_indices.len() - 1,
        (Some(_), None) => return Err("it picks among the rows".into()),
        (None, Some(rows)) => axis + rows,
        _ => return Err("it picks among rows by the contents of rows".into()),
    };
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(shape, rows)))
}

/// The elements that are selected from a list of sizes.
fn pick_sizes(data: &SymbolicTensor, indices: &SymbolicTensor) -> Option<SymbolicTensor> {
    let (elements, numbers) = (data.elements.as_ref()?, indices.numbers()?);
    let length = i64::try_from(elements.len()).ok()?;
    let pick = |index: &i64| {
        let index = usize::try_from(if *index < 0 { index + length } else { *index }).ok()?;
        elements.get(index).cloned()
    };
    let made = numbers.iter().map(pick).collect::<Option<Vec<_>>>()?;
    let unknown = data.batch_dependent && made.iter().any(Option::is_none);
    let list = SymbolicTensor::from_elements(made, unknown);
    Some(if indices.rank() == Some(0) {
        SymbolicTensor { shape: Some(vec![]), ..list }
    } else {
        list
    })
}

/// Works row by row when both inputs hold the same rows along an axis other than the one of the
/// indices.
fn gather_elements_rule(call: &mut NodeCall<'_>) -> RuleResult {
    if !call.has_rows() {
        return call.unknown_operator();
    }
    let (data, indices) = (call.required_input(0)?.clone(), call.required_input(1)?.clone());
    let (Some(of_data), Some(of_indices)) = (&data.shape, &indices.shape) else {
        return Err("the shape of one of its inputs is not known".into());
    };
    let axis = value::resolve_axis(call.node.integer("axis").unwrap_or(0), of_data.len())
        .ok_or("its axis does not fit")?;
    match (data.row_axis, indices.row_axis) {
        (Some(one), Some(other))
            if one == other && one != axis && of_data[one] == of_indices[one] =>
        {
            Ok(call.repeat_output(SymbolicTensor::with_row_axis(of_indices.clone(), one)))
        }
        _ => Err("it picks among the rows".into()),
    }
}

fn gather_nd_rule(call: &mut NodeCall<'_>) -> RuleResult {
    if !call.has_rows() {
        return call.unknown_operator();
    }
    let (data, indices) = (call.required_input(0)?.clone(), call.required_input(1)?.clone());
    let batch = call.node.integer("batch_dims").unwrap_or(0);
    let (Some(of_data), Some(of_indices)) = (&data.shape, &indices.shape) else {
        return Err("the shape of one of its inputs is not known".into());
    };
    let batch = usize::try_from(batch).unwrap_or(0);
    if data.batch_dependent || indices.batch_dependent {
        return Err("it picks by something that depends on the number of rows".into());
    }
    let depth = of_indices
        .last()
        .and_then(SymbolicSize::as_number)
        .and_then(|depth| usize::try_from(depth).ok());
    let depth = depth.ok_or("along how many axes it picks is not known")?;
    if of_indices.len() <= batch || batch + depth > of_data.len() {
        return Err("its inputs do not fit one another".into());
    }
    let picks = of_indices.len() - 1;
    let axis = match (data.row_axis, indices.row_axis) {
        (Some(axis), Some(other)) if axis == other && axis < batch => {
            if of_data.get(axis) != of_indices.get(axis) {
                return Err("its inputs do not fit one another".into());
            }
            axis
        }
        // The same elements are selected from each row.
        (Some(axis), None) if axis >= batch + depth => axis - batch - depth + picks,
        // Each row selects its own elements from a tensor that is the same for all rows.
        (None, Some(axis)) if (batch..picks).contains(&axis) => axis,
        _ => return Err("it picks among the rows".into()),
    };
    let shape = [&of_indices[..picks], &of_data[batch + depth..]].concat();
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(shape, axis)))
}

fn scatter_elements_rule(call: &mut NodeCall<'_>) -> RuleResult {
    if !call.has_rows() {
        return call.unknown_operator();
    }
    let data = call.required_input(0)?.clone();
    let shape = call.input_shape(0)?;
    let axis = value::resolve_axis(call.node.integer("axis").unwrap_or(0), shape.len())
        .ok_or("its axis does not fit")?;
    let rows = data.row_axis.filter(|rows| *rows != axis).ok_or("it writes among the rows")?;
    for number in [1, 2] {
        let other = call.required_input(number)?;
        let same = other.row_axis == Some(rows)
            && other.shape.as_ref().is_some_and(|it| it.get(rows) == shape.get(rows));
        if !same {
            return Err("what it writes is not made of the same rows".into());
        }
    }
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(shape, rows)))
}
