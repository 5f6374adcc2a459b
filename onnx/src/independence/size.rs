//! Symbolic sizes of tensors: products of a number and of symbols, one of which is the number of
//! rows.

use std::collections::{BTreeMap, BTreeSet};

/// An unknown number: a size of a shape, which is not negative, or a value computed from sizes.
pub(super) type SymbolId = u32;

/// The symbol of the number of rows of a batch.
const ROW_COUNT: SymbolId = 0;

/// A number, multiplied by symbols.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SymbolicSize {
    factor: i64,
    /// Sorted; a symbol may occur more than once.
    symbols: Vec<SymbolId>,
}

impl SymbolicSize {
    pub(super) fn from_number(number: i64) -> Self {
        Self { factor: number, symbols: vec![] }
    }

    pub(super) fn row_count() -> Self {
        Self { factor: 1, symbols: vec![ROW_COUNT] }
    }

    pub(super) fn as_number(&self) -> Option<i64> {
        self.symbols.is_empty().then_some(self.factor)
    }

    pub(super) fn equals_number(&self, number: i64) -> bool {
        self.as_number() == Some(number)
    }

    /// Whether it depends on the number of rows.
    pub(super) fn has_rows(&self) -> bool {
        self.factor != 0 && self.symbols.first() == Some(&ROW_COUNT)
    }

    /// Whether it is exactly the number of rows, not a multiple of it.
    pub(super) fn is_row_count(&self) -> bool {
        *self == Self::row_count()
    }

    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        let factor = self.factor.checked_mul(other.factor)?;
        if factor == 0 {
            return Some(Self::from_number(0));
        }
        let mut symbols = [&self.symbols[..], &other.symbols].concat();
        // A shape has a handful of dimensions; a model that multiplies more sizes is not tracked.
        if symbols.len() > 32 {
            return None;
        }
        symbols.sort_unstable();
        Some(Self { factor, symbols })
    }

    /// The quotient, if it is exact for all values of the symbols.
    pub(super) fn exact_quotient(&self, other: &Self) -> Option<Self> {
        if other.factor == 0 || self.factor % other.factor != 0 {
            return None;
        }
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            let at = symbols.iter().position(|it| it == symbol)?;
            symbols.remove(at);
        }
        Some(Self { factor: self.factor / other.factor, symbols })
    }

    /// The product of several sizes; `None` when it is too large to be tracked.
    pub(super) fn product<'a>(sizes: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        sizes.into_iter().try_fold(Self::from_number(1), |all, size| all.times(size))
    }
}

/// The symbols of a graph.
#[derive(Debug, Default)]
pub(super) struct SymbolTable {
    last_symbol: SymbolId,
    by_name: BTreeMap<String, SymbolId>,
    by_operation: BTreeMap<(String, Vec<SymbolicSize>), SymbolId>,
    /// Symbols that may stand for a negative number.
    signed: BTreeSet<SymbolId>,
}

impl SymbolTable {
    /// A new symbol.
    pub(super) fn fresh_size(&mut self) -> SymbolicSize {
        self.last_symbol = self.last_symbol.saturating_add(1);
        SymbolicSize { factor: 1, symbols: vec![self.last_symbol] }
    }

    /// The symbol of a name that the model declares.
    pub(super) fn named_size(&mut self, name: &str) -> SymbolicSize {
        if let Some(symbol) = self.by_name.get(name) {
            return SymbolicSize { factor: 1, symbols: vec![*symbol] };
        }
        let size = self.fresh_size();
        self.by_name.insert(name.into(), self.last_symbol);
        size
    }

    /// The symbol of the result of an operator on sizes: equal operands give the same symbol.
    pub(super) fn computed_size(&mut self, operator: &str, of: &[&SymbolicSize]) -> SymbolicSize {
        let key = (operator.to_owned(), of.iter().map(|size| (*size).clone()).collect());
        if let Some(symbol) = self.by_operation.get(&key) {
            return SymbolicSize { factor: 1, symbols: vec![*symbol] };
        }
        let size = self.fresh_size();
        self.by_operation.insert(key, self.last_symbol);
        let natural = operator != "Sub" && of.iter().all(|size| self.is_non_negative(size));
        if !natural {
            self.signed.insert(self.last_symbol);
        }
        size
    }

    /// Whether it cannot be negative.
    pub(super) fn is_non_negative(&self, size: &SymbolicSize) -> bool {
        size.factor >= 0 && size.symbols.iter().all(|symbol| !self.signed.contains(symbol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_exact_quotients() {
        let mut symbols = SymbolTable::default();
        let (length, rows) = (symbols.named_size("S"), SymbolicSize::row_count());
        let merged = rows.times(&length).unwrap().times(&SymbolicSize::from_number(4)).unwrap();
        assert!(merged.has_rows() && !merged.is_row_count());
        assert_eq!(
            merged.exact_quotient(&SymbolicSize::from_number(4)).unwrap().exact_quotient(&length),
            Some(SymbolicSize::row_count())
        );
        assert_eq!(merged.exact_quotient(&SymbolicSize::from_number(8)), None);
        assert_eq!(length.exact_quotient(&rows), None);
        assert_eq!(
            SymbolicSize::from_number(0).exact_quotient(&SymbolicSize::from_number(0)),
            None
        );
        assert!(!SymbolicSize::from_number(0).times(&rows).unwrap().has_rows());
    }

    #[test]
    fn the_same_of_the_same_is_one_symbol() {
        let mut symbols = SymbolTable::default();
        let (a, b) = (symbols.named_size("a"), symbols.named_size("b"));
        assert_eq!(symbols.named_size("a"), a);
        assert_ne!(a, b);
        assert_eq!(
            symbols.computed_size("Add", &[&a, &b]),
            symbols.computed_size("Add", &[&a, &b])
        );
        assert_ne!(
            symbols.computed_size("Add", &[&a, &b]),
            symbols.computed_size("Sub", &[&a, &b])
        );
        let difference = symbols.computed_size("Sub", &[&a, &b]);
        assert!(symbols.is_non_negative(&a) && !symbols.is_non_negative(&difference));
        let more = symbols.computed_size("Add", &[&difference, &a]);
        assert!(!symbols.is_non_negative(&more));
    }
}
