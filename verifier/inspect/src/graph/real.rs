//! Floats that shapes pass through on their way: `floor(height · 0.5)`, `1 / scale`.

use std::fmt;

use emo_proto::tensor_proto::DataType;

use crate::sym::Expr;

/// A float that is known before the graph runs.
#[derive(Clone, PartialEq)]
pub enum Real {
    /// Rounded to the element type of its tensor.
    Number(f64),
    /// A formula over a positive integer, exactly.
    Quotient(Expr, i64),
}

/// A formula, and what it is divided by.
type Parts = (Expr, i64);

/// Products with binary fractions up to this denominator are exact in f32 for the extents of
/// tensors; with others the engine's rounding decides what a floor yields.
const FINEST: i64 = 1 << 10;
/// Integers below this are floats of 32 bits, exactly.
const LARGEST: f64 = 16_777_216.0;

impl From<f64> for Real {
    fn from(number: f64) -> Self {
        Real::Number(number)
    }
}

impl From<&Expr> for Real {
    fn from(formula: &Expr) -> Self {
        Self::quotient(formula.clone(), 1)
    }
}

impl Real {
    fn quotient(over: Expr, by: i64) -> Self {
        match over.number() {
            Some(n) => Real::Number(n as f64 / by as f64),
            None => Real::Quotient(over, by),
        }
    }

    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Real::Number(n) => Some(*n),
            Real::Quotient(..) => None,
        }
    }

    /// The quotient; a number only where it is a binary fraction.
    fn parts(&self) -> Option<Parts> {
        match self {
            Real::Quotient(over, by) => Some((over.clone(), *by)),
            Real::Number(n) => {
                let by = (0..).map(|i| 1_i64 << i).take_while(|&by| by <= FINEST);
                let exact = |by: &i64| {
                    let over = n * *by as f64;
                    over.fract() == 0.0 && over.abs() < LARGEST
                };
                by.into_iter().find(exact).map(|by| (Expr::Number((n * by as f64) as i64), by))
            }
        }
    }

    /// Numbers by `numbers`, quotients by `quotients`; `None` where the result is no such float.
    fn with(
        &self,
        other: &Real,
        numbers: fn(f64, f64) -> f64,
        quotients: fn(Parts, Parts) -> Option<Real>,
    ) -> Option<Real> {
        match (self, other) {
            (Real::Number(a), Real::Number(b)) => Some(Real::Number(numbers(*a, *b))),
            _ => quotients(self.parts()?, other.parts()?),
        }
    }

    #[must_use]
    pub fn plus(&self, other: &Real) -> Option<Real> {
        self.with(
            other,
            |a, b| a + b,
            |(a, d), (b, e)| Some(Self::quotient(&(&a * e) + &(&b * d), d.checked_mul(e)?)),
        )
    }

    #[must_use]
    pub fn minus(&self, other: &Real) -> Option<Real> {
        self.with(
            other,
            |a, b| a - b,
            |(a, d), (b, e)| Some(Self::quotient(&(&a * e) - &(&b * d), d.checked_mul(e)?)),
        )
    }

    #[must_use]
    pub fn times(&self, other: &Real) -> Option<Real> {
        self.with(other, |a, b| a * b, |(a, d), (b, e)| Some(Self::quotient(&a * &b, d.checked_mul(e)?)))
    }

    #[must_use]
    pub fn over(&self, other: &Real) -> Option<Real> {
        let quotients = |(a, d): Parts, (b, e): Parts| {
            // (a/d) / (b/e) = (a·e/b) / d
            match (b.number(), &a * e) {
                (Some(b), over) if b > 0 => Some(Self::quotient(over, b.checked_mul(d)?)),
                (Some(_), _) => None,
                (None, over) => {
                    let content = b.content();
                    Some(Self::quotient((over * content).exact_div(&b)?, d.checked_mul(content)?))
                }
            }
        };
        self.with(other, |a, b| a / b, quotients)
    }

    /// The larger of both; a NaN is larger than any number, as in `ReduceMax`.
    #[must_use]
    pub fn larger(&self, other: &Real) -> Option<Real> {
        self.with(
            other,
            |a, b| if a.is_nan() || a > b { a } else { b },
            |(a, d), (b, e)| Some(Self::quotient((&a * e).larger(&(&b * d)), d.checked_mul(e)?)),
        )
    }

    /// The smaller of both, in the same way.
    #[must_use]
    pub fn smaller(&self, other: &Real) -> Option<Real> {
        self.with(
            other,
            |a, b| if a.is_nan() || a < b { a } else { b },
            |(a, d), (b, e)| Some(Self::quotient((&a * e).smaller(&(&b * d)), d.checked_mul(e)?)),
        )
    }

    /// The sum, where each part of it is a float of `dtype`: then no order of addition rounds.
    #[must_use]
    pub fn sum(list: &[Real], dtype: DataType) -> Option<Real> {
        let total = list.iter().try_fold(Real::Number(0.0), |sum, x| sum.plus(x))?;
        let numbers: Option<Vec<f64>> = list.iter().map(Real::number).collect();
        let Some(numbers) = numbers else { return Some(total) };
        // All are multiples of a power of two; no part is larger than all sizes together.
        let step = numbers.iter().filter(|n| **n != 0.0).map(|n| last_bit(*n)).fold(f64::INFINITY, f64::min);
        let largest: f64 = numbers.iter().map(|n| n.abs()).sum();
        (largest == 0.0 || largest / step < holds(dtype)?).then_some(total)
    }

    /// The product, where it is a float of `dtype` that no order of multiplication rounds.
    #[must_use]
    pub fn product(list: &[Real], dtype: DataType) -> Option<Real> {
        let mut product = Real::Number(1.0);
        for x in list {
            product = product.times(x)?;
            // Each part of an exact product is as exact, for its digits divide the product's.
            if let Real::Number(n) = product
                && n != 0.0
                && !(n.is_normal() && n.abs() / last_bit(n) < holds(dtype)?)
            {
                return None;
            }
        }
        Some(product)
    }

    #[must_use]
    pub fn floor(&self) -> Real {
        match self {
            Real::Number(n) => Real::Number(n.floor()),
            Real::Quotient(over, by) => Self::quotient(over.floor_div(&Expr::Number(*by)), 1),
        }
    }

    #[must_use]
    pub fn ceil(&self) -> Real {
        match self {
            Real::Number(n) => Real::Number(n.ceil()),
            Real::Quotient(over, by) => Self::quotient(over.ceil_div(&Expr::Number(*by)), 1),
        }
    }

    /// The integer that a cast cuts it to.
    #[must_use]
    pub fn truncated(&self) -> Option<Expr> {
        match self {
            // The border is no i64, what lies inside is.
            Real::Number(n) if n.abs() < i64::MAX as f64 => Some(Expr::Number(*n as i64)),
            Real::Number(_) => None,
            Real::Quotient(over, 1) => Some(over.clone()),
            Real::Quotient(over, by) => {
                let zero = Expr::Number(0);
                (over.larger(&zero) == *over).then(|| over.floor_div(&Expr::Number(*by)))
            }
        }
    }

    /// The number as its element type holds it.
    #[must_use]
    pub fn rounded(self, dtype: DataType) -> Option<Real> {
        match (self, dtype) {
            (Real::Number(n), DataType::Float) => Some(Real::Number(f64::from(n as f32))),
            (Real::Number(n), DataType::Double) => Some(Real::Number(n)),
            (quotient @ Real::Quotient(..), DataType::Float | DataType::Double) => Some(quotient),
            // Halves overflow at extents that are met with.
            _ => None,
        }
    }
}

