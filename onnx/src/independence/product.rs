//! Matrix products.

use super::elementwise::broadcast_shapes;
use super::node_call::{NodeCall, RuleResult};
use super::size::SymbolicSize;
use super::value::SymbolicTensor;

pub(super) fn apply_product(call: &mut NodeCall<'_>, operator: &str) -> Option<RuleResult> {
    match operator {
        "MatMul" => Some(matmul_rule(call, &[0, 1])),
        // Scales and zero points must be the same for all rows.
        "MatMulInteger" => Some(matmul_rule(call, &[0, 1])),
        "QLinearMatMul" => Some(matmul_rule(call, &[0, 3])),
        "Gemm" => Some(gemm_rule(call)),
        "Einsum" => Some(einsum_rule(call)),
        _ => None,
    }
}

fn matmul_rule(call: &mut NodeCall<'_>, factors: &[usize; 2]) -> RuleResult {
    let [left, right] = factors.map(|number| call.required_input(number).cloned());
    let (left, right) = (left?, right?);
    if !left.has_row_axis() && !right.has_row_axis() {
        let counted = left.batch_dependent || right.batch_dependent;
        let shape = match (&left.shape, &right.shape) {
            (Some(a), Some(b)) if a.len() >= 2 && b.len() >= 2 => Some(product_shape(a, b, call)),
            _ => None,
        };
        return Ok(call.repeat_output(SymbolicTensor {
            batch_dependent: counted,
            ..SymbolicTensor::batch_independent(shape)
        }));
    }
    call.ensure_others_fixed(factors)?;
    let (Some(a), Some(b)) = (&left.shape, &right.shape) else {
        return Err("the shape of one of its factors is not known".into());
    };
    if a.len() < 2 || b.len() < 2 {
        return Err("it multiplies rows by a vector".into());
    }
    let rank = a.len().max(b.len());
    // The axis of the product along which a factor's rows are.
    let place =
        |tensor: &SymbolicTensor, shape: &[SymbolicSize], summed: usize, kept: usize| match tensor
            .row_axis
        {
            None if tensor.batch_dependent => {
                Err("one of its factors depends on the number of rows".to_owned())
            }
            None => Ok(None),
            Some(axis) if axis == summed => Err("it sums over the rows".to_owned()),
            Some(axis) if axis + 2 >= shape.len() => Ok(Some(kept)),
            Some(axis) => Ok(Some(axis + rank - shape.len())),
        };
    let of_left = place(&left, a, a.len() - 1, rank - 2)?;
    let of_right = place(&right, b, b.len() - 2, rank - 1)?;
    let axis = match (of_left, of_right) {
        (Some(one), Some(other)) if one == other && one + 2 < rank => one,
        (Some(_), Some(_)) => return Err("it multiplies each row by every other".into()),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Err("no rows are among its factors".into()),
    };
    let size = |tensor: &SymbolicTensor, shape: &[SymbolicSize]| {
        tensor.row_axis.map(|axis| shape[axis].clone())
    };
    let (one, other) = (size(&left, a), size(&right, b));
    if let (Some(one), Some(other)) = (&one, &other)
        && one != other
    {
        return Err("it joins rows with other multiples of rows".into());
    }
    // A factor without rows must have size 1 along their axis.
    for (tensor, shape) in [(&left, a), (&right, b)] {
        let here = (axis + shape.len())
            .checked_sub(rank)
            .filter(|at| axis + 2 < rank && at + 2 < shape.len());
        if !tensor.has_row_axis() && here.is_some_and(|at| !shape[at].equals_number(1)) {
            return Err("it joins rows with a tensor that has an element for each of them".into());
        }
    }
    let mut shape = product_shape(a, b, call);
    shape[axis] = one.or(other).unwrap_or_else(SymbolicSize::row_count);
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(shape, axis)))
}

fn product_shape(
    a: &[SymbolicSize],
    b: &[SymbolicSize],
    call: &mut NodeCall<'_>,
) -> Vec<SymbolicSize> {
    let outer = [a[..a.len() - 2].to_vec(), b[..b.len() - 2].to_vec()];
    let mut shape = broadcast_shapes(&outer, call.symbols);
    shape.extend([a[a.len() - 2].clone(), b[b.len() - 1].clone()]);
    shape
}

