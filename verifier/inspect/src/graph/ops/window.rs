//! Windows that slide over the spatial axes of `[N, C, …]`: of convolutions and pools.

use super::{Ctx, Why};
use crate::sym::Expr;

/// The attributes that place a window, a value each spatial axis.
#[derive(Debug)]
pub struct Window<'a> {
    pub strides: Vec<i64>,
    pub dilations: Vec<i64>,
    pub begins: Vec<i64>,
    pub ends: Vec<i64>,
    pub ceil: bool,
    auto_pad: &'a str,
}

impl<'a> Window<'a> {
    /// Reads the attributes of a node with `axes` spatial axes.
    pub fn of(ctx: &Ctx<'a>, axes: usize) -> Result<Self, Why> {
        let list = |name: &str, length: usize, least: i64| match ctx.ints(name) {
            Some([]) | None => Ok(vec![least; length]),
            Some(values) if values.len() == length && values.iter().all(|&v| v >= least) => {
                Ok(values.to_vec())
            }
            Some(values) => Err(format!("expected {length} {name} of {least} at least, found {values:?}")),
        };
        let mut begins = list("pads", 2 * axes, 0)?;
        let ends = begins.split_off(axes);
        let auto_pad = ctx.text("auto_pad").unwrap_or("NOTSET");
        if !matches!(auto_pad, "" | "NOTSET" | "VALID" | "SAME_UPPER" | "SAME_LOWER") {
            return Err(format!(
                "expected auto_pad NOTSET, VALID, SAME_UPPER or SAME_LOWER, found {auto_pad}"
            ));
        }
        Ok(Self {
            strides: list("strides", axes, 1)?,
            dilations: list("dilations", axes, 1)?,
            begins,
            ends,
            ceil: ctx.int("ceil_mode", 0) != 0,
            auto_pad,
        })
    }

    /// Whether the pads follow from the strides.
    pub fn is_same(&self) -> bool {
        self.auto_pad.starts_with("SAME")
    }

    /// Whether of an odd pad that follows from the strides the larger half is behind.
    pub fn is_upper(&self) -> bool {
        self.auto_pad == "SAME_UPPER"
    }

    /// Pads before and after axis `i`.
    pub fn pads(&self, i: usize) -> (i64, i64) {
        if self.auto_pad == "VALID" || self.is_same() { (0, 0) } else { (self.begins[i], self.ends[i]) }
    }

    /// How many elements lie between the first and the last that a kernel reads, both included.
    pub fn reach(&self, i: usize, kernel: &Expr) -> Expr {
        (kernel - 1) * self.dilations[i] + 1
    }

    /// Positions of the window along axis `i`, where the input is `side` long.
    ///
    /// Rounded up, the last window still starts inside the input or the padding before it.
    pub fn output(&self, i: usize, side: &Expr, kernel: &Expr) -> Result<Expr, Why> {
        let stride = Expr::Number(self.strides[i]);
        if self.is_same() {
            return Ok(side.ceil_div(&stride));
        }
        let (begin, end) = self.pads(i);
        let reach = self.reach(i, kernel);
        let room = side + begin + end - &reach;
        if room.number().is_some_and(|n| n < 0) {
            return Err(format!("a kernel that reaches over {reach} does not fit into {side}"));
        }
        if !self.ceil {
            return Ok(room.floor_div(&stride) + 1);
        }
        let positions = room.ceil_div(&stride) + 1;
        let all_start_inside = (&reach - end - &stride).number().is_some_and(|spare| spare >= 0);
        Ok(if all_start_inside { positions } else { positions.smaller(&(side + begin).ceil_div(&stride)) })
    }

    /// Elements that a transposed window writes along axis `i`, with `extra` at the end.
    ///
    /// Where the pads follow from the strides they cut the output to `side · stride`; a kernel
    /// that does not reach that far is not padded out.
    pub fn transposed(&self, i: usize, side: &Expr, kernel: &Expr, extra: i64) -> Result<Expr, Why> {
        let stride = self.strides[i];
        let written = (side - 1) * stride + &self.reach(i, kernel) + extra;
        if self.is_same() {
            return Ok(written.smaller(&(side * stride)));
        }
        let (begin, end) = self.pads(i);
        let kept = written - begin - end;
        match kept.number() {
            Some(n) if n < 0 => Err(format!("pads of {begin} and {end} leave nothing of the output")),
            _ => Ok(kept),
        }
    }
}

