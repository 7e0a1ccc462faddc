//! Mistakes of attention: which tokens attend to which, and what becomes of those that pad a window.

use emo_exporter::models::emo::WINDOW;
use emo_proto::NodeProto;

use super::{ATTEND, Edit, LOCAL, PROJECT, Subject, replace};
use crate::onnx::{int, node};

/// Windows are tiles: the map is rearranged before its norm and put back before the depthwise convolution.
pub(super) fn tiles(s: &mut Subject, block: &str) -> Edit {
    let side = match block.split('.').next()? {
        "stage3" => 2 * WINDOW,
        _ => return None,
    };
    s.depth(block, ATTEND)?;
    let depth = s.before(block)?;
    // The map that the norm and the shortcut read.
    let (shortcut, own) = s.sum(s.depth(block, PROJECT)?)?;
    let map = s.nodes()[shortcut].input[1 - own].clone();
    let local = s.layers[s.depth(block, LOCAL)? - 1].outputs[0].clone();
    let windows = side / WINDOW;
    let grid: Vec<i64> = (0..side).map(|y| (y % windows * WINDOW + y / windows) as i64).collect();
    let mut tile = vec![0; side];
    grid.iter().zip(0..).for_each(|(&from, to)| tile[from as usize] = to);

    let at = s.writer(&map)? + 1;
    let readers: Vec<String> =
        s.nodes().iter().filter(|n| n.input.contains(&map)).map(|n| n.output[0].clone()).collect();
    let moved = s.rearranged(at, &map, &grid);
    let norm =
        |s: &Subject, n: &NodeProto| readers.contains(&n.output[0]) && s.depth_of(&n.output[0]) == depth;
    let norms: Vec<usize> = (0..s.nodes().len()).filter(|&i| norm(s, &s.nodes()[i])).collect();
    for i in norms {
        replace(&mut s.graph().node[i], &map, &moved);
    }
    let at = s.writer(&local)?;
    let value = s.nodes()[at].input[0].clone();
    let at = s.writer(&value)? + 1;
    let back = s.rearranged(at, &value, &tile);
    for node in s.graph().node.iter_mut().skip(at + 2) {
        replace(node, &value, &back);
    }
    Some(())
}

impl Subject {
    /// Rows and columns of a map in another order.
    fn rearranged(&mut self, at: usize, value: &str, order: &[i64]) -> String {
        let order = self.integers(order);
        let rows = self.insert(at, "Gather", &[value, &order]);
        self.graph().node[at].attribute.push(int("axis", 2));
        let columns = self.insert(at + 1, "Gather", &[&rows, &order]);
        self.graph().node[at + 1].attribute.push(int("axis", 3));
        columns
    }
}

/// The block does not attend: every token takes its own value.
pub(super) fn no_attention(s: &mut Subject, block: &str) -> Edit {
    // Scores times zero, and much for a token with itself: its weight is one.
    let tokens = WINDOW * WINDOW;
    let own: Vec<f32> =
        (0..tokens * tokens).map(|i| if i % tokens == i / tokens { 60.0 } else { 0.0 }).collect();
    let softmaxes = s.operators(s.depth(block, ATTEND)?, "Softmax");
    let (zero, own) = (s.constant(&[], &[0.0]), s.constant(&[tokens, tokens], &own));
    for &at in &softmaxes {
        let scores = s.nodes()[at].input[0].clone();
        let nothing = s.insert(at, "Mul", &[&scores, &zero]);
        let scores = s.insert(at + 1, "Add", &[&nothing, &own]);
        s.graph().node[at + 2].input[0] = scores;
    }
    // Two patterns of windows would give the value twice.
    if softmaxes.len() > 1 { close_only(s, block) } else { (!softmaxes.is_empty()).then_some(()) }
}

/// A map that windows cover.
struct Grid {
    height: usize,
    width: usize,
    /// Windows in a column and in a row.
    down: usize,
    across: usize,
}

impl Grid {
    /// The side of all windows of a column or of a row.
    fn padded(&self) -> (usize, usize) {
        (self.down * WINDOW, self.across * WINDOW)
    }

    fn has(&self, row: usize, column: usize) -> bool {
        row < self.height && column < self.width
    }

    /// By window, then by token: `inside` where the map is, `outside` where a window is padded.
    fn windows(&self, contiguous: bool, inside: f32, outside: f32) -> Vec<f32> {
        let Self { down, across, .. } = *self;
        let mut mask = Vec::new();
        for (i, j) in (0..down).flat_map(|i| (0..across).map(move |j| (i, j))) {
            for (y, x) in (0..WINDOW).flat_map(|y| (0..WINDOW).map(move |x| (y, x))) {
                let (row, column) = if contiguous {
                    (i * WINDOW + y, j * WINDOW + x)
                } else {
                    (y * down + i, x * across + j)
                };
                mask.push(if self.has(row, column) { inside } else { outside });
            }
        }
        mask
    }

    /// By pixel: 1 where the map is, 0 where it is padded.
    fn pixels(&self) -> Vec<f32> {
        let (height, width) = self.padded();
        let pixels = (0..height).flat_map(|row| (0..width).map(move |column| (row, column)));
        pixels.map(|(row, column)| if self.has(row, column) { 1.0 } else { 0.0 }).collect()
    }
}

