//! The known properties of a tensor in a graph.

use super::size::SymbolicSize;

/// Longest list of sizes that is tracked element by element.
pub(super) const MAX_ELEMENTS: i64 = 256;

/// Elements of a list of sizes; `None` for an element that is not tracked.
pub(super) type SizeList = Vec<Option<SymbolicSize>>;

/// The known properties of a tensor.
///
/// With a `row_axis`, the tensor holds the rows of the batch along it: `shape[row_axis]` is a
/// multiple of the number of rows, the part of row *i* is the *i*-th of equal parts along that
/// axis, and depends on no other row. With `repeats`, the axis consists of that many such sequences
/// of all rows. Without a `row_axis`, the tensor does not depend on the contents of the rows; if it
/// is also not `batch_dependent`, it does not depend on their number either.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SymbolicTensor {
    pub(super) shape: Option<Vec<SymbolicSize>>,
    pub(super) row_axis: Option<usize>,
    /// How often the sequence of all rows repeats along the axis, if more than once: after another
    /// axis before theirs was merged with it.
    pub(super) repeats: Option<SymbolicSize>,
    /// Whether the tensor depends on the number of rows.
    pub(super) batch_dependent: bool,
    /// Elements of a list of sizes (or a single size). `None` for an element that is not tracked;
    /// it may depend on the number of rows when the tensor is `batch_dependent`.
    pub(super) elements: Option<SizeList>,
    /// Which elements of a short list of floats are 1: the scales of a resize.
    pub(super) equals_one: Option<Vec<bool>>,
}

impl SymbolicTensor {
    /// A tensor of rows.
    pub(super) fn with_row_axis(shape: Vec<SymbolicSize>, axis: usize) -> Self {
        Self { shape: Some(shape), row_axis: Some(axis), ..Self::default() }
    }

    /// A tensor that is independent of the batch.
    pub(super) fn batch_independent(shape: Option<Vec<SymbolicSize>>) -> Self {
        Self { shape, ..Self::default() }
    }

    /// A tensor that depends on the number of rows in a way that is not tracked.
    pub(super) fn batch_dependent(shape: Option<Vec<SymbolicSize>>) -> Self {
        Self { shape, batch_dependent: true, ..Self::default() }
    }

    /// A list of sizes.
    pub(super) fn from_elements(elements: SizeList, counted: bool) -> Self {
        let length = i64::try_from(elements.len()).unwrap_or(i64::MAX);
        let shape = Some(vec![SymbolicSize::from_number(length)]);
        let counted = counted || elements.iter().flatten().any(SymbolicSize::has_rows);
        let elements = (length <= MAX_ELEMENTS).then_some(elements);
        Self { shape, batch_dependent: counted, elements, ..Self::default() }
    }

    /// A single size.
    pub(super) fn from_element(element: Option<SymbolicSize>, counted: bool) -> Self {
        Self { shape: Some(vec![]), ..Self::from_elements(vec![element], counted) }
    }

    pub(super) fn has_row_axis(&self) -> bool {
        self.row_axis.is_some()
    }

    pub(super) fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The elements, if all are numbers.
    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        self.elements.as_ref()?.iter().map(|element| element.as_ref()?.as_number()).collect()
    }

    /// The only element, if it is a number.
    pub(super) fn number(&self) -> Option<i64> {
        match self.numbers()?.as_slice() {
            [number] => Some(*number),
            _ => None,
        }
    }
}

/// The index of an axis, which counts from the end when it is negative.
pub(super) fn resolve_axis(axis: i64, rank: usize) -> Option<usize> {
    let rank_signed = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank_signed)? } else { axis };
    usize::try_from(axis).ok().filter(|axis| *axis < rank)
}

/// The indices of several axes.
pub(super) fn resolve_axes(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    axes.iter().map(|it| resolve_axis(*it, rank)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_count_from_both_ends() {
        assert_eq!(
            (resolve_axis(0, 2), resolve_axis(-1, 2), resolve_axis(-3, 2), resolve_axis(2, 2)),
            (Some(0), Some(1), None, None)
        );
        assert_eq!(resolve_axis(i64::MIN, 2), None);
    }

    #[test]
    fn lists_know_whether_they_count_rows() {
        let list = SymbolicTensor::from_elements(
            vec![Some(SymbolicSize::row_count()), Some(SymbolicSize::from_number(3))],
            false,
        );
        assert!(list.batch_dependent && list.numbers().is_none());
        assert_eq!(
            SymbolicTensor::from_element(Some(SymbolicSize::from_number(3)), false).number(),
            Some(3)
        );
    }
}
