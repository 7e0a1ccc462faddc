//! Extents that may be symbols: polynomials with integer coefficients over named
//! dimensions, floors, extrema, and unknowns that carry their reason.
//!
//! Every operation is total. What overflows or cannot be said becomes an unknown, and an
//! unknown in a count is reported, never dropped.

mod display;
mod division;
mod order;
mod ring;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// An integer or a formula for one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    Number(i64),
    /// Two terms at least, or one that is no number.
    Formula(Arc<Formula>),
}

/// A sum of monomials, with what bounds it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Formula {
    /// Atoms in the formula written out, each as often as it occurs.
    size: usize,
    depth: u32,
    terms: Terms,
}

/// Monomial → coefficient, never zero.
type Terms = BTreeMap<Monomial, i64>;
/// Atoms with their powers, sorted; empty for the constant term.
type Monomial = Vec<(Atom, u32)>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// A dimension that the file names: 1 or more.
    Symbol(Arc<str>),
    /// The quotient rounded down.
    Floor(Expr, i64),
    /// The remainder, with the sign of the divisor.
    Modulo(Expr, Expr),
    /// The quotient by a formula, rounded down.
    Quotient(Expr, Expr),
    Max(Expr, Expr),
    Min(Expr, Expr),
    /// What could not be said, and why.
    Unknown(Arc<str>),
}

/// Formulas beyond this many terms are not worth reading, and could grow without bound.
const MOST_TERMS: usize = 256;
/// So are products that write out more terms than these.
const MOST_PRODUCTS: usize = 1 << 10;
/// So are formulas of more atoms than these, floors and extrema written out.
const MOST_ATOMS: usize = 1 << 12;
/// So are products of more atoms than these.
const MOST_FACTORS: usize = 32;
/// So are powers beyond this one.
const MOST_POWER: u32 = 64;
/// So is nesting of floors and extrema beyond this depth.
const MOST_DEPTH: u32 = 32;

/// What a formula and an atom of it take, a number being one.
const FORMULA: usize = 24;
const ATOM: usize = 4;

/// Why a number is not known that is too large.
const BEYOND: &str = "a number beyond 64 bits";

impl Default for Expr {
    fn default() -> Self {
        Expr::Number(0)
    }
}

impl From<i64> for Expr {
    fn from(n: i64) -> Self {
        Expr::Number(n)
    }
}

impl From<i32> for Expr {
    fn from(n: i32) -> Self {
        Expr::Number(n.into())
    }
}

impl From<usize> for Expr {
    fn from(n: usize) -> Self {
        i64::try_from(n).map_or_else(|_| Expr::overflow(), Expr::Number)
    }
}

impl Expr {
    #[must_use]
    pub fn symbol(name: &str) -> Self {
        Self::atom(Atom::Symbol(name.into()))
    }

    /// An extent that cannot be said, with the reason.
    #[must_use]
    pub fn unknown(reason: &str) -> Self {
        Self::atom(Atom::Unknown(reason.into()))
    }

    /// One for all: thousands of elements may overflow.
    fn overflow() -> Self {
        static OVERFLOW: LazyLock<Expr> = LazyLock::new(|| Expr::unknown(BEYOND));
        OVERFLOW.clone()
    }

    fn too_large() -> Self {
        static TOO_LARGE: LazyLock<Expr> = LazyLock::new(|| Expr::unknown("a formula too large to follow"));
        TOO_LARGE.clone()
    }

    fn atom(atom: Atom) -> Self {
        Self::from_terms(Terms::from([(vec![(atom, 1)], 1)]))
    }

    #[must_use]
    pub fn number(&self) -> Option<i64> {
        match self {
            Expr::Number(n) => Some(*n),
            Expr::Formula(_) => None,
        }
    }

