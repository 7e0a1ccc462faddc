//! SiLU, GELU, ReLU and ReLU6.

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use emo_proto::Result;

use super::Form;
use crate::builder::Builder;
use crate::graph::{Part, Value};
use crate::op::{Binary, Unary};
use crate::profile::{Gelu, Silu};

/// Which activation follows a block's expansion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Silu,
    Gelu,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
}

/// Element by element, in any shape.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn activation(b: &mut Builder, x: Value, act: Act, form: Form) -> Result<Value> {
    b.within("act", |b| match act {
        // e^(−x) leaves float16 from x = −11 on.
        Act::Silu if form.half => silu(b, x, Silu::Sigmoid),
        Act::Silu => silu(b, x, form.forms().silu),
        Act::Gelu => match form.forms().gelu {
            Gelu::Operator if form.opset.gelu => b.unary("gelu", Unary::Gelu, x),
            Gelu::Operator | Gelu::Erf => erf_chain(b, x),
            Gelu::Spelled => b.part(Part::Gelu, |b| spelled(b, x)),
        },
        Act::Relu => b.unary("relu", Unary::Relu, x),
        Act::Relu6 => b.clip("clip", x, 0.0, 6.0),
    })
}

/// Large negative values end as x/∞, which is the right zero.
fn silu(b: &mut Builder, x: Value, silu: Silu) -> Result<Value> {
    match silu {
        Silu::Sigmoid => {
            let gate = b.unary("sigmoid", Unary::Sigmoid, x)?;
            b.binary("mul", Binary::Mul, x, gate)
        }
        Silu::Quotient => {
            let [zero, one] = [0.0, 1.0].map(|number| b.scalar(number));
            let negative = b.binary("negative", Binary::Sub, zero, x)?;
            let exp = b.unary("exp", Unary::Exp, negative)?;
            let divisor = b.binary("add", Binary::Add, exp, one)?;
            b.binary("div", Binary::Div, x, divisor)
        }
    }
}

/// The order of these five is the one that runtimes fuse.
fn erf_chain(b: &mut Builder, x: Value) -> Result<Value> {
    let [root, one, half] = [SQRT_2, 1.0, 0.5].map(|number| b.scalar(number));
    let scaled = b.binary("div", Binary::Div, x, root)?;
    let erf = b.unary("erf", Unary::Erf, scaled)?;
    let gate = b.binary("add", Binary::Add, erf, one)?;
    let gated = b.binary("mul", Binary::Mul, x, gate)?;
    b.binary("half", Binary::Mul, gated, half)
}

/// p and a₁ … a₅ of Abramowitz and Stegun 7.1.26: erf(a) = 1 − (a₁t + … + a₅t⁵)·e^(−a²) with
/// t = 1/(1 + p·a), for a ≥ 0, off by 1.5e-7 at most.
const P: f64 = 0.327_591_1;
const A: [f64; 5] = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];

/// ½·(x + |x|·erf(|x|/√2)).
fn spelled(b: &mut Builder, x: Value) -> Result<Value> {
    let [one, half, minus_half] = [1.0, 0.5, -0.5].map(|number| b.scalar(number));
    let slope = b.scalar((P * f64::from(FRAC_1_SQRT_2)) as f32);
    let size = b.unary("abs", Unary::Abs, x)?;
    let stretched = b.binary("stretch", Binary::Mul, size, slope)?;
    let below = b.binary("below", Binary::Add, stretched, one)?;
    let t = b.binary("t", Binary::Div, one, below)?;
    let leading = b.scalar(A[4] as f32);
    let mut series = b.binary("a5", Binary::Mul, t, leading)?;
    for (i, a) in A[..4].iter().enumerate().rev() {
        let a = b.scalar(*a as f32);
        series = b.binary(&format!("plus{}", i + 1), Binary::Add, series, a)?;
        series = b.binary(&format!("a{}", i + 1), Binary::Mul, series, t)?;
    }
    let square = b.binary("square", Binary::Mul, x, x)?;
    let exponent = b.binary("exponent", Binary::Mul, square, minus_half)?;
    let bell = b.unary("bell", Unary::Exp, exponent)?;
    let tail = b.binary("tail", Binary::Mul, series, bell)?;
    let erf = b.binary("erf", Binary::Sub, one, tail)?;
    let odd = b.binary("odd", Binary::Mul, size, erf)?;
    let sum = b.binary("sum", Binary::Add, x, odd)?;
    b.binary("half", Binary::Mul, sum, half)
}
