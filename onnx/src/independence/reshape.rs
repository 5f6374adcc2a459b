//! Operators that read shapes, make tensors of a shape, or change shapes without moving elements.

use super::size::Size;
use super::value::{self, Elements, Tensor};
use super::{Call, Made};
use crate::graph::{Attribute, Constant};

pub(super) fn apply(call: &mut Call<'_>, operator: &str) -> Option<Made> {
    match operator {
        "Constant" => Some(constant(call)),
        "ConstantOfShape" => Some(constant_of_shape(call)),
        "Expand" => Some(expand(call)),
        "Flatten" => Some(flatten(call)),
        "Range" => Some(range(call)),
        "Reshape" => Some(reshape(call)),
        "Shape" => Some(shape(call)),
        "Size" => Some(number_of_elements(call)),
        "Squeeze" => Some(squeeze(call)),
        "Unsqueeze" => Some(unsqueeze(call)),
        _ => None,
    }
}

fn constant(call: &mut Call<'_>) -> Made {
    let made = match (call.node.attributes.get("value"), call.node.integer("value_int")) {
        (Some(Attribute::Constant(constant)), _) => super::of_constant(constant),
        (_, Some(number)) => Tensor::single(Some(Size::number(number)), false),
        _ => match call.node.integers("value_ints") {
            Some(numbers) => Tensor::list(numbers.iter().map(|number| Some(Size::number(*number))).collect(), false),
            None if call.node.attributes.contains_key("value_float") => Tensor::fixed(Some(vec![])),
            None => Tensor::fixed(None),
        },
    };
    Ok(call.all(made))
}

fn shape(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?;
    let Some(shape) = tensor.shape.clone() else {
        return Ok(call.all(Tensor { counted: tensor.counted, ..Tensor::fixed(None) }));
    };
    let end = |name: &str, default: usize| {
        let given = call.node.integer(name).unwrap_or(i64::try_from(default).unwrap_or(i64::MAX));
        let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
        let from_front = if given < 0 { given.saturating_add(rank) } else { given };
        usize::try_from(from_front.clamp(0, rank)).unwrap_or(0)
    };
    let (from, to) = (end("start", 0), end("end", shape.len()));
    let sizes = shape.get(from..to.max(from)).unwrap_or_default();
    Ok(call.all(Tensor::list(sizes.iter().cloned().map(Some).collect(), tensor.counted)))
}

fn number_of_elements(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?;
    let size = tensor.shape.as_ref().and_then(Size::product);
    let counted = tensor.is_rows() || tensor.counted;
    Ok(call.all(Tensor::single(size, counted)))
}

/// The elements of the list in an input, and whether what is not followed in it may depend on the number of rows.
fn list(call: &Call<'_>, number: usize) -> Result<Option<(Elements, bool)>, String> {
    let tensor = call.need(number)?;
    if tensor.is_rows() {
        return Err("a shape is computed from the contents of rows".into());
    }
    Ok(tensor.elements.clone().map(|elements| (elements, tensor.counted)))
}

/// A shape whose unknown sizes are those of the requests, which are the same for all that are merged.
fn known_shape(call: &mut Call<'_>, elements: Elements, counted: bool) -> Option<Vec<Size>> {
    if counted && elements.iter().any(Option::is_none) {
        return None;
    }
    Some(elements.into_iter().map(|element| element.unwrap_or_else(|| call.symbols.fresh())).collect())
}

/// The only place in a shape that counts rows.
fn place_of_rows(shape: &[Size]) -> Option<usize> {
    let mut places = shape.iter().enumerate().filter(|(_, size)| size.has_rows()).map(|(place, _)| place);
    places.next().filter(|_| places.next().is_none())
}

/// The same number everywhere: each row gets as many.
fn constant_of_shape(call: &mut Call<'_>) -> Made {
    let Some((elements, counted)) = list(call, 0)? else {
        let counted = call.need(0)?.counted;
        return Ok(call.all(Tensor { counted, ..Tensor::fixed(None) }));
    };
    let Some(shape) = known_shape(call, elements, counted) else { return Ok(call.all(Tensor::counted(None))) };
    if !shape.iter().any(Size::has_rows) {
        let value = match call.node.attributes.get("value") {
            Some(Attribute::Constant(Constant { integers: Some(numbers), .. })) => numbers.first().copied(),
            _ => None,
        };
        let made = match (value, shape.as_slice()) {
            (Some(value), []) => Tensor::single(Some(Size::number(value)), false),
            // A list of equal numbers, to which exporters compare shapes.
            (Some(value), [length]) if (0..=value::MAX_ELEMENTS).contains(&length.as_number().unwrap_or(-1)) => {
                let length = length.as_number().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
                Tensor::list(vec![Some(Size::number(value)); length], false)
            }
            _ => Tensor::fixed(Some(shape)),
        };
        return Ok(call.all(made));
    }
    let axis = place_of_rows(&shape).ok_or("it makes a tensor that counts rows along two axes")?;
    Ok(call.all(Tensor::rows(shape, axis)))
}

