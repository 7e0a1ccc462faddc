//! Quotients, rounded down, and remainders.

use std::collections::BTreeMap;

use super::{Atom, Expr, MOST_TERMS, Monomial, Terms};

impl Expr {
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
        match divisor.number() {
            // One form for one quotient, so that equal ones are seen to be.
            Some(d) if d > 0 => (self + (d - 1)).floor_div(divisor),
            _ => -&(-self).floor_div(divisor),
        }
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

    /// What every coefficient can be divided by; 1 for zero.
    #[must_use]
    pub fn content(&self) -> i64 {
        let gcd = |mut a: i64, mut b: i64| {
            while b != 0 {
                (a, b) = (b, a.checked_rem(b).unwrap_or(0));
            }
            a
        };
        self.terms().values().fold(0, |all, &c| gcd(all, c)).saturating_abs().max(1)
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
}

pub(super) fn floor(n: i64, d: i64) -> Option<i64> {
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
