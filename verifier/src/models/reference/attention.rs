//! Attention over all tokens, and inside the windows of a map.

use std::iter;

use emo_exporter::models::mmb::Attention;
use emo_proto::Result;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, Array4, ArrayRef4, ArrayView2, Axis, s};

use super::mistake::Mistake;
use super::ops::{Pointwise, count, pixels, pixels_mut};
use super::scope::Scope;

/// Head by head, softmax(Q·Kᵀ / √`head_dim`)·V of `queries` and `keys` [C, tokens] and `values` [M, tokens], of which
/// a head has its share. Tokens that are `padding` are like any other.
pub fn attend(
    [queries, keys]: [ArrayView2<f64>; 2],
    values: &ArrayView2<f64>,
    head_dim: usize,
    padding: impl Iterator<Item = usize> + Clone,
    mistake: Option<Mistake>,
) -> Array2<f64> {
    let [queries, keys] = match mistake {
        Some(Mistake::ExchangedQueriesKeys) => [keys, queries],
        _ => [queries, keys],
    };
    let scale = match mistake {
        Some(Mistake::NoScale) => 1.0,
        _ => 1.0 / count(head_dim).sqrt(),
    };
    let heads = queries.nrows() / head_dim;
    let share = values.nrows() / heads;
    let mut attended = Array2::zeros(values.dim());
    for head in 0..heads {
        let own = s![head * head_dim..(head + 1) * head_dim, ..];
        let mut weights = queries.slice(own).t().dot(&keys.slice(own)) * scale;
        if mistake == Some(Mistake::MaskedPadding) {
            padding.clone().for_each(|token| weights.column_mut(token).fill(f64::NEG_INFINITY));
        }
        softmax_rows(&mut weights);
        let own = s![head * share..(head + 1) * share, ..];
        general_mat_mul(1.0, &values.slice(own), &weights.t(), 0.0, &mut attended.slice_mut(own));
    }
    attended
}

fn softmax_rows(scores: &mut Array2<f64>) {
    for mut row in scores.outer_iter_mut() {
        let largest = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        row.mapv_inplace(|score| (score - largest).exp());
        row /= row.sum();
    }
}

/// Which pixels of a map a window has.
#[derive(Clone, Copy, PartialEq)]
pub enum Pattern {
    /// A dilated grid, `(h1 n1) (w1 n2) -> n1 n2 h1 w1`: of `down` × `across` windows, window (i, j) has the pixels
    /// whose row is i modulo `down` and whose column is j modulo `across`. EMOv2 calls it remote.
    Strided,
    /// A contiguous tile, `(n1 h1) (n2 w1) -> n1 n2 h1 w1`. EMOv2 calls it close.
    Tiled,
}

/// The windows of a map, which reach past its end where it is no multiple of their side.
struct Windows {
    /// Of the map.
    height: usize,
    width: usize,
    /// Of a window.
    rows: usize,
    columns: usize,
    down: usize,
    across: usize,
}

impl Windows {
    /// Of `side` × `side` tokens; `None` is one window of the whole map.
    fn of(map: &ArrayRef4<f64>, side: Option<usize>) -> Self {
        let (_, _, height, width) = map.dim();
        let (rows, columns) = side.map_or((height, width), |side| (side, side));
        Self { height, width, rows, columns, down: height.div_ceil(rows), across: width.div_ceil(columns) }
    }

    /// The map with zeros to the right and below.
    fn pad(&self, map: &ArrayRef4<f64>) -> Array4<f64> {
        let (n, channels, ..) = map.dim();
        let mut padded = Array4::zeros((n, channels, self.down * self.rows, self.across * self.columns));
        padded.slice_mut(s![.., .., ..self.height, ..self.width]).assign(map);
        padded
    }

    /// What is left of a padded map without its padding.
    fn crop(&self, padded: &ArrayRef4<f64>) -> Array4<f64> {
        padded.slice(s![.., .., ..self.height, ..self.width]).to_owned()
    }

    fn clear_padding(&self, padded: &mut Array4<f64>) {
        padded.slice_mut(s![.., .., self.height.., ..]).fill(0.0);
        padded.slice_mut(s![.., .., .., self.width..]).fill(0.0);
    }

