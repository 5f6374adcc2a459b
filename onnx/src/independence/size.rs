//! Sizes of tensors, as far as a graph tells them: products of a number and of symbols, one of which is the number of rows.

use std::collections::{BTreeMap, BTreeSet};

/// An unknown number: a size of a shape, which is not negative, or what was computed of such.
pub(super) type Symbol = u32;

/// The number of rows of a batch.
const ROWS: Symbol = 0;

/// A number, times symbols.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size {
    factor: i64,
    /// In order; a symbol may stand there more than once.
    symbols: Vec<Symbol>,
}

impl Size {
    pub(super) fn number(number: i64) -> Self {
        Self { factor: number, symbols: vec![] }
    }

    pub(super) fn rows() -> Self {
        Self { factor: 1, symbols: vec![ROWS] }
    }

    pub(super) fn as_number(&self) -> Option<i64> {
        self.symbols.is_empty().then_some(self.factor)
    }

    pub(super) fn is(&self, number: i64) -> bool {
        self.as_number() == Some(number)
    }

    /// Whether it depends on the number of rows.
    pub(super) fn has_rows(&self) -> bool {
        self.factor != 0 && self.symbols.first() == Some(&ROWS)
    }

    /// Whether it is the number of rows itself, and no multiple of it.
    pub(super) fn is_rows(&self) -> bool {
        *self == Self::rows()
    }

    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        let factor = self.factor.checked_mul(other.factor)?;
        if factor == 0 {
            return Some(Self::number(0));
        }
        let mut symbols = [&self.symbols[..], &other.symbols].concat();
        // A shape is a handful of dimensions; a model that multiplies without end is not worth following.
        if symbols.len() > 32 {
            return None;
        }
        symbols.sort_unstable();
        Some(Self { factor, symbols })
    }

    /// The quotient, where it is exact whatever the symbols stand for.
    pub(super) fn divided_by(&self, other: &Self) -> Option<Self> {
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

    /// The product of many; `None` when it is beyond what is followed.
    pub(super) fn product<'a>(sizes: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        sizes.into_iter().try_fold(Self::number(1), |all, size| all.times(size))
    }
}

/// The symbols of a graph.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    last: Symbol,
    named: BTreeMap<String, Symbol>,
    computed: BTreeMap<(String, Vec<Size>), Symbol>,
    /// Those that may stand for a number below zero.
    signed: BTreeSet<Symbol>,
}

impl Symbols {
    /// A symbol of its own.
    pub(super) fn fresh(&mut self) -> Size {
        self.last = self.last.saturating_add(1);
        Size { factor: 1, symbols: vec![self.last] }
    }

    /// The symbol of a name that the model gives.
    pub(super) fn named(&mut self, name: &str) -> Size {
        if let Some(symbol) = self.named.get(name) {
            return Size { factor: 1, symbols: vec![*symbol] };
        }
        let size = self.fresh();
        self.named.insert(name.into(), self.last);
        size
    }

    /// The symbol of what an operator makes of sizes: the same of the same.
    pub(super) fn computed(&mut self, operator: &str, of: &[&Size]) -> Size {
        let key = (operator.to_owned(), of.iter().map(|size| (*size).clone()).collect());
        if let Some(symbol) = self.computed.get(&key) {
            return Size { factor: 1, symbols: vec![*symbol] };
        }
        let size = self.fresh();
        self.computed.insert(key, self.last);
        let natural = operator != "Sub" && of.iter().all(|size| self.is_natural(size));
        if !natural {
            self.signed.insert(self.last);
        }
        size
    }

    /// Whether it cannot be negative.
    pub(super) fn is_natural(&self, size: &Size) -> bool {
        size.factor >= 0 && size.symbols.iter().all(|symbol| !self.signed.contains(symbol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_exact_quotients() {
        let mut symbols = Symbols::default();
        let (length, rows) = (symbols.named("S"), Size::rows());
        let merged = rows.times(&length).unwrap().times(&Size::number(4)).unwrap();
        assert!(merged.has_rows() && !merged.is_rows());
        assert_eq!(merged.divided_by(&Size::number(4)).unwrap().divided_by(&length), Some(Size::rows()));
        assert_eq!(merged.divided_by(&Size::number(8)), None);
        assert_eq!(length.divided_by(&rows), None);
        assert_eq!(Size::number(0).divided_by(&Size::number(0)), None);
        assert!(!Size::number(0).times(&rows).unwrap().has_rows());
    }

    #[test]
    fn the_same_of_the_same_is_one_symbol() {
        let mut symbols = Symbols::default();
        let (a, b) = (symbols.named("a"), symbols.named("b"));
        assert_eq!(symbols.named("a"), a);
        assert_ne!(a, b);
        assert_eq!(symbols.computed("Add", &[&a, &b]), symbols.computed("Add", &[&a, &b]));
        assert_ne!(symbols.computed("Add", &[&a, &b]), symbols.computed("Sub", &[&a, &b]));
        let difference = symbols.computed("Sub", &[&a, &b]);
        assert!(symbols.is_natural(&a) && !symbols.is_natural(&difference));
        let more = symbols.computed("Add", &[&difference, &a]);
        assert!(!symbols.is_natural(&more));
    }
}
