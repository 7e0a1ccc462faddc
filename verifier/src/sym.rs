//! Extents that may be symbols: polynomials with integer coefficients over named
//! dimensions, floors, extrema, and unknowns that carry their reason.
//!
//! Every operation is total. What overflows or cannot be said becomes an unknown, and an
//! unknown in a count is reported, never dropped.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

use serde::{Serialize, Serializer};

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
/// So are powers beyond this one.
const MOST_POWER: u32 = 64;
/// So is nesting of floors and extrema beyond this depth.
const MOST_DEPTH: u32 = 32;

impl Default for Expr {
    fn default() -> Self {
        Expr::Number(0)
    }
}

/// A number as such, a formula as text.
impl Serialize for Expr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Expr::Number(n) => serializer.serialize_i64(*n),
            Expr::Formula(_) => serializer.collect_str(self),
        }
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

    fn overflow() -> Self {
        Self::unknown("a number beyond 64 bits")
    }

    fn too_large() -> Self {
        Self::unknown("a formula too large to follow")
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
        if terms.len() > MOST_TERMS || terms.keys().flatten().any(|(_, power)| *power > MOST_POWER) {
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

    /// `⌊self / divisor⌋`.
    #[must_use]
    pub fn floor_div(&self, divisor: &Expr) -> Self {
        match (self, divisor) {
            (_, Expr::Number(0)) => Self::unknown("a division by zero"),
            (_, Expr::Number(1)) => self.clone(),
            (Expr::Number(n), Expr::Number(d)) => floor(*n, *d).map_or_else(Self::overflow, Expr::Number),
            (Expr::Formula(formula), Expr::Number(d)) => Self::floor_formula(&formula.terms, *d),
            _ => self
                .exact_div(divisor)
                .unwrap_or_else(|| Self::atom(Atom::Quotient(self.clone(), divisor.clone()))),
        }
    }

    /// `⌈self / divisor⌉`.
    #[must_use]
    pub fn ceil_div(&self, divisor: &Expr) -> Self {
        -&(-self).floor_div(divisor)
    }

    /// Takes whole multiples of `d` out of the floor; a floor of a floor becomes one.
    fn floor_formula(terms: &Terms, d: i64) -> Self {
        if d < 0 {
            return Self::atom(Atom::Quotient(Self::from_terms(terms.clone()), Expr::Number(d)));
        }
        let (mut whole, mut rest) = (Terms::new(), Terms::new());
        for (monomial, &coefficient) in terms {
            whole.insert(monomial.clone(), coefficient.div_euclid(d));
            rest.insert(monomial.clone(), coefficient.rem_euclid(d));
        }
        let (whole, rest) = (Self::from_terms(whole), Self::from_terms(rest));
        let rest = match rest {
            Expr::Number(n) => Expr::Number(n.div_euclid(d)),
            Expr::Formula(formula) => Self::nested_floor(&formula.terms, d)
                .unwrap_or_else(|| Self::atom(Atom::Floor(Expr::Formula(formula), d))),
        };
        &whole + &rest
    }

    /// `⌊(⌊x/a⌋ + b) / d⌋ = ⌊(x + a·b) / (a·d)⌋`.
    fn nested_floor(terms: &Terms, d: i64) -> Option<Self> {
        let constant = terms.get(&Monomial::new()).copied().unwrap_or(0);
        let mut others = terms.iter().filter(|(monomial, _)| !monomial.is_empty());
        let (Some((monomial, 1)), None) = (others.next(), others.next()) else { return None };
        let [(Atom::Floor(x, a), 1)] = monomial.as_slice() else { return None };
        let sum = x + &Expr::Number(a.checked_mul(constant)?);
        Some(sum.floor_div(&Expr::Number(a.checked_mul(d)?)))
    }

    /// The quotient, if the division leaves nothing.
    #[must_use]
    pub fn exact_div(&self, divisor: &Expr) -> Option<Self> {
        if !(self.is_known() && divisor.is_known()) {
            return None;
        }
        if self == divisor && !self.is(0) {
            return Some(Expr::Number(1));
        }
        let divisor = divisor.terms();
        let (lead, &lead_coefficient) = divisor.last_key_value()?;
        let mut rest = self.clone();
        let mut quotient = Expr::Number(0);
        for _ in 0..MOST_TERMS {
            let terms = rest.terms();
            let Some((monomial, &coefficient)) = terms.last_key_value() else { return Some(quotient) };
            if coefficient.checked_rem(lead_coefficient)? != 0 {
                return None;
            }
            let factor = Terms::from([(without(monomial, lead)?, coefficient / lead_coefficient)]);
            let factor = Self::from_terms(factor);
            rest = &rest - &(&factor * &Self::from_terms(divisor.clone()));
            quotient = &quotient + &factor;
        }
        None
    }

    /// The remainder with the divisor's sign.
    #[must_use]
    pub fn modulo(&self, divisor: &Expr) -> Self {
        match (self, divisor) {
            (_, Expr::Number(0)) => Self::unknown("a division by zero"),
            (Expr::Number(n), Expr::Number(d)) => {
                let quotient = floor(*n, *d).and_then(|q| q.checked_mul(*d)).and_then(|m| n.checked_sub(m));
                quotient.map_or_else(Self::overflow, Expr::Number)
            }
            _ if self.exact_div(divisor).is_some() => Expr::Number(0),
            _ => Self::atom(Atom::Modulo(self.clone(), divisor.clone())),
        }
    }

    #[must_use]
    pub fn larger(&self, other: &Expr) -> Self {
        self.extremum(other, Ord::max, Atom::Max)
    }

    #[must_use]
    pub fn smaller(&self, other: &Expr) -> Self {
        self.extremum(other, Ord::min, Atom::Min)
    }

    fn extremum(&self, other: &Expr, of: fn(i64, i64) -> i64, atom: fn(Expr, Expr) -> Atom) -> Self {
        if let (Expr::Number(a), Expr::Number(b)) = (self, other) {
            return Expr::Number(of(*a, *b));
        }
        let largest = of(1, 0) == 1;
        // One may be the larger whatever its symbols are.
        let never_below = |a: &Expr, b: &Expr| (a - b).at_least().is_some_and(|n| n >= 0);
        let first_is_larger = match (self, other) {
            (a, b) if a == b || never_below(a, b) => Some(true),
            (a, b) if never_below(b, a) => Some(false),
            // max(min(x, y), y) = y, max(max(x, y), y) = max(x, y), and so on.
            (a, b) => a.is_extremum_with(b).or_else(|| b.is_extremum_with(a).map(|max| !max)),
        };
        match first_is_larger {
            Some(first) if first == largest => self.clone(),
            Some(_) => other.clone(),
            None => Self::atom(atom(self.min(other).clone(), self.max(other).clone())),
        }
    }

    /// Whether this is the larger (true) or the smaller (false) of `part` and something.
    fn is_extremum_with(&self, part: &Expr) -> Option<bool> {
        let Expr::Formula(formula) = self else { return None };
        let (monomial, 1) = formula.terms.first_key_value().filter(|_| formula.terms.len() == 1)? else {
            return None;
        };
        match monomial.as_slice() {
            [(Atom::Max(a, b), 1)] if a == part || b == part => Some(true),
            [(Atom::Min(a, b), 1)] if a == part || b == part => Some(false),
            _ => None,
        }
    }

    /// A bound from below that holds for every extent that a symbol may be.
    #[must_use]
    pub fn at_least(&self) -> Option<i64> {
        let Expr::Formula(formula) = self else { return self.number() };
        let bound = |(monomial, &coefficient): (&Monomial, &i64)| match monomial.as_slice() {
            [] => Some(coefficient),
            [(atom, 1)] if coefficient > 0 => atom.at_least()?.checked_mul(coefficient),
            atoms => {
                let mut bounds = atoms.iter().map(|(a, power)| a.at_least().filter(|&n| n >= 0)?.checked_pow(*power));
                let product = bounds.try_fold(1_i64, |product, n| product.checked_mul(n?));
                product.filter(|_| coefficient > 0).and_then(|n| n.checked_mul(coefficient))
            }
        };
        formula.terms.iter().map(bound).try_fold(0_i64, |sum, n| sum.checked_add(n?))
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

    fn at_least(&self) -> Option<i64> {
        match self {
            Atom::Symbol(_) => Some(1),
            Atom::Unknown(_) | Atom::Quotient(..) => None,
            Atom::Floor(x, d) => x.at_least().and_then(|n| floor(n, *d)),
            Atom::Modulo(_, d) => d.number().filter(|&d| d > 0).map(|_| 0),
            Atom::Max(x, y) => x.at_least().max(y.at_least()),
            Atom::Min(x, y) => x.at_least().zip(y.at_least()).map(|(x, y)| x.min(y)),
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

fn floor(n: i64, d: i64) -> Option<i64> {
    let quotient = n.checked_div(d)?;
    Some(if n % d != 0 && (n < 0) != (d < 0) { quotient - 1 } else { quotient })
}

fn without(monomial: &Monomial, divisor: &Monomial) -> Option<Monomial> {
    let mut powers: BTreeMap<Atom, u32> = monomial.iter().cloned().collect();
    for (atom, power) in divisor {
        let left = powers.get_mut(atom)?;
        *left = left.checked_sub(*power)?;
    }
    Some(powers.into_iter().filter(|(_, power)| *power > 0).collect())
}

fn product(a: &Monomial, b: &Monomial) -> Monomial {
    let mut powers: BTreeMap<Atom, u32> = a.iter().cloned().collect();
    for (atom, power) in b {
        let sum = powers.entry(atom.clone()).or_default();
        *sum = sum.saturating_add(*power);
    }
    powers.into_iter().collect()
}

/// Adds a term unless its coefficient overflows. Unknowns of one reason may be different
/// numbers: two of them are one more, and never cancel.
fn add_term(terms: &mut Terms, monomial: Monomial, coefficient: i64) -> bool {
    match terms.entry(monomial) {
        Entry::Vacant(vacant) => {
            vacant.insert(coefficient);
        }
        Entry::Occupied(mut sum) if sum.key().iter().any(|(atom, _)| !atom.is_known()) => {
            sum.insert(1);
        }
        Entry::Occupied(mut sum) => match sum.get().checked_add(coefficient) {
            Some(n) => {
                sum.insert(n);
            }
            None => return false,
        },
    }
    true
}

impl Expr {
    fn plus(&self, other: &Expr) -> Expr {
        if let (Expr::Number(a), Expr::Number(b)) = (self, other) {
            return a.checked_add(*b).map_or_else(Expr::overflow, Expr::Number);
        }
        let mut terms = self.terms();
        for (monomial, coefficient) in other.terms() {
            if !add_term(&mut terms, monomial, coefficient) {
                return Expr::overflow();
            }
        }
        Expr::from_terms(terms)
    }
}

impl Neg for &Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        self * -1
    }
}

/// An operator of borrowed formulas, and with a plain number on the right.
macro_rules! operator {
    ($operator:ident, $method:ident, $rule:expr) => {
        impl $operator<&Expr> for &Expr {
            type Output = Expr;
            fn $method(self, other: &Expr) -> Expr {
                $rule(self, other)
            }
        }

        impl $operator<i64> for &Expr {
            type Output = Expr;
            fn $method(self, other: i64) -> Expr {
                $rule(self, &Expr::Number(other))
            }
        }

        impl<T> $operator<T> for Expr
        where
            for<'a> &'a Expr: $operator<T, Output = Expr>,
        {
            type Output = Expr;
            fn $method(self, other: T) -> Expr {
                $operator::$method(&self, other)
            }
        }
    };
}

operator!(Add, add, Expr::plus);
operator!(Mul, mul, Expr::times);
operator!(Sub, sub, |a: &Expr, b: &Expr| a.plus(&b.times(&Expr::Number(-1))));

impl Expr {
    fn times(&self, other: &Expr) -> Expr {
        match (self, other) {
            (Expr::Number(a), Expr::Number(b)) => {
                return a.checked_mul(*b).map_or_else(Expr::overflow, Expr::Number);
            }
            (Expr::Number(0), _) | (_, Expr::Number(0)) => return Expr::Number(0),
            (Expr::Number(1), x) | (x, Expr::Number(1)) => return x.clone(),
            _ => {}
        }
        let (a, b) = (self.terms(), other.terms());
        if a.len() * b.len() > MOST_PRODUCTS {
            return Expr::too_large();
        }
        let mut terms = Terms::new();
        for (x, cx) in &a {
            for (y, cy) in &b {
                let coefficient = cx.checked_mul(*cy);
                if !coefficient.is_some_and(|c| add_term(&mut terms, product(x, y), c)) {
                    return Expr::overflow();
                }
            }
        }
        Expr::from_terms(terms)
    }
}

impl std::iter::Sum for Expr {
    fn sum<I: Iterator<Item = Expr>>(iter: I) -> Expr {
        iter.fold(Expr::Number(0), |sum, x| &sum + &x)
    }
}

impl std::iter::Product for Expr {
    fn product<I: Iterator<Item = Expr>>(iter: I) -> Expr {
        iter.fold(Expr::Number(1), |product, x| &product * &x)
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `3·batch·floor(height/2) + 1`: the terms of highest degree first.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = match self {
            Expr::Number(n) => return write!(f, "{n}"),
            Expr::Formula(formula) => &formula.terms,
        };
        let degree = |m: &Monomial| m.iter().map(|(_, power)| power).sum::<u32>();
        let mut sorted: Vec<_> = terms.iter().collect();
        sorted.sort_by_key(|(monomial, _)| std::cmp::Reverse(degree(monomial)));
        for (i, (monomial, &coefficient)) in sorted.into_iter().enumerate() {
            match (i, coefficient < 0) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str(" - ")?,
                (_, false) => f.write_str(" + ")?,
            }
            let size = coefficient.unsigned_abs();
            if size != 1 || monomial.is_empty() {
                write!(f, "{size}")?;
            }
            for (j, (atom, power)) in monomial.iter().enumerate() {
                write!(f, "{}{atom}", if j > 0 || size != 1 { "·" } else { "" })?;
                if *power > 1 {
                    write!(f, "^{power}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(name) => f.write_str(name),
            Atom::Floor(x, d) => write!(f, "floor(({x})/{d})"),
            Atom::Quotient(x, y) => write!(f, "floor(({x})/({y}))"),
            Atom::Modulo(x, y) => write!(f, "mod({x}, {y})"),
            Atom::Max(x, y) => write!(f, "max({x}, {y})"),
            Atom::Min(x, y) => write!(f, "min({x}, {y})"),
            Atom::Unknown(reason) => write!(f, "?({reason})"),
        }
    }
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
