//! Runs different rows alone and in batches of several sizes, to detect operators that do not
//! behave as their specification says.

use half::f16;

use crate::session::OnnxEngine;
use crate::signature::{ModelSignature, TensorSignature};
use crate::tensor::{DataType, Tensor, TensorData};

/// Number of rows of the trial, and the sizes of the batches, which are made of the first rows.
const ROWS: usize = 7;
const SIZES: [usize; 4] = [2, 3, 5, ROWS];
/// Largest accepted difference of a float in a batch, relative to the largest value of its row:
/// other batch sizes run other kernels, which add in another order.
const TOLERANCE: f64 = 1e-5;
const TOLERANCE_HALF: f64 = 1e-2;

/// Kinds of trial values: some models expect values that are no indices, others expect indices.
#[derive(Debug, Clone, Copy)]
enum TrialValues {
    Spread,
    Bits,
}

/// Compares the results of rows run alone with their results in batches.
///
/// # Errors
/// The difference, as a text for the owner of the model; also when the model accepts none of the
/// rows.
pub(super) fn run_trial(signature: &ModelSignature, engine: &mut OnnxEngine) -> Result<(), String> {
    let mut refused = String::new();
    for (values, width) in [
        (TrialValues::Spread, 3),
        (TrialValues::Spread, 1),
        (TrialValues::Bits, 3),
        (TrialValues::Bits, 1),
    ] {
        let rows: Vec<Vec<Tensor>> =
            (0..ROWS).map(|row| trial_row(signature, row, values, width)).collect();
        let alone: Result<Vec<_>, _> = rows.iter().map(|row| engine.run(row.clone())).collect();
        match alone {
            Ok(alone) => {
                return SIZES
                    .iter()
                    .try_for_each(|size| compare_batch(&rows[..*size], &alone[..*size], engine));
            }
            Err(error) => refused = error.message,
        }
    }
    Err(format!("it takes none of the rows that are tried at load: {refused}"))
}

/// Row number `number` for every input; the same number gives the same row in every run. Open axes
/// other than the first are `width` long.
fn trial_row(
    signature: &ModelSignature,
    row: usize,
    values: TrialValues,
    width: usize,
) -> Vec<Tensor> {
    let input = |(number, spec): (usize, &TensorSignature)| {
        let sizes = spec.shape.iter().enumerate();
        let shape: Vec<usize> =
            sizes.map(|(axis, size)| size.unwrap_or(if axis == 0 { 1 } else { width })).collect();
        let length = shape.iter().product();
        Tensor {
            shape,
            data: trial_data(spec.datatype, length, values, (row * 31 + number) as u64),
        }
    };
    signature.inputs.iter().enumerate().map(input).collect()
}

