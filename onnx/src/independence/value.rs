//! What is known of a tensor in a graph.

use super::size::SymbolicSize;

/// Longest list of sizes that is followed element by element.
pub(super) const MAX_ELEMENTS: i64 = 256;

/// Elements of a list of sizes; `None` where one is not followed.
pub(super) type SizeList = Vec<Option<SymbolicSize>>;

/// What is known of a tensor.
///
/// With an `axis`, the tensor holds the rows of the batch along it: `shape[axis]` is the number of
/// rows times something, the part of row *i* is the *i*-th of equal parts along that axis, and
/// holds nothing of any other row. With `repeats`, the axis is so many times such a sequence of all
/// rows. Without an `axis`, it is the same whatever the rows hold; when it is also not `counted`,
/// it is the same however many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SymbolicTensor {
    pub(super) shape: Option<Vec<SymbolicSize>>,
    pub(super) row_axis: Option<usize>,
    /// How often all rows follow one another along the axis, when that is more than once: after an
    /// axis that stood before theirs was merged with it.
    pub(super) repeats: Option<SymbolicSize>,
    /// Whether it depends on the number of rows.
    pub(super) batch_dependent: bool,
    /// Elements of a list (or a single number) of sizes. `None` for an element that is not
    /// followed; it depends on the number of rows when the tensor is `counted`.
    pub(super) elements: Option<SizeList>,
    /// Of a short list of floats, which are 1: the scales of a resize.
    pub(super) equals_one: Option<Vec<bool>>,
}

impl SymbolicTensor {
    /// A tensor of rows.
    pub(super) fn with_row_axis(shape: Vec<SymbolicSize>, axis: usize) -> Self {
        Self { shape: Some(shape), row_axis: Some(axis), ..Self::default() }
    }

    /// A tensor that is the same whatever the batch is.
    pub(super) fn batch_independent(shape: Option<Vec<SymbolicSize>>) -> Self {
        Self { shape, ..Self::default() }
    }

    /// A tensor that depends on the number of rows in a way that is not followed.
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

    /// The elements, when they are numbers all.
    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        self.elements.as_ref()?.iter().map(|element| element.as_ref()?.as_number()).collect()
    }

    /// The only element, when it is a number.
    pub(super) fn number(&self) -> Option<i64> {
        match self.numbers()?.as_slice() {
            [number] => Some(*number),
            _ => None,
        }
    }
}

/// An axis that counts from the end when it is negative.
pub(super) fn resolve_axis(axis: i64, rank: usize) -> Option<usize> {
    let rank_signed = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank_signed)? } else { axis };
    usize::try_from(axis).ok().filter(|axis| *axis < rank)
}

/// Many axes.
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