    /// The number, if it counts something.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.number().and_then(|n| u64::try_from(n).ok())
    }

    /// Atoms in the formula written out, floors and extrema too.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Expr::Number(_) => 0,
            Expr::Formula(formula) => formula.size,
        }
    }

    /// Whether it is no number because one in it is too large.
    #[must_use]
    pub fn overflows(&self) -> bool {
        self.reasons().iter().any(|reason| **reason == *BEYOND)
    }

    /// What it takes beside a number, in numbers: of a formula that others hold too, nothing.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Expr::Formula(formula) if Arc::strong_count(formula) == 1 => FORMULA + ATOM * formula.size,
            _ => 0,
        }
    }

    #[must_use]
    pub fn is(&self, n: i64) -> bool {
        self.number() == Some(n)
    }

    /// Why the formula cannot be said: the reasons of the unknowns in it.
    #[must_use]
    pub fn reasons(&self) -> BTreeSet<Arc<str>> {
        let mut reasons = BTreeSet::new();
        self.visit(&mut |atom| {
            if let Atom::Unknown(reason) = atom {
                reasons.insert(reason.clone());
            }
        });
        reasons
    }

    #[must_use]
    pub fn is_known(&self) -> bool {
        match self {
            Expr::Number(_) => true,
            Expr::Formula(formula) => formula.terms.keys().flatten().all(|(atom, _)| atom.is_known()),
        }
    }

    /// The named dimensions in the formula.
    #[must_use]
    pub fn symbols(&self) -> BTreeSet<Arc<str>> {
        let mut symbols = BTreeSet::new();
        self.visit(&mut |atom| {
            if let Atom::Symbol(name) = atom {
                symbols.insert(name.clone());
            }
        });
        symbols
    }

    fn visit(&self, see: &mut dyn FnMut(&Atom)) {
        let Expr::Formula(formula) = self else { return };
        for (atom, _) in formula.terms.keys().flatten() {
            see(atom);
            for part in atom.parts() {
                part.visit(see);
            }
        }
    }

    fn terms(&self) -> Terms {
        match self {
            Expr::Number(0) => Terms::new(),
            Expr::Number(n) => Terms::from([(Monomial::new(), *n)]),
            Expr::Formula(formula) => formula.terms.clone(),
        }
    }

    fn from_terms(mut terms: Terms) -> Self {
        terms.retain(|_, coefficient| *coefficient != 0);
        let too_many = |monomial: &Monomial| {
            monomial.len() > MOST_FACTORS || monomial.iter().any(|(_, power)| *power > MOST_POWER)
        };
        if terms.len() > MOST_TERMS || terms.keys().any(too_many) {
            return Self::too_large();
        }
        match terms.first_key_value() {
            None => return Expr::Number(0),
            Some((monomial, &n)) if terms.len() == 1 && monomial.is_empty() => return Expr::Number(n),
            Some(_) => {}
        }
        let (mut size, mut depth) = (0, 0);
        for (atom, _) in terms.keys().flatten() {
            let (inner, below) = atom.extent();
            (size, depth) = (size + inner, depth.max(below));
        }
        if size > MOST_ATOMS || depth > MOST_DEPTH {
            return Self::too_large();
        }
        Expr::Formula(Arc::new(Formula { size, depth, terms }))
    }

    /// The formula with every symbol that `value` knows replaced by a number.
    #[must_use]
    pub fn with(&self, value: &dyn Fn(&str) -> Option<i64>) -> Self {
        let Expr::Formula(formula) = self else { return self.clone() };
        let mut sum = Expr::Number(0);
        for (monomial, &coefficient) in &formula.terms {
            let mut product = Expr::Number(coefficient);
            for (atom, power) in monomial {
                let atom = atom.with(value);
                for _ in 0..*power {
                    product = &product * &atom;
                }
            }
            sum = &sum + &product;
        }
        sum
    }
}

impl Atom {
    fn is_known(&self) -> bool {
        match self {
            Atom::Unknown(_) => false,
            atom => atom.parts().into_iter().all(Expr::is_known),
        }
    }

    fn parts(&self) -> Vec<&Expr> {
        match self {
            Atom::Symbol(_) | Atom::Unknown(_) => Vec::new(),
            Atom::Floor(x, _) => vec![x],
            Atom::Modulo(x, y) | Atom::Quotient(x, y) | Atom::Max(x, y) | Atom::Min(x, y) => vec![x, y],
        }
    }

