//! Products of matrices.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

use super::Why;
use super::call::Call;
use super::elementwise::one;
use super::table::{Row, rounds};
use super::value::{Value, broadcast, count, strides_at, zeros, zip};

pub(super) const ROWS: &[Row] = &[
    rounds("MatMul", |c| {
        let (a, b) = (c.operand(0)?, c.operand(1)?);
        c.sums(a.dims.last().copied().unwrap_or(1));
        one(matmul(a, b)?)
    }),
    rounds("Gemm", |c| {
        let product = gemm(c, c.operand(0)?, c.operand(1)?)?;
        one(match c.maybe(2) {
            Some(bias) => {
                let beta = c.real("beta", 1.0);
                zip(&product, &bias.expanded(&product.dims)?, |x, b| x + beta * b)?
            }
            None => product,
        })
    }),
];

/// `c = a · b` of row-major matrices `m × k` and `k × n`.
pub(super) fn product(
    a: &[f64],
    b: &[f64],
    c: &mut [f64],
    (m, k, n): (usize, usize, usize),
) -> Result<(), Why> {
    let misfit = |error: ndarray::ShapeError| error.to_string();
    let a = ArrayView2::from_shape((m, k), a).map_err(misfit)?;
    let b = ArrayView2::from_shape((k, n), b).map_err(misfit)?;
    let mut c = ArrayViewMut2::from_shape((m, n), c).map_err(misfit)?;
    general_mat_mul(1.0, &a, &b, 0.0, &mut c);
    Ok(())
}

/// The product of the last two axes; those before broadcast.
pub(super) fn matmul(a: &Value, b: &Value) -> Result<Value, Why> {
    let misfit = || format!("expected factors of a product, found {:?} and {:?}", a.dims, b.dims);
    let (left, right) = match (a.rank(), b.rank()) {
        (0, _) | (_, 0) => return Err(misfit()),
        (1, 1) => (vec![1, a.dims[0]], vec![b.dims[0], 1]),
        (1, _) => (vec![1, a.dims[0]], b.dims.clone()),
        (_, 1) => (a.dims.clone(), vec![b.dims[0], 1]),
        _ => (a.dims.clone(), b.dims.clone()),
    };
    let ((before_a, a_dims), (before_b, b_dims)) =
        (left.split_at(left.len() - 2), right.split_at(right.len() - 2));
    let ([m, k], [l, n]) = (a_dims, b_dims) else { return Err(misfit()) };
    let (m, k, n) = (*m, *k, *n);
    if k != *l {
        return Err(misfit());
    }
    let batch = broadcast(&[before_a, before_b])?;
    let mut dims = batch.clone();
    dims.extend([m, n]);
    let mut data = zeros(&dims)?;
    if !data.is_empty() {
        if before_b.iter().all(|&dim| dim == 1) && before_a == batch {
            // One matrix for all: one product.
            product(&a.data, &b.data, &mut data, (batch.iter().product::<usize>() * m, k, n))?;
        } else {
            let (steps_a, steps_b) = (strides_at(before_a, &batch)?, strides_at(before_b, &batch)?);
            let mut at = 0;
            let mut failed = Ok(());
            super::value::rows(&batch, [&steps_a, &steps_b], |[i, j], [s, t], length| {
                for step in 0..length as isize {
                    let i = (i + step * s) as usize * m * k;
                    let j = (j + step * t) as usize * k * n;
                    let (a, b) = (&a.data[i..i + m * k], &b.data[j..j + k * n]);
                    failed = failed.clone().and(product(a, b, &mut data[at..at + m * n], (m, k, n)));
                    at += m * n;
                }
            });
            failed?;
        }
    }
    let kept = batch.iter().copied();
    let rows = (a.rank() > 1).then_some(m);
    let columns = (b.rank() > 1).then_some(n);
    Value::new(a.dtype, kept.chain(rows).chain(columns).collect(), data)
}

/// `α · a · b`, each transposed where the node says so.
pub(super) fn gemm(call: &Call, a: &Value, b: &Value) -> Result<Value, Why> {
    let turned = |x: &Value, name| match (x.rank(), call.flag(name, false)) {
        (2, true) => x.transposed(&[1, 0]),
        (2, false) => Ok(x.clone()),
        _ => Err(format!("expected a matrix, found {:?}", x.dims)),
    };
    let (a, b, alpha) = (turned(a, "transA")?, turned(b, "transB")?, call.real("alpha", 1.0));
    count(&[a.dims[0], b.dims[1]])?;
    call.sums(a.dims[1]);
    let product = matmul(&a, &b)?;
    Ok(if alpha == 1.0 { product } else { product.map(|x| alpha * x) })
}
