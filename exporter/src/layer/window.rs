//! Windows of a map, cut and put back.

use emo_proto::Result;

use super::Form;
use crate::builder::Builder;
use crate::graph::{Dim, Shape, Value};
use crate::profile::{Padding, Windows};

/// Which tokens of a map are window (i, j) of its rows × columns windows of h × w tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Row ≡ i modulo the rows, column ≡ j modulo the columns: a window reaches over the whole map.
    Strided,
    /// Rows i·h to i·h + h − 1, columns j·w to j·w + w − 1: tiles.
    Contiguous,
}

impl Pattern {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Strided => "strided",
            Pattern::Contiguous => "contiguous",
        }
    }
}

/// A map of H × W tokens in `rows` × `columns` windows. What is missing to whole windows is padded with zeros.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    pattern: Pattern,
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
    /// Height and width of a window, in tokens.
    side: (usize, usize),
}

impl Grid {
    /// Square windows.
    #[must_use]
    pub fn new(height: usize, width: usize, window: usize) -> Self {
        let (rows, columns) = (height.div_ceil(window), width.div_ceil(window));
        Self { pattern: Pattern::Strided, height, width, rows, columns, side: (window, window) }
    }

    /// The map as its only window.
    #[must_use]
    pub fn whole(height: usize, width: usize) -> Self {
        Self { pattern: Pattern::Strided, height, width, rows: 1, columns: 1, side: (height, width) }
    }

    /// As many windows of other tokens.
    #[must_use]
    pub fn of(self, pattern: Pattern) -> Self {
        Self { pattern, ..self }
    }

    /// Tokens that padding adds to an image's map.
    #[must_use]
    pub fn padding(self) -> usize {
        let (height, width) = self.padded();
        height * width - self.height * self.width
    }

    /// Windows of an image.
    #[must_use]
    pub fn windows(self) -> usize {
        self.rows * self.columns
    }

    /// The batch of products that [`Grid::gather`] makes of `n` images, and how many windows lie in each.
    #[must_use]
    pub fn groups(self, n: Dim) -> (Dim, usize) {
        match self.pattern {
            Pattern::Strided => (n, self.windows()),
            Pattern::Contiguous => (n.by(self.windows()), 1),
        }
    }

    /// Tokens of a window.
    #[must_use]
    pub fn tokens(self) -> usize {
        self.side.0 * self.side.1
    }

    /// Height and width of a window.
    #[must_use]
    pub fn side(self) -> (usize, usize) {
        self.side
    }

    fn padded(self) -> (usize, usize) {
        (self.rows * self.side.0, self.columns * self.side.1)
    }

