//! Formulas as text.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{Atom, Expr, Monomial};

/// A number as such, a formula as text.
impl Serialize for Expr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Expr::Number(n) => serializer.serialize_i64(*n),
            Expr::Formula(_) => serializer.collect_str(self),
        }
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