fn trial_data(datatype: DataType, length: usize, values: TrialValues, seed: u64) -> TensorData {
    let number = |place: usize| {
        // SplitMix64 (Steele, Lea, Flood 2014).
        let mut z = seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add((place as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let whole =
        |place: usize| number(place) % if matches!(values, TrialValues::Spread) { 4 } else { 2 };
    let float = |place: usize| match values {
        TrialValues::Spread => (number(place) >> 11) as f64 / (1_u64 << 53) as f64 * 4.0 - 2.0,
        TrialValues::Bits => whole(place) as f64,
    };
    let all = 0..length;
    match datatype {
        DataType::Bool => TensorData::Bool(all.map(|at| number(at) & 1 == 1).collect()),
        DataType::U8 => TensorData::U8(all.map(|at| whole(at) as u8).collect()),
        DataType::U16 => TensorData::U16(all.map(|at| whole(at) as u16).collect()),
        DataType::U32 => TensorData::U32(all.map(|at| whole(at) as u32).collect()),
        DataType::U64 => TensorData::U64(all.map(whole).collect()),
        DataType::I8 => TensorData::I8(all.map(|at| whole(at) as i8).collect()),
        DataType::I16 => TensorData::I16(all.map(|at| whole(at) as i16).collect()),
        DataType::I32 => TensorData::I32(all.map(|at| whole(at) as i32).collect()),
        DataType::I64 => TensorData::I64(all.map(|at| whole(at) as i64).collect()),
        DataType::F16 => TensorData::F16(all.map(|at| f16::from_f64(float(at))).collect()),
        DataType::F32 => TensorData::F32(all.map(|at| float(at) as f32).collect()),
        DataType::F64 => TensorData::F64(all.map(float).collect()),
        DataType::Bytes => TensorData::Bytes(
            all.map(|at| ["a", "b", "c", "d"][(whole(at) % 4) as usize].into()).collect(),
        ),
    }
}

/// Runs rows as one batch and compares each result with that of the row alone.
fn compare_batch(
    rows: &[Vec<Tensor>],
    alone: &[Vec<Tensor>],
    engine: &mut OnnxEngine,
) -> Result<(), String> {
    let width = rows.first().map_or(0, Vec::len);
    let stacked = (0..width)
        .map(|input| Tensor::stack(rows.iter().filter_map(|row| row.get(input))))
        .collect::<Option<Vec<_>>>();
    let stacked = stacked.ok_or("its rows cannot be put together")?;
    let outputs = engine
        .run(stacked)
        .map_err(|error| format!("it fails for {} rows together: {}", rows.len(), error.message))?;
    for (row, own) in alone.iter().enumerate() {
        for (number, (own, all)) in own.iter().zip(&outputs).enumerate() {
            let whole = !all.shape.is_empty() && all.rows() == rows.len() && own.rows() == 1;
            if !whole || !nearly_equal(own, &all.slice_rows(row, 1)) {
                let name =
                    engine.signature().outputs.get(number).map_or("", |spec| spec.name.as_str());
                return Err(format!(
                    "a row among {} others gets another {name:?} than alone",
                    rows.len() - 1
                ));
            }
        }
    }
    Ok(())
}

fn nearly_equal(one: &Tensor, other: &Tensor) -> bool {
    if one.shape != other.shape {
        return false;
    }
    let close = |one: Vec<f64>, other: Vec<f64>, tolerance: f64| {
        let largest = one
            .iter()
            .copied()
            .filter(|number| number.is_finite())
            .fold(0.0, |most: f64, x| most.max(x.abs()));
        one.iter().zip(&other).all(|(a, b)| {
            a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= tolerance * largest
        })
    };
    match (&one.data, &other.data) {
        (TensorData::F16(a), TensorData::F16(b)) => {
            let wide = |all: &[f16]| all.iter().map(|x| x.to_f64()).collect();
            close(wide(a), wide(b), TOLERANCE_HALF)
        }
        (TensorData::F32(a), TensorData::F32(b)) => {
            let wide = |all: &[f32]| all.iter().map(|x| f64::from(*x)).collect();
            close(wide(a), wide(b), TOLERANCE)
        }
        (TensorData::F64(a), TensorData::F64(b)) => close(a.clone(), b.clone(), TOLERANCE),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_trial_differ_and_are_the_same_each_time() {
        for datatype in DataType::ALL {
            let row = |seed| trial_data(datatype, 64, TrialValues::Spread, seed);
            assert_eq!(row(1), row(1));
            assert_ne!(row(1), row(2), "{datatype:?}");
        }
    }

    #[test]
    fn floats_may_differ_by_rounding_and_whole_numbers_not_at_all() {
        let floats =
            |values: [f32; 2]| Tensor { shape: vec![1, 2], data: TensorData::F32(values.into()) };
        assert!(nearly_equal(&floats([1.0, 1e-9]), &floats([1.000_001, 0.0])));
        assert!(!nearly_equal(&floats([1.0, 0.5]), &floats([1.0, 0.501])));
        assert!(nearly_equal(&floats([f32::NAN, 1.0]), &floats([f32::NAN, 1.0])));
        assert!(!nearly_equal(&floats([f32::NAN, 1.0]), &floats([1.0, 1.0])));
        let whole =
            |values: [i64; 2]| Tensor { shape: vec![1, 2], data: TensorData::I64(values.into()) };
        assert!(
            nearly_equal(&whole([1, 2]), &whole([1, 2]))
                && !nearly_equal(&whole([1, 2]), &whole([1, 3]))
        );
    }
}
