//! Sums and products.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::{Add, Mul, Neg, Sub};

use super::{Atom, Expr, MOST_PRODUCTS, Monomial, Terms};

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
    /// Factors of one term are put together at once: extents may be symbols by the hundred.
    fn product<I: Iterator<Item = Expr>>(iter: I) -> Expr {
        let (mut coefficient, mut powers) = (Some(1_i64), BTreeMap::<Atom, u32>::new());
        let mut sums = Expr::Number(1);
        for factor in iter {
            match &factor {
                Expr::Number(0) => return factor,
                Expr::Number(n) => coefficient = coefficient.and_then(|c| c.checked_mul(*n)),
                Expr::Formula(formula) => match formula.terms.first_key_value() {
                    Some((monomial, n)) if formula.terms.len() == 1 => {
                        coefficient = coefficient.and_then(|c| c.checked_mul(*n));
                        for (atom, power) in monomial {
                            let sum = powers.entry(atom.clone()).or_default();
                            *sum = sum.saturating_add(*power);
                        }
                    }
                    _ => sums = &sums * &factor,
                },
            }
        }
        let Some(coefficient) = coefficient else { return Expr::overflow() };
        &Expr::from_terms(Terms::from([(powers.into_iter().collect(), coefficient)])) * &sums
    }
}