fn gemm_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let turned = |name: &str| call.node.integer(name).unwrap_or(0) != 0;
    let (turn_a, turn_b) = (turned("transA"), turned("transB"));
    let (outer_a, outer_b) = (usize::from(turn_a), usize::from(!turn_b));
    if !call.has_rows() {
        let size =
            |number: usize, axis: usize| call.input(number)?.shape.as_ref()?.get(axis).cloned();
        let shape = size(0, outer_a).zip(size(1, outer_b)).map(|(one, other)| vec![one, other]);
        return Ok(call.output_without_rows(shape));
    }
    let (a, b) = (call.required_input(0)?.clone(), call.required_input(1)?.clone());
    let (shape_a, shape_b) = (call.input_shape(0)?, call.input_shape(1)?);
    if shape_a.len() != 2 || shape_b.len() != 2 {
        return Err("its factors are no matrices".into());
    }
    if a.batch_dependent || b.batch_dependent {
        return Err("one of its factors depends on the number of rows".into());
    }
    let axis = match (a.row_axis, b.row_axis) {
        (Some(axis), None) if axis == outer_a => Some(0),
        (None, Some(axis)) if axis == outer_b => Some(1),
        (None, None) => None,
        (Some(_), Some(_)) => return Err("it multiplies each row by every other".into()),
        _ => return Err("it sums over the rows".into()),
    };
    let shape = vec![shape_a[outer_a].clone(), shape_b[outer_b].clone()];
    let product =
        SymbolicTensor { row_axis: axis, ..SymbolicTensor::batch_independent(Some(shape)) };
    match call.input(2).cloned() {
        None => Ok(call.repeat_output(product)),
        Some(added) => {
            let joined = super::elementwise::broadcast_tensors(&[&product, &added], call.symbols)?;
            Ok(call.repeat_output(joined))
        }
    }
}

/// The letter of the rows must be in the result, and in every factor with rows at their axis and in
/// no other factor.
fn einsum_rule(call: &mut NodeCall<'_>) -> RuleResult {
    let equation: String =
        call.node.text("equation").unwrap_or_default().chars().filter(|c| *c != ' ').collect();
    let Some((factors, result)) = equation.split_once("->").filter(|_| !equation.contains('.'))
    else {
        return if call.has_rows() {
            Err("its equation does not name all axes".into())
        } else {
            call.unknown_operator()
        };
    };
    let factors: Vec<Vec<char>> =
        factors.split(',').map(|factor| factor.chars().collect()).collect();
    let result: Vec<char> = result.chars().collect();
    if !call.has_rows() {
        let size = |name: &char| {
            let axes = factors.iter().enumerate().filter_map(|(number, factor)| {
                let axis = factor.iter().position(|other| other == name)?;
                call.input(number)?.shape.as_ref()?.get(axis).cloned()
            });
            axes.reduce(
                |one, other| {
                    if one.as_number().is_some_and(|size| size != 1) { one } else { other }
                },
            )
        };
        let shape: Option<Vec<SymbolicSize>> = result.iter().map(size).collect();
        return Ok(call.output_without_rows(shape));
    }
    let mut letter = None;
    for (number, factor) in factors.iter().enumerate() {
        let tensor = call.required_input(number)?;
        if tensor.batch_dependent {
            return Err("one of its factors depends on the number of rows".into());
        }
        let Some(axis) = tensor.row_axis else { continue };
        let own = *factor.get(axis).ok_or("its equation does not fit its factors")?;
        if letter.is_some_and(|letter| letter != own)
            || factor.iter().filter(|it| **it == own).count() != 1
        {
            return Err("it joins rows with rows along another axis".into());
        }
        letter = Some(own);
    }
    let letter = letter.ok_or("no rows are among its factors")?;
    let mut sizes: std::collections::BTreeMap<char, SymbolicSize> =
        std::collections::BTreeMap::new();
    for (number, factor) in factors.iter().enumerate() {
        let tensor = call.required_input(number)?;
        if !tensor.has_row_axis() && factor.contains(&letter) {
            return Err("it joins rows with a tensor that has an element for each of them".into());
        }
        let shape = call.input_shape(number)?;
        if shape.len() != factor.len() {
            return Err("its equation does not fit its factors".into());
        }
        for (name, size) in factor.iter().zip(shape) {
            if *name == letter && sizes.get(name).is_some_and(|known| *known != size) {
                return Err("it joins rows with other multiples of rows".into());
            }
            sizes.insert(*name, size);
        }
    }
    let axis = result.iter().position(|name| *name == letter).ok_or("it sums over the rows")?;
    let shape = result
        .iter()
        .map(|name| sizes.get(name).cloned().unwrap_or_else(|| call.symbols.fresh_size()))
        .collect();
    Ok(call.repeat_output(SymbolicTensor::with_row_axis(shape, axis)))
}