    /// Zeros below and to the right, up to whole windows; the rows lie on `axis`, the columns on
    /// the next.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub fn pad(self, b: &mut Builder, x: Value, axis: usize, form: Form) -> Result<Value> {
        if self.padding() == 0 {
            return Ok(x);
        }
        let (height, width) = self.padded();
        let missing = [height - self.height, width - self.width];
        match padding(b, x, form) {
            Padding::Pad => {
                let mut behind = [0; 4];
                behind[axis..axis + 2].copy_from_slice(&missing);
                b.pad("partition.pad", x, &[0; 4], &behind)
            }
            Padding::Concat => {
                let mut padded = x;
                let sides =
                    [(axis, missing[0], "partition.bottom"), (axis + 1, missing[1], "partition.right")];
                for (axis, missing, name) in sides.into_iter().filter(|(_, missing, _)| *missing > 0) {
                    let mut shape = b.shape(padded).clone();
                    shape.0[axis] = Dim::Fixed(missing);
                    let zeros = zeros(b, shape);
                    padded = b.concat(name, &[padded, zeros], axis)?;
                }
                Ok(padded)
            }
        }
    }

    /// Cuts the padding off again.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub fn crop(self, b: &mut Builder, x: Value, axis: usize) -> Result<Value> {
        if self.padding() == 0 {
            return Ok(x);
        }
        b.crop("merge.crop", x, &[axis, axis + 1], &[self.height, self.width])
    }

    /// A padded map `[N, C, H, W]` → `[windows·N, C, h, w]`.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub fn partition(self, b: &mut Builder, x: Value, windows: Windows) -> Result<Value> {
        if self.windows() == 1 {
            return Ok(x);
        }
        let (n, c, ..) = b.feature_map(x)?;
        let (height, width) = self.side;
        let batch = [n.by(self.windows()), c.into(), height.into(), width.into()];
        if self.pattern == Pattern::Contiguous {
            // Columns of windows to the front, then rows: five axes that trade places in two transposes of four.
            let strips = [n.by(c * self.rows), height.into(), self.columns.into(), width.into()];
            let x = b.reshape("partition.strips", x, strips)?;
            let x = b.transpose("partition.columns", x, &[2, 0, 1, 3])?;
            let x = b.reshape(
                "partition.rows",
                x,
                [n.by(self.columns * c), self.rows.into(), self.tokens().into()],
            )?;
            let x = b.transpose("partition.transpose", x, &[1, 0, 2])?;
            return b.reshape("partition.windows", x, batch);
        }
        if let Some(block) = self.block(windows) {
            let deep = b.space_to_depth("partition.depth", x, block)?;
            return b.reshape("partition.windows", deep, batch);
        }
        let strips = [n.by(c * height), self.rows.into(), width.into(), self.columns.into()];
        let x = b.reshape("partition.strips", x, strips)?;
        let x = b.transpose("partition.transpose", x, &[1, 3, 0, 2])?;
        b.reshape("partition.windows", x, batch)
    }

    /// The inverse of [`Grid::partition`].
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub fn merge(self, b: &mut Builder, x: Value, windows: Windows) -> Result<Value> {
        if self.windows() == 1 {
            return Ok(x);
        }
        let (batch, c, ..) = b.feature_map(x)?;
        let n = batch.over(self.windows()).unwrap_or(batch);
        let (height, width) = self.side;
        if self.pattern == Pattern::Contiguous {
            let x =
                b.reshape("merge.rows", x, [self.rows.into(), n.by(self.columns * c), self.tokens().into()])?;
            let x = b.transpose("merge.transpose", x, &[1, 0, 2])?;
            let strips = [self.columns.into(), n.by(c * self.rows), height.into(), width.into()];
            let x = b.reshape("merge.strips", x, strips)?;
            let x = b.transpose("merge.columns", x, &[1, 2, 0, 3])?;
            let (height, width) = self.padded();
            return b.reshape("merge.map", x, [n, c.into(), height.into(), width.into()]);
        }
        if let Some(block) = self.block(windows) {
            let deep =
                b.reshape("merge.deep", x, [n, (self.windows() * c).into(), height.into(), width.into()])?;
            return b.depth_to_space("merge.map", deep, block);
        }
        let strips = [self.rows.into(), self.columns.into(), n.by(c * height), width.into()];
        let x = b.reshape("merge.strips", x, strips)?;
        let x = b.transpose("merge.transpose", x, &[2, 0, 3, 1])?;
        let (height, width) = self.padded();
        b.reshape("merge.map", x, [n, c.into(), height.into(), width.into()])
    }

    /// The block of `SpaceToDepth`, where it is wanted and the grid is square.
    fn block(self, windows: Windows) -> Option<usize> {
        (windows == Windows::SpaceToDepth && self.rows == self.columns).then_some(self.rows)
    }

    /// A padded map of the elements of `[N, H, W, C]` → `[N·h, w, rows, columns·C]` of strided windows, the tokens
    /// of a window outermost, then the windows, or `[N·rows, columns, h, w·C]` of contiguous ones.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub fn gather(self, b: &mut Builder, x: Value, n: Dim, channels: usize) -> Result<Value> {
        let (h, w) = self.side;
        let strips: Shape = match self.pattern {
            Pattern::Strided => {
                [n.by(h), self.rows.into(), w.into(), (self.columns * channels).into()].into()
            }
            Pattern::Contiguous => {
                [n.by(self.rows), h.into(), self.columns.into(), (w * channels).into()].into()
            }
        };
        let x = b.reshape("partition.strips", x, strips)?;
        if self.windows() == 1 { Ok(x) } else { b.transpose("partition.transpose", x, &[0, 2, 1, 3]) }
    }

    /// The inverse of [`Grid::gather`], to `[N, H, W, C]`, `x` of any shape.
    ///
    /// # Errors
    /// As every layer: a shape does not fit.
    pub fn scatter(self, b: &mut Builder, x: Value, n: Dim, channels: usize) -> Result<Value> {
        let (height, width) = self.padded();
        let map = [n, height.into(), width.into(), channels.into()];
        if self.windows() == 1 {
            return b.reshape("merge.map", x, map);
        }
        let (h, w) = self.side;
        let strips: Shape = match self.pattern {
            Pattern::Strided => {
                [n.by(h), w.into(), self.rows.into(), (self.columns * channels).into()].into()
            }
            Pattern::Contiguous => {
                [n.by(self.rows), self.columns.into(), h.into(), (w * channels).into()].into()
            }
        };
        let x = b.reshape("merge.windows", x, strips)?;
        let x = b.transpose("merge.transpose", x, &[0, 2, 1, 3])?;
        b.reshape("merge.map", x, map)
    }
}

/// So many tokens of zeros before and behind those of `x: [N, T, C]`.
///
/// # Errors
/// As every layer: a shape does not fit.
pub fn pad_tokens(
    b: &mut Builder,
    name: &str,
    x: Value,
    (before, behind): (usize, usize),
    form: Form,
) -> Result<Value> {
    if padding(b, x, form) == Padding::Pad {
        return b.pad(name, x, &[0, before, 0], &[0, behind, 0]);
    }
    let mut parts = Vec::with_capacity(3);
    for tokens in [Some(before), None, Some(behind)] {
        let mut shape = b.shape(x).clone();
        match tokens {
            None => parts.push(x),
            Some(0) => {}
            Some(missing) => {
                shape.0[1] = Dim::Fixed(missing);
                parts.push(zeros(b, shape));
            }
        }
    }
    b.concat(name, &parts, 1)
}

/// Elements of a map at most to which zeros of constants are joined.
const LARGEST_PADDED: usize = 1 << 24;

/// As the profile has it; no constant is as long as a free batch, or as large as a map that nobody runs.
fn padding(b: &Builder, x: Value, form: Form) -> Padding {
    let extents = b.shape(x).0.iter().map(|dim| match dim {
        Dim::Fixed(extent) => Some(*extent),
        Dim::Batch(_) => None,
    });
    let elements = extents
        .collect::<Option<Vec<_>>>()
        .and_then(|extents| extents.into_iter().try_fold(1_usize, usize::checked_mul));
    match elements {
        Some(elements) if elements <= LARGEST_PADDED => form.forms().padding,
        _ => Padding::Pad,
    }
}

fn zeros(b: &mut Builder, shape: Shape) -> Value {
    let extents: Vec<usize> = shape.0.iter().map(|d| d.at_batch_one()).collect();
    let name: Vec<String> = extents.iter().map(ToString::to_string).collect();
    let numbers = vec![0.0; extents.iter().product()];
    b.numbers(&format!("zeros.{}", name.join("x")), shape, numbers)
}