    /// Row and column of every token, window by window.
    fn tokens(&self, pattern: Pattern) -> impl Iterator<Item = Vec<(usize, usize)>> {
        let place = move |i: usize, j: usize, row: usize, column: usize| match pattern {
            Pattern::Strided => (row * self.down + i, column * self.across + j),
            Pattern::Tiled => (i * self.rows + row, j * self.columns + column),
        };
        let pairs =
            |rows: usize, columns: usize| (0..rows).flat_map(move |i| iter::repeat(i).zip(0..columns));
        pairs(self.down, self.across).map(move |(i, j)| {
            pairs(self.rows, self.columns).map(|(row, column)| place(i, j, row, column)).collect()
        })
    }
}

/// Attention inside windows, whose weights come from the unexpanded map.
pub struct WindowAttention {
    /// Channels (q or k, head, `head_dim`).
    queries_keys: Pointwise,
    head_dim: usize,
    /// Side of a window; `None` attends over the whole map.
    window: Option<usize>,
}

impl WindowAttention {
    pub fn load(scope: &Scope, channels: usize, row: Attention) -> Result<Self> {
        let Attention { head_dim, window } = row;
        Ok(Self { queries_keys: Pointwise::biased(scope, channels, 2 * channels)?, head_dim, window })
    }

    /// The values that `value` makes of `x`, mixed inside the windows of each pattern. Where the map ends before
    /// its windows, tokens of zeros fill them before anything is made of the map, and take part like any other:
    /// none is masked.
    pub fn forward<const PATTERNS: usize>(
        &self,
        x: &ArrayRef4<f64>,
        patterns: [Pattern; PATTERNS],
        value: impl FnOnce(&Array4<f64>) -> Array4<f64>,
        mistake: Option<Mistake>,
    ) -> [Array4<f64>; PATTERNS] {
        let windows = Windows::of(x, self.window);
        let padded = windows.pad(x);
        let mut projected = self.queries_keys.forward(&padded);
        let mut values = value(&padded);
        if mistake == Some(Mistake::LatePadding) {
            windows.clear_padding(&mut projected);
        }
        if matches!(mistake, Some(Mistake::LatePadding | Mistake::ZeroPaddedValues)) {
            windows.clear_padding(&mut values);
        }
        patterns.map(|pattern| windows.crop(&self.mix(&windows, &projected, &values, pattern, mistake)))
    }

    /// `projected` to queries and keys, and `values`, are of the padded map.
    fn mix(
        &self,
        windows: &Windows,
        projected: &Array4<f64>,
        values: &Array4<f64>,
        pattern: Pattern,
        mistake: Option<Mistake>,
    ) -> Array4<f64> {
        let mut mixed = Array4::zeros(values.dim());
        for tokens in windows.tokens(pattern) {
            let outside = |(_, (row, column)): &(usize, &(usize, usize))| {
                *row >= windows.height || *column >= windows.width
            };
            let padding = tokens.iter().enumerate().filter(outside).map(|(token, _)| token);
            let width = windows.across * windows.columns;
            let places: Vec<usize> = tokens.iter().map(|(row, column)| row * width + column).collect();
            for item in 0..values.dim().0 {
                let gather = |map: &Array4<f64>| {
                    let map = pixels(map.index_axis(Axis(0), item));
                    let mut gathered = Array2::zeros((map.nrows(), places.len()));
                    for (from, mut to) in map.outer_iter().zip(gathered.outer_iter_mut()) {
                        to.iter_mut().zip(&places).for_each(|(to, &place)| *to = from[place]);
                    }
                    gathered
                };
                let projected = gather(projected);
                let (queries, keys) = projected.view().split_at(Axis(0), projected.nrows() / 2);
                let values = gather(values);
                let attended =
                    attend([queries, keys], &values.view(), self.head_dim, padding.clone(), mistake);
                let mut map = pixels_mut(mixed.index_axis_mut(Axis(0), item));
                for (from, mut to) in attended.outer_iter().zip(map.outer_iter_mut()) {
                    from.iter().zip(&places).for_each(|(from, &place)| to[place] = *from);
                }
            }
        }
        mixed
    }
}