/// The value of the last bit that is set in the fraction of a number other than zero.
fn last_bit(n: f64) -> f64 {
    let zeros = n.to_bits().trailing_zeros().min(52);
    // The number with its fraction's last set bit cleared is that bit away.
    let ulp = f64::from_bits(n.abs().to_bits() + 1) - n.abs();
    ulp * (1_u64 << zeros) as f64
}

/// Whole numbers below this are floats of the type.
fn holds(dtype: DataType) -> Option<f64> {
    match dtype {
        DataType::Float => Some(LARGEST),
        DataType::Double => Some((1_u64 << 53) as f64),
        _ => None,
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Real::Number(n) => write!(f, "{n}"),
            Real::Quotient(over, by) => write!(f, "({over})/{by}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_arithmetic_is_exact_or_unknown() {
        let h = Real::from(&Expr::symbol("h"));
        let half = h.times(&0.5.into()).map(|x| x.floor()).and_then(|x| x.truncated());
        assert_eq!(half.map(|x| x.to_string()).as_deref(), Some("floor((h)/2)"));
        let back = h.times(&1.5.into()).and_then(|x| x.over(&h)).and_then(|x| x.number());
        assert_eq!(back, Some(1.5));
        assert_eq!(h.over(&h.plus(&h).unwrap()).and_then(|x| x.number()), Some(0.5));
        assert_eq!(
            h.times(&0.7.into()),
            None,
            "0.7 · 10 is 7 in f32, and its floor below 7 in exact numbers"
        );
        assert_eq!(h.over(&0.0.into()), None);
        assert_eq!(Real::Number(1e30).truncated(), None);
    }
    #[test]
    fn sums_and_products_are_exact_in_any_order_or_unknown() {
        let list = |numbers: &[f64]| numbers.iter().map(|&n| Real::Number(n)).collect::<Vec<_>>();
        let sum = |numbers: &[f64]| Real::sum(&list(numbers), DataType::Float).and_then(|x| x.number());
        let product =
            |numbers: &[f64]| Real::product(&list(numbers), DataType::Float).and_then(|x| x.number());
        assert_eq!(sum(&[0.5, 320.0, -7.25]), Some(313.25));
        assert_eq!(sum(&[]), Some(0.0));
        assert_eq!(sum(&[16_777_216.0, 1.0]), None, "f32 has no such odd number");
        assert_eq!(sum(&[f64::from(0.1_f32), 1e6]), None);
        assert_eq!(sum(&[f64::NAN, 1.0]), None);
        assert_eq!(product(&[48.0, 0.25, -3.0]), Some(-36.0));
        assert_eq!(product(&[f64::from(0.1_f32), f64::from(0.1_f32)]), None);
        assert_eq!(product(&[f64::INFINITY, 2.0]), None);
        let h = Real::from(&Expr::symbol("h"));
        assert_eq!(Real::sum(&[h.clone(), h.clone()], DataType::Float), h.plus(&h));
        assert_eq!(
            h.larger(&h.times(&0.5.into()).unwrap()).map(|x| x.truncated().unwrap().to_string()).as_deref(),
            Some("h")
        );
    }
}
