//! Operators that move, cut, repeat and join elements.

use super::size::Size;
use super::value::{self, Elements, Tensor};
use super::{Call, Made};

pub(super) fn apply(call: &mut Call<'_>, operator: &str) -> Option<Made> {
    match operator {
        "Concat" => Some(concat(call)),
        "OneHot" => Some(one_hot(call)),
        "Pad" => Some(pad(call)),
        "Slice" => Some(slice(call)),
        "Split" => Some(split(call)),
        "Tile" => Some(tile(call)),
        "Transpose" => Some(transpose(call)),
        "Trilu" => Some(trilu(call)),
        _ => None,
    }
}

const ALONG_ROWS: &str = "it works along the axis of the rows";

fn concat(call: &mut Call<'_>) -> Made {
    let tensors: Vec<Tensor> = call.inputs.iter().flatten().map(|tensor| (*tensor).clone()).collect();
    if !call.has_rows() {
        let lists: Option<Vec<Elements>> = tensors.iter().map(|tensor| tensor.elements.clone()).collect();
        let flat = tensors.iter().all(|tensor| tensor.rank() == Some(1));
        if let (Some(lists), true) = (lists, flat) {
            let unknown = tensors.iter().any(|it| it.counted && it.elements.iter().flatten().any(Option::is_none));
            return Ok(call.all(Tensor::list(lists.concat(), unknown)));
        }
        let shapes: Option<Vec<Vec<Size>>> = tensors.iter().map(|tensor| tensor.shape.clone()).collect();
        let shape = shapes.and_then(|shapes| joined(call, &shapes).ok());
        return Ok(call.without_rows(shape));
    }
    let shapes: Option<Vec<Vec<Size>>> = tensors.iter().map(|tensor| tensor.shape.clone()).collect();
    let shapes = shapes.ok_or("the shape of one of its inputs is not known")?;
    let rows = tensors.iter().zip(&shapes).map(|(tensor, shape)| {
        let axis = tensor.axis.ok_or("it joins rows with a tensor that is not made of them")?;
        Ok((axis, shape.get(axis).cloned()))
    });
    let rows = rows.collect::<Result<Vec<_>, String>>()?;
    let (axis, _) = rows[0];
    if rows.iter().any(|other| *other != rows[0]) {
        return Err("it joins rows with rows along another axis".into());
    }
    let along = value::axis(call.node.integer("axis").unwrap_or(0), shapes[0].len());
    if along.ok_or("its axis does not fit its inputs")? == axis {
        return Err(ALONG_ROWS.into());
    }
    let shape = joined(call, &shapes)?;
    Ok(call.all(Tensor::rows(shape, axis)))
}

/// The shape of tensors one behind the other.
fn joined(call: &mut Call<'_>, shapes: &[Vec<Size>]) -> Result<Vec<Size>, String> {
    let mut shape = shapes.first().cloned().ok_or("it has no inputs")?;
    let along = value::axis(call.node.integer("axis").unwrap_or(0), shape.len());
    let along = along.filter(|_| shapes.iter().all(|other| other.len() == shape.len()));
    let along = along.ok_or("its axis does not fit its inputs")?;
    let sizes: Vec<&Size> = shapes.iter().map(|shape| &shape[along]).collect();
    let numbers: Option<Vec<i64>> = sizes.iter().map(|size| size.as_number()).collect();
    shape[along] = match numbers {
        Some(numbers) => Size::number(numbers.iter().fold(0, |sum, number| sum.saturating_add(*number))),
        None => call.symbols.computed("Concat", &sizes),
    };
    Ok(shape)
}

fn one_hot(call: &mut Call<'_>) -> Made {
    if !call.has_rows() {
        return call.unknown();
    }
    call.others_are_fixed(&[0])?;
    let (tensor, mut shape) = (call.need(0)?.clone(), call.shape_of(0)?);
    let axis = call.node.integer("axis").unwrap_or(-1);
    let axis = value::axis(axis, shape.len() + 1).ok_or("its axis does not fit its input")?;
    let depth = call.input(1).and_then(|tensor| tensor.elements.as_ref()?.first()?.clone());
    shape.insert(axis, depth.unwrap_or_else(|| call.symbols.fresh()));
    let rows = tensor.axis.map_or(0, |rows| if rows < axis { rows } else { rows + 1 });
    Ok(call.all(Tensor::rows(shape, rows)))
}

