//! Mistakes that need other shapes than the right file has: our exporter's layers in the wrong order, put into the
//! file where the right ones were.

use std::collections::HashSet;

use emo_exporter::builder::Builder;
use emo_exporter::encode::encode;
use emo_exporter::graph::Value;
use emo_exporter::layer::{self, Act, Conv, Form, Grid, Normed, Pattern, Span};
use emo_exporter::models::mmb::{AttentionLayout, Block, Layout, Values};
use emo_exporter::models::{emo, emo2};
use emo_proto::tensor_proto::DataType;
use emo_proto::{Message, ModelProto, Result};

use super::{Edit, Subject, replace};

/// EMO's block with the attention of others: over values that are expanded before it.
const EXPANDED_FIRST: Layout = Layout {
    attention: Some(AttentionLayout {
        module: "",
        layer: "qk.conv",
        values: Values::Expanded,
        patterns: &[Pattern::Strided],
    }),
    ..emo::IRMB
};

/// The value projection and its activation come before the attention.
pub(super) fn value_before_attention(s: &mut Subject, block: &str) -> Edit {
    let definition = attending(s, block)?;
    let definition = Block { layout: &EXPANDED_FIRST, ..definition };
    s.splice(block, |b, x, form| definition.build(b, x, form))
}

/// Spanning attention mixes what is not expanded yet.
pub(super) fn value_after_attention(s: &mut Subject, block: &str) -> Edit {
    let definition = attending(s, block)?;
    let attention = definition.mmb.operator.attention?;
    let (layout, expand) = (emo2::ATTENDS.attention?, emo2::ATTENDS.expand?);
    s.splice(&format!("{block}.{}", layout.module), |b, x, form| {
        let last = b.shape(x).0[3] == definition.dim_in.into();
        let (_, _, height, width) = layer::extents(b, x, last)?;
        let span = Span {
            grid: Grid::new(height, width, attention.window.unwrap_or(emo::WINDOW)),
            patterns: layout.patterns,
            head_dim: attention.head_dim,
            layer: layout.layer,
            joint: false,
        };
        let mixed = layer::span(b, &Normed { x, last, affine: None }, &span, form, |_, x| Ok(x))?;
        let mixed = Normed { x: mixed, last, affine: None }.channels_first(b)?;
        layer::convolve(b, mixed, &expand, Conv::pointwise(definition.dim_mid()), Act::Gelu, form)
    })
}

/// The row of a block that attends.
fn attending(s: &Subject, block: &str) -> Option<Block> {
    let (_, definition) = s.model.blocks().into_iter().find(|(name, _)| name == block)?;
    definition.mmb.operator.attention.is_some().then_some(definition)
}

impl Subject {
    /// Puts what `build` makes of the value that a module reads in the place of the module's nodes.
    fn splice(
        &mut self,
        module: &str,
        build: impl FnOnce(&mut Builder, Value, Form) -> Result<Value>,
    ) -> Edit {
        let ours = self.ours.clone()?;
        let inside = |name: &str| name.starts_with(&format!("{module}."));
        let old: Vec<usize> = (0..self.nodes().len()).filter(|&i| inside(self.nodes()[i].name())).collect();
        let mut read = old.iter().flat_map(|&i| &self.nodes()[i].input);
        let input = read.find(|i| !inside(i) && !self.is_constant(i))?.clone();
        let (output, spliced) = (self.nodes()[*old.last()?].output[0].clone(), self.name());

        let target = &ours.0.target;
        let form = Form { profile: target.profile, opset: target.opset, half: false };
        let mut b = Builder::new(module);
        let shape: [usize; 4] = self.shape(&input)?.try_into().ok()?;
        let x = b.input(&input, shape, DataType::Float);
        let y = b.within(module, |b| build(b, x, form)).expect("layers fit in another order too");
        b.output(y, &spliced);
        let bytes = encode(&b.finish(), target.opset, &[], &ours.1.weights).expect("weights are the model's");
        let new = ModelProto::decode(&*bytes).expect("our own file").graph?;

        // Numbers that other nodes read too are there already.
        let is_new = |name: &str| self.named(name).is_none_or(|at| old.contains(&at));
        let nodes: Vec<_> = new.node.into_iter().filter(|n| is_new(n.name())).collect();
        let graph = self.graph();
        let end = *old.last()? + 1;
        graph.node.iter_mut().for_each(|node| replace(node, &output, &spliced));
        graph.node.splice(end..end, nodes);
        old.iter().rev().for_each(|&at| drop(graph.node.remove(at)));
        let named = |name: &str| new.initializer.iter().any(|i| i.name() == name);
        graph.initializer.retain(|i| !named(i.name()));
        graph.initializer.extend(new.initializer.clone());
        let read: HashSet<&String> = graph.node.iter().flat_map(|n| &n.input).collect();
        graph.initializer.retain(|i| read.contains(&i.name().to_owned()));
        Some(())
    }
}