fn range(call: &mut Call<'_>) -> Made {
    if call.has_rows() {
        return Err("a range is computed from the contents of rows".into());
    }
    let counted = call.inputs.iter().flatten().any(|tensor| tensor.counted);
    let ends: Option<Vec<Size>> =
        (0..3).map(|number| call.input(number)?.elements.as_ref()?.first()?.clone()).collect();
    let length = match ends.as_deref() {
        Some([from, to, step]) if from.is(0) && step.is(1) => Some(to.clone()),
        _ => None,
    };
    let length = length.or_else(|| (!counted).then(|| call.symbols.fresh()));
    // Its elements are the numbers of the rows when it is as long as there are rows: row 1 has another one than row 0.
    Ok(call.all(Tensor { counted, ..Tensor::fixed(length.map(|length| vec![length])) }))
}

fn expand(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    let target = match list(call, 1)? {
        Some((elements, counted)) => known_shape(call, elements, counted),
        None => None,
    };
    let Some(target) = target else {
        let counted = tensor.counted || call.need(1)?.counted;
        if tensor.is_rows() {
            return Err("the shape that it expands to is not followed".into());
        }
        return Ok(call.all(Tensor { counted, ..Tensor::fixed(None) }));
    };
    if tensor.counted {
        return Ok(call.all(Tensor::counted(None)));
    }
    // As if it were joined with a tensor of that shape in which all elements are alike.
    let other = match place_of_rows(&target) {
        Some(axis) => Tensor::rows(target, axis),
        None if target.iter().any(Size::has_rows) => return Err("it counts rows along two axes".into()),
        None => Tensor::fixed(Some(target)),
    };
    if !tensor.is_rows() && !other.is_rows() {
        let shapes = tensor.shape.as_ref().zip(other.shape.as_ref()).map(|(a, b)| [a.clone(), b.clone()]);
        let shape = shapes.map(|shapes| super::elementwise::broadcast_shapes(&shapes, call.symbols));
        return Ok(call.all(Tensor::fixed(shape)));
    }
    let made = super::elementwise::broadcast(&[&tensor, &other], call.symbols)?;
    Ok(call.all(made))
}

fn reshape(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    // In the first operator sets the shape was an attribute.
    let target = match call.node.integers("shape") {
        Some(numbers) => Some((numbers.iter().map(|number| Some(Size::number(*number))).collect(), false)),
        None => list(call, 1)?,
    };
    let Some((elements, counted)) = target else {
        if tensor.is_rows() {
            return Err("the shape that it gives to rows is not followed".into());
        }
        let counted = tensor.counted || call.input(1).is_some_and(|tensor| tensor.counted);
        return Ok(call.all(Tensor { counted, ..Tensor::fixed(None) }));
    };
    let zero_is_zero = call.node.integer("allowzero").unwrap_or(0) != 0;
    if counted && elements.iter().any(Option::is_none) {
        if tensor.is_rows() {
            return Err("the shape that it gives to rows depends on their number in a way that is not followed".into());
        }
        return Ok(call.all(Tensor::counted(None)));
    }
    let mut shape = Vec::with_capacity(elements.len());
    let mut open = None;
    for (place, element) in elements.into_iter().enumerate() {
        shape.push(match element {
            Some(size) if size.is(-1) => {
                open = Some(place);
                Size::number(1)
            }
            Some(size) if size.is(0) && !zero_is_zero => {
                let kept = tensor.shape.as_ref().and_then(|shape| shape.get(place).cloned());
                match kept {
                    Some(size) => size,
                    None if tensor.is_rows() => return Err("its shape does not fit its input".into()),
                    None => call.symbols.fresh(),
                }
            }
            Some(size) => size,
            None => call.symbols.fresh(),
        });
    }
    if let Some(place) = open {
        let rest = Size::product(&shape);
        let all = tensor.shape.as_ref().and_then(Size::product);
        let size = all.zip(rest).and_then(|(all, rest)| all.divided_by(&rest));
        shape[place] = match size {
            Some(size) => size,
            None if tensor.is_rows() || tensor.counted => {
                return Err("how many rows its shape leaves is not followed".into());
            }
            None => call.symbols.fresh(),
        };
    }
    let made = reshaped(&tensor, shape)?;
    Ok(call.all(made))
}

