//! Operators that work element by element, with the shapes of their inputs broadcast to one
//! another.

use super::node_call::{NodeCall, RuleResult};
use super::size::{SymbolTable, SymbolicSize};
use super::value::{SizeList, SymbolicTensor};

/// Operators whose output elements depend only on the input elements at the same position.
const OPERATORS: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
    // com.microsoft
    "BiasGelu",
    "FastGelu",
    "QuickGelu",
];

pub(super) fn apply_elementwise(call: &mut NodeCall<'_>, operator: &str) -> Option<RuleResult> {
    match operator {
        "Dropout" => Some(dropout_rule(call)),
        "QuantizeLinear" | "DequantizeLinear" => Some(quantize_rule(call)),
        // Logical shapes do not depend on the elements.
        _ if OPERATORS.contains(&operator) => Some(elementwise_rule(call, operator)),
        _ => None,
    }
}

fn elementwise_rule(call: &mut NodeCall<'_>, operator: &str) -> RuleResult {
    if !call.has_rows() {
        if let Some(tensor) = compute_sizes(call, operator) {
            return Ok(call.repeat_output(tensor));
        }
        let shapes: Option<Vec<Vec<SymbolicSize>>> =
            call.inputs.iter().flatten().map(|tensor| tensor.shape.clone()).collect();
        let shape = shapes.map(|shapes| broadcast_shapes(&shapes, call.symbols));
        return Ok(call.output_without_rows(shape));
    }
    let tensors: Vec<&SymbolicTensor> = call.inputs.iter().copied().flatten().collect();
    let tensor = broadcast_tensors(&tensors, call.symbols)?;
    Ok(call.repeat_output(tensor))
}

/// The result of broadcasting tensors, some of which hold rows.
pub(super) fn broadcast_tensors(
    tensors: &[&SymbolicTensor],
    symbols: &mut SymbolTable,
) -> Result<SymbolicTensor, String> {
    let shapes: Option<Vec<&Vec<SymbolicSize>>> =
        tensors.iter().map(|tensor| tensor.shape.as_ref()).collect();
    let shapes = shapes.ok_or("the shape of a tensor that it joins with rows is not known")?;
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut axis = None;
    for (tensor, shape) in tensors.iter().zip(&shapes) {
        let Some(own) = tensor.row_axis else { continue };
        let there = own + rank - shape.len();
        if axis.is_some_and(|axis| axis != there) {
            return Err("it joins rows with rows along another axis".into());
        }
        axis = Some(there);
    }
    let axis = axis.ok_or("no rows are among its inputs")?;
    let mut rows: Option<&SymbolicSize> = None;
    for (tensor, shape) in tensors.iter().zip(&shapes) {
        let here = (axis + shape.len()).checked_sub(rank).map(|at| &shape[at]);
        if tensor.has_row_axis() {
            if rows.is_some_and(|rows| Some(rows) != here) {
                return Err("it joins rows with other multiples of rows".into());
            }
            rows = here;
        } else if tensor.batch_dependent {
            return Err("it joins rows with something that depends on their number".into());
        } else if here.is_some_and(|size| !size.equals_number(1)) {
            return Err("it joins rows with a tensor that has an element for each of them".into());
        }
    }
    let rows = rows.cloned().ok_or("no rows are among its inputs")?;
    let owned: Vec<Vec<SymbolicSize>> = shapes.into_iter().cloned().collect();
    let mut shape = broadcast_shapes(&owned, symbols);
    shape[axis] = rows;
    Ok(SymbolicTensor::with_row_axis(shape, axis))
}

/// The shape that results from broadcasting shapes.
pub(super) fn broadcast_shapes(
    shapes: &[Vec<SymbolicSize>],
    symbols: &mut SymbolTable,
) -> Vec<SymbolicSize> {
    let rank = shapes.iter().map(Vec::len).max().unwrap_or(0);
    let at = |place: usize| {
        let sizes: Vec<&SymbolicSize> = shapes
            .iter()
            .filter_map(|shape| shape.get((place + shape.len()).checked_sub(rank)?))
            .collect();
        let other: Vec<&SymbolicSize> =
            sizes.iter().copied().filter(|size| !size.equals_number(1)).collect();
        match other.as_slice() {
            [] => SymbolicSize::from_number(1),
            [one] if one.as_number().is_some() => (*one).clone(),
            // A symbol may stand for 1, in which case the other size determines the result; a
            // number greater than 1 determines it alone.
            [first, rest @ ..] if rest.iter().all(|size| size == first) => (*first).clone(),
            many => match many.iter().find(|size| size.as_number().is_some()) {
                Some(number) => (*number).clone(),
                None => symbols.computed_size("broadcast", many),
            },
        }
    };
    (0..rank).map(at).collect()
}