/// The kernel of a pool: an attribute that must be there, a value each spatial axis.
pub(super) fn kernel(ctx: &Ctx, axes: usize) -> Result<Vec<Expr>, Why> {
    match ctx.ints("kernel_shape") {
        Some(kernel) if kernel.len() == axes && kernel.iter().all(|&k| k > 0) => {
            Ok(kernel.iter().map(|&k| k.into()).collect())
        }
        other => Err(format!("expected a kernel_shape of {axes} extents above 0, found {other:?}")),
    }
}

/// The number of spatial axes of `[N, C, …]`.
pub(super) fn spatial(dims: &[Expr]) -> Result<usize, Why> {
    dims.len()
        .checked_sub(2)
        .filter(|&axes| axes > 0)
        .ok_or_else(|| format!("expected [N, C, …], found {dims:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A window over one axis.
    fn window(stride: i64, dilation: i64, pads: (i64, i64), ceil: bool, auto_pad: &str) -> Window<'_> {
        let (begins, ends) = (vec![pads.0], vec![pads.1]);
        Window { strides: vec![stride], dilations: vec![dilation], begins, ends, ceil, auto_pad }
    }

    /// Where windows start, found one by one: as long as the last lies within the padded input or,
    /// rounded up, as long as it starts within it and the one before has not reached its end.
    fn starts(side: i64, reach: i64, stride: i64, (begin, end): (i64, i64), ceil: bool) -> i64 {
        let (mut positions, mut start) = (0, -begin);
        let mut covered = false;
        loop {
            let whole = start + reach <= side + end;
            if !(whole || ceil && !covered && start < side) {
                return positions;
            }
            covered = start + reach >= side + end;
            (positions, start) = (positions + 1, start + stride);
        }
    }

    proptest! {
        #[test]
        fn positions_are_those_found_one_by_one(
            side in 1_i64..40, kernel in 1_i64..6, stride in 1_i64..6, dilation in 1_i64..4,
            begin in 0_i64..6, end in 0_i64..6, ceil: bool,
        ) {
            let reach = (kernel - 1) * dilation + 1;
            // Pads as large as the kernel have windows that see nothing of the input.
            prop_assume!(begin < reach && end < reach && side + begin + end >= reach);
            let window = window(stride, dilation, (begin, end), ceil, "NOTSET");
            let expected = starts(side, reach, stride, (begin, end), ceil);
            prop_assert_eq!(window.output(0, &side.into(), &kernel.into()), Ok(expected.into()));

            // The formula of a symbol is worth the same.
            let formula = window.output(0, &Expr::symbol("side"), &kernel.into()).unwrap();
            prop_assert_eq!(formula.with(&|_| Some(side)), expected.into());
        }

        /// Transposed, a window writes what it would have read.
        #[test]
        fn transposed_is_the_inverse(
            positions in 1_i64..20, kernel in 1_i64..6, stride in 1_i64..6, dilation in 1_i64..4, begin in 0_i64..3,
        ) {
            let window = window(stride, dilation, (begin, 0), false, "NOTSET");
            let written = window.transposed(0, &positions.into(), &kernel.into(), 0);
            prop_assume!(written.as_ref().is_ok_and(|n| !n.is(0)));
            prop_assert_eq!(window.output(0, &written.unwrap(), &kernel.into()), Ok(positions.into()));
        }

        #[test]
        fn same_is_the_quotient_rounded_up(side in 1_i64..40, kernel in 1_i64..6, stride in 1_i64..6) {
            let window = window(stride, 1, (0, 0), false, "SAME_LOWER");
            prop_assert_eq!(window.output(0, &side.into(), &kernel.into()), Ok(((side + stride - 1) / stride).into()));
        }
    }
}
