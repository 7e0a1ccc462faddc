//! Windows over up to three spatial axes, of convolutions and pools.

use super::Why;
use super::call::Call;
use super::value::count;
use crate::ops::Window;

/// Where a window lies at each of its positions; fewer axes than three have extents of 1 in front.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    pub input: [usize; 3],
    pub output: [usize; 3],
    pub kernel: [usize; 3],
    pub strides: [usize; 3],
    pub dilations: [usize; 3],
    pub begins: [usize; 3],
    pub ends: [usize; 3],
    /// Spatial axes that there really are.
    pub axes: usize,
}

/// Steps of a window and pads, at most: sums and products of them with extents are numbers.
const FARTHEST: i64 = 1 << 31;

fn three(list: &[usize], fill: usize) -> [usize; 3] {
    std::array::from_fn(|i| (i + list.len()).checked_sub(3).map_or(fill, |at| list[at]))
}

impl Geometry {
    /// The window of a node that reads `input`.
    pub fn of(call: &Call, input: &[usize], kernel: &[usize]) -> Result<Self, Why> {
        let window = Self::checked(call, input, kernel)?;
        let mut output = Vec::new();
        for (i, (&side, &kernel)) in input.iter().zip(kernel).enumerate() {
            output.push(number(window.output(i, &side.into(), &kernel.into())?.number())?);
        }
        Ok(Self::new(&window, input, &output, kernel, input, &output))
    }

    /// The window of a transposed convolution that reads `input`: it lies on what is written.
    pub fn transposed(call: &Call, input: &[usize], kernel: &[usize]) -> Result<Self, Why> {
        let window = Self::checked(call, input, kernel)?;
        let axes = input.len();
        let extra = call.ints("output_padding").unwrap_or_default();
        let asked = call.ints("output_shape").filter(|shape| !shape.is_empty());
        let (mut whole, mut cut) = (Vec::new(), Vec::new());
        for (i, (&side, &kernel)) in input.iter().zip(kernel).enumerate() {
            let extra = extra.get(i).copied().unwrap_or(0);
            let reach = number(window.reach(i, &kernel.into()).number())?;
            whole.push((side.max(1) - 1) * window.strides[i] as usize + reach + number(Some(extra))?);
            cut.push(match asked {
                Some(shape) => {
                    number((shape.len() + i).checked_sub(axes).and_then(|at| shape.get(at)).copied())?
                }
                None => number(window.transposed(i, &side.into(), &kernel.into(), extra)?.number())?,
            });
        }
        let mut geometry = Self::new(&window, &cut, input, kernel, &cut, input);
        if asked.is_some() || window.is_same() {
            for i in 0..axes {
                let spare = whole[i].saturating_sub(cut[i]);
                let lower = call.text("auto_pad") == Some("SAME_LOWER");
                // ONNX: of an odd number the larger half is in front, but for SAME_UPPER.
                let upper = call.text("auto_pad") == Some("SAME_UPPER");
                let begin = if upper && !lower { spare / 2 } else { spare - spare / 2 };
                geometry.begins[3 - axes + i] = begin;
            }
        }
        Ok(geometry)
    }

    fn checked<'a>(call: &'a Call, input: &[usize], kernel: &[usize]) -> Result<Window<'a>, Why> {
        let axes = input.len();
        if !(1..=3).contains(&axes) || kernel.len() != axes || kernel.contains(&0) {
            return Err(format!(
                "expected one to three spatial axes, found {input:?} and a kernel {kernel:?}"
            ));
        }
        count(kernel)?;
        let window = Window::of(call, axes)?;
        let lists = [&window.strides, &window.dilations, &window.begins, &window.ends];
        let far = lists.into_iter().flatten().copied().find(|&n| n > FARTHEST);
        match far {
            Some(n) => Err(format!("expected strides, dilations and pads of at most {FARTHEST}, found {n}")),
            None => Ok(window),
        }
    }

    fn new(
        window: &Window,
        input: &[usize],
        output: &[usize],
        kernel: &[usize],
        sides: &[usize],
        positions: &[usize],
    ) -> Self {
        let list = |values: &[i64]| values.iter().map(|&n| n as usize).collect::<Vec<_>>();
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for i in 0..input.len() {
            let (begin, end) = window.pads(i);
            let reach = (kernel[i] - 1) * window.dilations[i] as usize + 1;
            let need =
                ((positions[i].max(1) - 1) * window.strides[i] as usize + reach).saturating_sub(sides[i]);
            begins.push(if window.is_same() {
                need - if window.is_upper() { need.div_ceil(2) } else { need / 2 }
            } else {
                begin as usize
            });
            ends.push(if window.is_same() { need - begins[i] } else { end as usize });
        }
        Self {
            input: three(input, 1),
            output: three(output, 1),
            kernel: three(kernel, 1),
            strides: three(&list(&window.strides), 1),
            dilations: three(&list(&window.dilations), 1),
            begins: three(&begins, 0),
            ends: three(&ends, 0),
            axes: input.len(),
        }
    }

    /// Every place in the kernel, in its order.
    pub fn taps(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [a, b, c] = self.kernel;
        (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| [i, j, k])))
    }

    /// The number of rows of positions: all axes but the last.
    pub fn lines(&self) -> usize {
        self.output[0] * self.output[1]
    }

    pub fn positions(&self) -> usize {
        self.lines() * self.output[2]
    }

    pub fn pixels(&self) -> usize {
        self.input.iter().product()
    }

    pub fn places(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Where a tap reads along an axis at a position; `None` in the padding.
    pub fn at(&self, axis: usize, position: usize, tap: usize) -> Option<usize> {
        let at = position * self.strides[axis] + tap * self.dilations[axis];
        at.checked_sub(self.begins[axis]).filter(|&at| at < self.input[axis])
    }

    /// The positions of a line at which a tap reads inside the input, and where it reads first, in a plane of
    /// the input; the next is `strides[2]` further.
    pub fn run(&self, line: usize, tap: [usize; 3]) -> Option<(usize, usize, usize)> {
        let i = self.at(0, line / self.output[1], tap[0])?;
        let j = self.at(1, line % self.output[1], tap[1])?;
        let (stride, offset, begin) = (self.strides[2], tap[2] * self.dilations[2], self.begins[2]);
        let first = begin.saturating_sub(offset).div_ceil(stride);
        let last = (self.input[2] + begin).checked_sub(offset + 1)? / stride;
        let last = (last + 1).min(self.output[2]);
        let start = (i * self.input[1] + j) * self.input[2];
        (first < last).then(|| (first, last, start + first * stride + offset - begin))
    }
}

fn number(n: Option<i64>) -> Result<usize, Why> {
    let n = n.and_then(|n| usize::try_from(n).ok());
    n.ok_or_else(|| "expected extents that are known and not negative".to_owned())
}