/// Arithmetic on sizes, which exporters use to compute shapes.
fn compute_sizes(call: &mut NodeCall<'_>, operator: &str) -> Option<SymbolicTensor> {
    let lists: Vec<&SizeList> = call
        .inputs
        .iter()
        .map(|tensor| tensor.and_then(|tensor| tensor.elements.as_ref()))
        .collect::<Option<_>>()?;
    if call.inputs.iter().flatten().any(|tensor| tensor.rank().is_none_or(|rank| rank > 1)) {
        return None;
    }
    let length = lists.iter().map(|list| list.len()).max()?;
    if lists.iter().any(|list| list.len() != length && list.len() != 1) {
        return None;
    }
    if operator == "Cast" && !is_integer_type(call.node.integer("to")?) {
        return None;
    }
    let counted = call.inputs.iter().flatten().any(|tensor| tensor.batch_dependent);
    let mut made = Vec::with_capacity(length);
    for place in 0..length {
        let operands: Option<Vec<&SymbolicSize>> = lists
            .iter()
            .map(|list| list[if list.len() == 1 { 0 } else { place }].as_ref())
            .collect();
        made.push(operands.and_then(|operands| compute_size(operator, &operands, call.symbols)));
    }
    // The list depends on the number of rows as soon as one of its elements does or may do so, even
    // if other elements are known to be independent of it.
    let scalar = call.inputs.iter().flatten().all(|tensor| tensor.rank() == Some(0));
    let still =
        counted && made.iter().any(|element| element.as_ref().is_none_or(SymbolicSize::has_rows));
    let list = SymbolicTensor::from_elements(made, still);
    Some(if scalar { SymbolicTensor { shape: Some(vec![]), ..list } } else { list })
}

/// TensorProto.DataType: integers, and booleans as results of comparisons.
fn is_integer_type(data_type: i64) -> bool {
    [2, 3, 4, 5, 6, 7, 9, 12, 13].contains(&data_type)
}

fn compute_size(
    operator: &str,
    operands: &[&SymbolicSize],
    symbols: &mut SymbolTable,
) -> Option<SymbolicSize> {
    let numbers: Option<Vec<i64>> = operands.iter().map(|size| size.as_number()).collect();
    match (operator, operands) {
        ("Identity" | "Cast", [one]) => return Some((*one).clone()),
        ("Mul", [one, other]) => return one.times(other),
        ("Div", [one, other]) if numbers.is_none() => {
            if let Some(quotient) = one.exact_quotient(other) {
                return Some(quotient);
            }
        }
        // A size is never negative, so it never equals -1.
        ("Equal", [one, other]) => {
            let negative = |size: &SymbolicSize| size.as_number().is_some_and(|number| number < 0);
            let symbolic =
                |size: &SymbolicSize| size.as_number().is_none() && symbols.is_non_negative(size);
            if one == other {
                return Some(SymbolicSize::from_number(1));
            }
            if numbers.is_some()
                || negative(one) && symbolic(other)
                || negative(other) && symbolic(one)
            {
                return Some(SymbolicSize::from_number(0));
            }
            return None;
        }
        ("Where", [condition, one, other]) => {
            return match condition.as_number()? {
                0 => Some((*other).clone()),
                _ => Some((*one).clone()),
            };
        }
        _ => {}
    }
    if let Some(numbers) = numbers {
        return compute_number(operator, &numbers).map(SymbolicSize::from_number);
    }
    let followed = ["Add", "Sub", "Div", "Mod", "Max", "Min"].contains(&operator);
    // An element that depends on the number of rows other than as a multiple is not tracked.
    (followed && operands.iter().all(|size| !size.has_rows()))
        .then(|| symbols.computed_size(operator, operands))
}

fn compute_number(operator: &str, numbers: &[i64]) -> Option<i64> {
    match (operator, numbers) {
        ("Add", [a, b]) => a.checked_add(*b),
        ("Sub", [a, b]) => a.checked_sub(*b),
        // Rounds towards zero, like ONNX's division of integers.
        ("Div", [a, b]) => a.checked_div(*b),
        // For negative numbers ONNX's remainder depends on an attribute.
        ("Mod", [a, b]) if *a >= 0 && *b > 0 => Some(a % b),
        ("Max", many) => many.iter().copied().max(),
        ("Min", many) => many.iter().copied().min(),
        ("Neg", [a]) => a.checked_neg(),
        _ => None,
    }
}

/// Outside of training the input passes unchanged and the mask is not random.
fn dropout_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let training = call.input(2);
    if training.is_some_and(|tensor| tensor.number() != Some(0)) {
        return Err("it drops elements at random".into());
    }
    let tensor = call.required_input(0)?.clone();
    Ok(call.repeat_output(SymbolicTensor { elements: None, ..tensor }))
}

/// One scale for all elements, or one for each position along an axis, which must not be that of
/// the rows.
fn quantize_rule(call: &mut NodeCall<'_>) -> RuleResult {
    call.ensure_others_fixed(&[0])?;
    let tensor = call.required_input(0)?.clone();
    if let (Some(rows), Some(rank)) = (tensor.row_axis, tensor.rank()) {
        let single = call
            .required_input(1)?
            .shape
            .as_ref()
            .is_some_and(|shape| shape.iter().all(|size| size.equals_number(1)));
        let along = super::value::resolve_axis(call.node.integer("axis").unwrap_or(1), rank);
        if !single && along.is_none_or(|axis| axis == rows) {
            return Err("it has a scale for each row".into());
        }
    }
    Ok(call.repeat_output(SymbolicTensor { elements: None, ..tensor }))
}