    /// Atoms in it, itself with them, and how deep they nest.
    fn extent(&self) -> (usize, u32) {
        self.parts().into_iter().fold((1, 1), |(size, depth), part| match part {
            Expr::Number(_) => (size, depth),
            Expr::Formula(inner) => (size + inner.size, depth.max(inner.depth + 1)),
        })
    }

    fn with(&self, value: &dyn Fn(&str) -> Option<i64>) -> Expr {
        match self {
            Atom::Symbol(name) => value(name).map_or_else(|| Expr::atom(self.clone()), Expr::Number),
            Atom::Unknown(_) => Expr::atom(self.clone()),
            Atom::Floor(x, d) => x.with(value).floor_div(&Expr::Number(*d)),
            Atom::Modulo(x, y) => x.with(value).modulo(&y.with(value)),
            Atom::Quotient(x, y) => x.with(value).floor_div(&y.with(value)),
            Atom::Max(x, y) => x.with(value).larger(&y.with(value)),
            Atom::Min(x, y) => x.with(value).smaller(&y.with(value)),
        }
    }
}

/// Where a formula must be ranked or drawn: its value with every free dimension at 64.
#[must_use]
pub fn estimate(count: &Expr) -> i64 {
    count.with(&|_| Some(64)).number().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(n: i64) -> Expr {
        Expr::Number(n)
    }

    #[test]
    fn formulas_simplify() {
        let (b, h) = (&Expr::symbol("batch"), &Expr::symbol("height"));
        let half = |x: &Expr| (x + &n(1)).floor_div(&n(2));
        let cases = [
            (&(b * &n(3)) - b, "2·batch"),
            ((&(h * &n(4)) + &n(6)).floor_div(&n(4)), "height + 1"),
            (half(&half(&half(h))), "floor((height + 7)/8)"),
            ((&(h * h) * b).floor_div(&(h * b)), "height"),
            ((h + &n(1)).larger(&(h - &n(1))), "height + 1"),
            ((h + &n(1)).smaller(&(h - &n(1))), "height - 1"),
            (n(0).smaller(h), "0"),
            ((h - &n(1)).larger(&n(0)), "height - 1"),
            (h.smaller(&n(99)).larger(h), "height"),
            ((&(h * b) + &n(2)).larger(&n(1)), "batch·height + 2"),
            ((h * &n(6)).modulo(&n(3)), "0"),
            (&(h + &n(1)) * &(h - &n(1)), "height^2 - 1"),
            (h.ceil_div(&n(1)), "height"),
            (n(7).ceil_div(&n(2)), "4"),
            (n(-7).floor_div(&n(2)), "-4"),
            (n(-7).modulo(&n(3)), "2"),
        ];
        for (formula, expected) in cases {
            assert_eq!(formula.to_string(), expected);
        }
    }

    #[test]
    fn overflow_and_division_by_zero_are_unknowns() {
        let huge = n(i64::MAX);
        for x in [&huge * &huge, &huge + &n(1), n(1).floor_div(&n(0)), n(i64::MIN).floor_div(&n(-1))] {
            assert!(!x.is_known(), "{x}");
        }
    }

    proptest::proptest! {
        /// A formula is worth what its operations are worth.
        #[test]
        fn formulas_agree_with_numbers(h in 0_i64..200, w in 0_i64..200, a in 1_i64..9, b in -9_i64..9) {
            let bind = |name: &str| match name { "h" => Some(h), "w" => Some(w), _ => None };
            let (x, y) = (Expr::symbol("h"), Expr::symbol("w"));
            let formulas = |x: &Expr, y: &Expr| [
                (&(x * y) + &n(b)).floor_div(&n(a)),
                (x + &n(b)).floor_div(&n(a)).floor_div(&n(3)),
                (&(x * &n(b)) - y).ceil_div(&n(a)),
                (x - y).larger(&n(b)).smaller(&(y + &n(1))),
                (&(x * &n(a)) + y).modulo(&n(a)),
                x.floor_div(&(y + &n(1))),
            ];
            for (formula, value) in formulas(&x, &y).iter().zip(formulas(&n(h), &n(w))) {
                proptest::prop_assert_eq!(formula.with(&bind), value);
            }
        }
    }
}