impl Subject {
    /// The windows of a block that attends, where some of them are padded.
    fn padded(&self, block: &str) -> Option<Grid> {
        self.depth(block, ATTEND)?;
        let local = &self.layers[self.depth(block, LOCAL)? - 1].outputs[0];
        let [_, _, height, width] = self.shape(local)?.try_into().ok()?;
        let (down, across) = (height.div_ceil(WINDOW), width.div_ceil(WINDOW));
        let grid = Grid { height, width, down, across };
        (grid.padded() != (height, width)).then_some(grid)
    }

    /// What pads the windows of a value is 0.
    fn empty_padding(&mut self, value: &str, grid: &Grid) -> Edit {
        let (height, width) = grid.padded();
        let windows = grid.down * grid.across;
        let shape = self.shape(value)?;
        let dims: Vec<usize> = match shape[..] {
            [rows, _] if rows == height * width => vec![rows, 1],
            [1, h, w, _] if (h, w) == (height, width) => vec![1, h, w, 1],
            [1, _, h, w] if (h, w) == (height, width) => vec![1, 1, h, w],
            [n, _, WINDOW, WINDOW] if n == windows => vec![n, 1, WINDOW, WINDOW],
            _ => return None,
        };
        let pixels = if dims[0] == windows { grid.windows(false, 1.0, 0.0) } else { grid.pixels() };
        let mask = self.constant(&dims, &pixels);
        self.behind(value, "Mul", &mask)
    }

    /// EMOv2's values: what is read of them outside of the module that makes them.
    fn values(&self, block: &str) -> Option<String> {
        let module = format!("{block}.eops.0.v.");
        let mut others = self.nodes().iter().filter(|n| !n.name().starts_with(&module));
        others.find_map(|n| n.input.iter().find(|i| i.starts_with(&module) && !self.is_constant(i))).cloned()
    }
}

/// The softmax leaves out the tokens that pad a window.
pub(super) fn masked_padding(s: &mut Subject, block: &str) -> Edit {
    let grid = s.padded(block)?;
    let (windows, tokens) = (grid.down * grid.across, WINDOW * WINDOW);
    for at in s.operators(s.depth(block, ATTEND)?, "Softmax") {
        let contiguous = s.nodes()[at].name().contains(".contiguous.");
        // Window-major, as our own files are.
        let mask = s.constant(&[windows, 1, 1, tokens], &grid.windows(contiguous, 0.0, -1e4));
        let apart = s.integers(&[windows as i64, -1, tokens as i64, tokens as i64]);
        let scores = s.nodes()[at].input[0].clone();
        // Windows and heads may share an axis.
        let shape = s.insert(at, "Shape", &[&scores]);
        let windows = s.insert(at + 1, "Reshape", &[&scores, &apart]);
        let masked = s.insert(at + 2, "Add", &[&windows, &mask]);
        let scores = s.insert(at + 3, "Reshape", &[&masked, &shape]);
        s.graph().node[at + 4].input[0] = scores;
    }
    Some(())
}

/// What pads a window has the value 0, and not what the projection makes of 0.
pub(super) fn zero_padded_values(s: &mut Subject, block: &str) -> Edit {
    let (grid, values) = (s.padded(block)?, s.values(block)?);
    s.empty_padding(&values, &grid)
}

/// Windows are padded behind the projections, which then lack their biases there.
pub(super) fn late_padding(s: &mut Subject, block: &str) -> Edit {
    let grid = s.padded(block)?;
    let projections = s.layers[s.depth(block, ATTEND)? - 1].outputs.clone();
    // EMO's own values are not projected yet.
    projections.iter().chain(&s.values(block)).try_for_each(|value| s.empty_padding(value, &grid))
}

/// The sum over EMOv2's two patterns of windows: of the strided ones, then of the contiguous ones.
fn patterns(s: &Subject, block: &str) -> Option<usize> {
    s.named(&format!("{block}.eops.0.sum"))
}

pub(super) fn remote_only(s: &mut Subject, block: &str) -> Edit {
    let at = patterns(s, block)?;
    s.bypass(at, 0)
}

pub(super) fn close_only(s: &mut Subject, block: &str) -> Edit {
    let at = patterns(s, block)?;
    s.bypass(at, 1)
}

/// Half of the channels of one pattern, then the other half of the other.
fn concatenated(s: &mut Subject, block: &str, order: [usize; 2]) -> Edit {
    let at = patterns(s, block)?;
    let (_, definition) = s.model.blocks().into_iter().find(|(name, _)| name == block)?;
    let channels = definition.dim_mid();
    let NodeProto { input, output, .. } = s.nodes()[at].clone();
    let axis = s.shape(&output[0])?.iter().position(|&extent| extent == channels)? as i64;
    let cuts = [0, channels / 2, channels].map(|cut| s.integers(&[cut as i64]));
    let axes = s.integers(&[axis]);
    let first = s.insert(at, "Slice", &[&input[order[0]], &cuts[0], &cuts[1], &axes]);
    let second = s.insert(at + 1, "Slice", &[&input[order[1]], &cuts[1], &cuts[2], &axes]);
    s.graph().node[at + 2] = node("Concat", &[&first, &second], &[&output[0]], vec![int("axis", axis)]);
    Some(())
}

pub(super) fn remote_close(s: &mut Subject, block: &str) -> Edit {
    concatenated(s, block, [0, 1])
}

pub(super) fn close_remote(s: &mut Subject, block: &str) -> Edit {
    concatenated(s, block, [1, 0])
}
