//! Which of two formulas is the larger, whatever their symbols are.

use super::division::floor;
use super::{Atom, Expr, Monomial};

impl Expr {
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
                let mut bounds =
                    atoms.iter().map(|(a, power)| a.at_least().filter(|&n| n >= 0)?.checked_pow(*power));
                let product = bounds.try_fold(1_i64, |product, n| product.checked_mul(n?));
                product.filter(|_| coefficient > 0).and_then(|n| n.checked_mul(coefficient))
            }
        };
        formula.terms.iter().map(bound).try_fold(0_i64, |sum, n| sum.checked_add(n?))
    }
}

impl Atom {
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
}