fn pad(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    if !tensor.is_rows() {
        return call.unknown();
    }
    call.others_are_fixed(&[0])?;
    let shape = call.shape_of(0)?;
    let pads = match call.node.integers("pads") {
        Some(pads) => pads.to_vec(),
        None => call.numbers(1).ok_or("how much it adds is not known")?,
    };
    let axes = match call.input(3) {
        Some(axes) => {
            let numbers = axes.numbers().ok_or("its axes are not known")?;
            value::axes(&numbers, shape.len()).ok_or("its axes do not fit its input")?
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
        if tensor.axis == Some(*axis) {
            return Err("it adds rows".into());
        }
        let size = &sizes[*axis];
        sizes[*axis] = match size.as_number() {
            Some(size) => Size::number(size.saturating_add(added[0]).saturating_add(added[1])),
            None => call.symbols.computed("Pad", &[size, &Size::number(added[0]), &Size::number(added[1])]),
        };
    }
    Ok(call.all(Tensor { shape: Some(sizes), elements: None, ..tensor }))
}

fn slice(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    let Some(shape) = tensor.shape.clone() else { return call.unknown() };
    if call.inputs.iter().skip(1).flatten().any(|tensor| tensor.is_rows()) {
        return Err("what it cuts out depends on the contents of rows".into());
    }
    // In the first operator sets starts, ends and axes were attributes.
    let given = |name: &str, number: usize| match call.node.integers(name) {
        Some(numbers) => Some(numbers.iter().map(|number| Some(Size::number(*number))).collect()),
        None => call.input(number).and_then(|tensor| tensor.elements.clone()),
    };
    let (starts, ends): (Option<Elements>, Option<Elements>) = (given("starts", 1), given("ends", 2));
    let listed: Option<Vec<i64>> = match (call.node.integers("axes"), call.input(3)) {
        (Some(axes), _) => Some(axes.to_vec()),
        (None, Some(axes)) => axes.numbers(),
        (None, None) => starts.as_ref().map(|starts| (0_i64..).take(starts.len()).collect()),
    };
    let axes = listed.and_then(|axes| value::axes(&axes, shape.len()));
    if tensor.elements.is_some()
        && let Some(made) = cut(&tensor, starts.as_deref(), ends.as_deref(), call.input(4).map(Tensor::number))
    {
        return Ok(call.all(made));
    }
    let counted = call.inputs.iter().skip(1).flatten().any(|tensor| tensor.counted) || tensor.counted;
    let Some(axes) = axes else {
        if tensor.is_rows() {
            return Err("along which axes it cuts is not known".into());
        }
        return Ok(call.all(Tensor { counted, ..Tensor::fixed(None) }));
    };
    if let Some(rows) = tensor.axis {
        if axes.contains(&rows) {
            return Err("it cuts among the rows".into());
        }
        if counted {
            return Err("what it cuts out depends on the number of rows".into());
        }
    }
    let mut sizes = shape;
    for axis in axes {
        sizes[axis] = call.symbols.fresh();
    }
    Ok(call.all(Tensor { axis: tensor.axis, counted, ..Tensor::fixed(Some(sizes)) }))
}

/// A part of a list of sizes.
fn cut(
    tensor: &Tensor,
    starts: Option<&[Option<Size>]>,
    ends: Option<&[Option<Size>]>,
    step: Option<Option<i64>>,
) -> Option<Tensor> {
    let (elements, length) = (tensor.elements.as_ref()?, i64::try_from(tensor.elements.as_ref()?.len()).ok()?);
    if tensor.rank() != Some(1) || !matches!(step, None | Some(Some(1))) {
        return None;
    }
    let end = |given: Option<&[Option<Size>]>| match given? {
        [Some(size)] => {
            let number = size.as_number()?;
            let from_front = if number < 0 { number.saturating_add(length) } else { number };
            usize::try_from(from_front.clamp(0, length)).ok()
        }
        _ => None,
    };
    let (from, to) = (end(starts)?, end(ends)?);
    let made = elements.get(from..to.max(from))?.to_vec();
    let unknown = tensor.counted && made.iter().any(Option::is_none);
    Some(Tensor::list(made, unknown))
}

fn split(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    let Some(shape) = tensor.shape.clone() else { return call.unknown() };
    call.others_are_fixed(&[0])?;
    let axis = value::axis(call.node.integer("axis").unwrap_or(0), shape.len()).ok_or("its axis does not fit")?;
    if tensor.axis == Some(axis) {
        return Err("it takes rows apart from one another".into());
    }
    let parts = call.node.outputs.len();
    let sizes = match call.node.integers("split") {
        Some(numbers) => Some(numbers.to_vec()),
        None => call.numbers(1),
    };
    let even = shape[axis].divided_by(&Size::number(i64::try_from(parts).unwrap_or(i64::MAX)));
    let made = (0..parts).map(|part| {
        let size = match (&sizes, &even) {
            (Some(sizes), _) => sizes.get(part).map(|size| Size::number(*size)),
            (None, even) => even.clone(),
        };
        let mut shape = shape.clone();
        shape[axis] = size.unwrap_or_else(|| call.symbols.fresh());
        Tensor { axis: tensor.axis, counted: tensor.counted, ..Tensor::fixed(Some(shape)) }
    });
    Ok(made.collect())
}

fn tile(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    let repeats = call.need(1)?.clone();
    if repeats.is_rows() {
        return Err("how often it repeats depends on the contents of rows".into());
    }
    let (Some(shape), Some(elements)) = (&tensor.shape, &repeats.elements) else {
        if tensor.is_rows() {
            return Err("how often it repeats is not known".into());
        }
        return Ok(call.all(Tensor { counted: tensor.counted || repeats.counted, ..Tensor::fixed(None) }));
    };
    if elements.len() != shape.len() {
        return Err("how often it repeats does not fit its input".into());
    }
    let mut rows = tensor.axis;
    let mut sizes = Vec::with_capacity(shape.len());
    for (place, (size, repeat)) in shape.iter().zip(elements).enumerate() {
        let Some(repeat) = repeat else {
            if repeats.counted || tensor.axis == Some(place) {
                return Err("how often it repeats is not followed".into());
            }
            sizes.push(call.symbols.fresh());
            continue;
        };
        if tensor.axis == Some(place) && !repeat.is(1) {
            return Err("it repeats the rows one behind the other".into());
        }
        if repeat.has_rows() {
            // One copy for each row.
            if rows.is_some() || !size.is(1) || tensor.counted {
                return Err("it repeats something by the number of rows".into());
            }
            rows = Some(place);
        }
        sizes.push(size.times(repeat).ok_or("its shape is not followed")?);
    }
    Ok(call.all(Tensor { axis: rows, counted: tensor.counted, ..Tensor::fixed(Some(sizes)) }))
}

fn transpose(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    let Some(shape) = &tensor.shape else { return call.unknown() };
    let order: Vec<usize> = match call.node.integers("perm") {
        Some(order) => value::axes(order, shape.len()).ok_or("its order does not fit its input")?,
        None => (0..shape.len()).rev().collect(),
    };
    let mut seen = order.clone();
    seen.sort_unstable();
    if !seen.iter().copied().eq(0..shape.len()) {
        return Err("its order does not fit its input".into());
    }
    let sizes = order.iter().map(|axis| shape[*axis].clone()).collect();
    let rows = tensor.axis.and_then(|rows| order.iter().position(|axis| *axis == rows));
    let elements = tensor.elements.clone().filter(|_| shape.len() <= 1);
    Ok(call.all(Tensor { axis: rows, counted: tensor.counted, elements, ..Tensor::fixed(Some(sizes)) }))
}

/// It works in the last two axes.
fn trilu(call: &mut Call<'_>) -> Made {
    call.others_are_fixed(&[0])?;
    let tensor = call.need(0)?.clone();
    if let (Some(rows), Some(rank)) = (tensor.axis, tensor.rank())
        && rows + 2 >= rank
    {
        return Err(ALONG_ROWS.into());
    }
    Ok(call.all(Tensor { elements: None, ..tensor }))
}