/// The tensor in another shape. Elements keep their order, so the same number of elements stands behind the axis of the rows within each of them,
/// and the same number of sequences of all rows before it: those are the axes before theirs, and `repeats`.
fn reshaped(tensor: &Tensor, shape: Vec<Size>) -> Result<Tensor, String> {
    let Some(axis) = tensor.axis else {
        // A list of sizes that becomes a list, or a single one.
        let elements = tensor.elements.clone().filter(|_| shape.len() <= 1);
        let counted = tensor.counted || shape.iter().any(Size::has_rows);
        return Ok(Tensor { counted, elements, ..Tensor::fixed(Some(shape)) });
    };
    let known = tensor.shape.as_deref().unwrap_or_default();
    let place = place_of_rows(&shape).ok_or("the shape that it gives to rows does not tell where they are")?;
    let sequences = Size::product(known[..axis].iter().chain(&tensor.repeats));
    let before = Size::product(&shape[..place]);
    let repeats = sequences.zip(before).and_then(|(sequences, before)| sequences.divided_by(&before));
    let repeats = repeats.filter(|repeats| shape[place].divided_by(repeats).is_some_and(|size| size.has_rows()));
    let repeats = repeats.ok_or("it gives rows a shape in which they are no longer in one piece each")?;
    let repeats = Some(repeats).filter(|repeats| !repeats.is(1));
    Ok(Tensor { repeats, ..Tensor::rows(shape, place) })
}

fn flatten(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    let Some(shape) = &tensor.shape else { return call.unknown() };
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let axis = call.node.integer("axis").unwrap_or(1);
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok().filter(|axis| *axis <= shape.len());
    let axis = axis.ok_or("its axis does not fit its input")?;
    let sizes = [Size::product(&shape[..axis]), Size::product(&shape[axis..])];
    let [Some(front), Some(back)] = sizes else { return Err("its shape is not followed".into()) };
    let made = reshaped(&tensor, vec![front, back])?;
    Ok(call.all(made))
}

/// Axes from an input in newer operator sets, else from an attribute.
fn axes(call: &Call<'_>) -> Result<Option<Vec<i64>>, String> {
    match call.input(1) {
        Some(tensor) => tensor.numbers().map(Some).ok_or_else(|| "its axes are not known".into()),
        None => Ok(call.node.integers("axes").map(<[i64]>::to_vec)),
    }
}

fn squeeze(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    let Some(shape) = &tensor.shape else { return call.unknown() };
    let axes = match axes(call)?.filter(|axes| !axes.is_empty()) {
        Some(axes) => axes,
        None if tensor.is_rows() => {
            return Err("it drops every axis with one element, and so that of a single row".into());
        }
        None if shape.iter().all(|size| size.as_number().is_some()) => {
            (0_i64..).zip(shape).filter(|(_, size)| size.is(1)).map(|(axis, _)| axis).collect()
        }
        None => return call.unknown(),
    };
    let axes = value::axes(&axes, shape.len()).ok_or("its axes do not fit its input")?;
    if tensor.axis.is_some_and(|axis| axes.contains(&axis)) {
        return Err("it drops the axis of the rows".into());
    }
    let left = shape.iter().enumerate().filter(|(at, _)| !axes.contains(at)).map(|(_, size)| size.clone()).collect();
    let axis = tensor.axis.map(|axis| axis - axes.iter().filter(|it| **it < axis).count());
    Ok(call.all(Tensor { shape: Some(left), axis, ..tensor }))
}

fn unsqueeze(call: &mut Call<'_>) -> Made {
    let tensor = call.need(0)?.clone();
    let Some(shape) = &tensor.shape else { return call.unknown() };
    let axes = axes(call)?.ok_or("its axes are not known")?;
    let axes = value::axes(&axes, shape.len() + axes.len()).ok_or("its axes do not fit its input")?;
    let mut rest = shape.iter().cloned();
    let (mut sizes, mut axis) = (Vec::new(), None);
    for place in 0..shape.len() + axes.len() {
        if axes.contains(&place) {
            sizes.push(Size::number(1));
            continue;
        }
        if tensor.axis == Some(shape.len() - rest.len()) {
            axis = Some(place);
        }
        sizes.extend(rest.next());
    }
    // The elements of a single size are those of a list of one.
    let elements = tensor.elements.clone().filter(|_| sizes.len() <= 1);
    Ok(call.all(Tensor { axis, counted: tensor.counted, elements, ..Tensor::fixed(Some(sizes)) }))
}
