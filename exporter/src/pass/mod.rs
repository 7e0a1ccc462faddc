//! Passes: exact rewrites of a graph, and its lowering to half precision, in the order in which they run.
//!
//! Each finds its nodes by their structure and notes what it took out of the published model, or put
//! in, as a [`Rewrite`](crate::rewrite::Rewrite), so that an audit of the file ends at the published
//! figures. Weights are not touched: a constant's source becomes a formula that the encoder evaluates.

mod edit;
mod fold;
pub mod half;
mod rows;
mod split;

use emo_proto::tensor_proto::DataType;

use crate::graph::Graph;
use crate::profile::Expansion;
use crate::target::Target;

/// A rewrite of a whole graph.
pub struct Pass {
    pub name: &'static str,
    /// What it does, and what stays as it was.
    pub what: &'static str,
    /// Whether a target asks for it.
    pub wanted: fn(&Target) -> bool,
    run: fn(&mut Graph, &Target),
}

/// In the order in which they run: a later one may build on what an earlier one left.
pub const PASSES: [Pass; 6] = [
    Pass {
        name: "fold-batch-norms",
        what: "batch norms go into the convolutions beside them; the function stays the same",
        wanted: |target| target.profile.forms.fold,
        run: |graph, _| fold::batch_norms(graph),
    },
    Pass {
        name: "fold-layer-scales",
        what: "a scale per channel goes into the convolution before it; the function stays the same",
        wanted: |target| target.profile.forms.fold,
        run: |graph, _| fold::layer_scales(graph),
    },
    Pass {
        name: "merge-neighbours",
        what: "two pointwise convolutions with nothing between them become one, where that costs less; it needs \
               the norms between them folded, and the function stays the same",
        wanted: |target| target.profile.forms.merge,
        run: |graph, _| fold::merge_neighbours(graph),
    },
    Pass {
        name: "split-before-resizes",
        what: "a pointwise convolution over maps side by side becomes one a map, before the map is resized, and their \
               sum; it needs the norms behind it folded, and the function stays the same",
        wanted: |target| target.profile.forms.split,
        run: |graph, _| split::before_resizes(graph),
    },
    Pass {
        name: "expansions-as-rows",
        what: "the expansion before a slow depthwise convolution becomes a product over rows of channels; counts \
               and function stay the same",
        wanted: |target| target.profile.forms.expansion == Expansion::Rows,
        run: |graph, _| rows::expansions_as_rows(graph),
    },
    Pass {
        name: "half-precision",
        what: "weights and computation become float16, but for the parts that the target keeps in float32; it is \
               the last, since types are not rewritten later, and inputs and outputs keep theirs",
        wanted: |target| target.dtype == DataType::Float16,
        run: |graph, target| half::lower(graph, target.profile.float32),
    },
];

/// Runs the passes that `target` asks for.
pub(crate) fn run(graph: &mut Graph, target: &Target) {
    for pass in PASSES.iter().filter(|pass| (pass.wanted)(target)) {
        (pass.run)(graph, target);
    }
    graph.rewrites.sort_by(|a, b| a.what.cmp(&b.what));
}
