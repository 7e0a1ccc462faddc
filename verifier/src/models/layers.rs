//! The linear layers of a graph: what can be told of each in any spelling, and the order that data gives them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::infer::Inference;
use crate::path::DataPath;
use crate::sym::Expr;

/// What can be told of a linear layer in any spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub outputs: usize,
    /// Inputs that an output sees.
    pub inputs: usize,
    /// Side of the kernel; 1 for a matrix product.
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
}

impl Shape {
    #[must_use]
    pub fn pointwise(outputs: usize, inputs: usize) -> Self {
        Self { outputs, inputs, kernel: 1, stride: 1, dilation: 1 }
    }

    #[must_use]
    pub fn is_pointwise(self) -> bool {
        (self.kernel, self.stride) == (1, 1)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outputs, inputs, kernel, stride, dilation } = self;
        write!(f, "{kernel}×{kernel}, {inputs} → {outputs}")?;
        if *stride > 1 {
            write!(f, ", stride {stride}")?;
        }
        if *dilation > 1 { write!(f, ", dilation {dilation}") } else { Ok(()) }
    }
}

/// A node that multiplies data with a weight.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its index in [`Inference::nodes`].
    pub node: usize,
    /// The value that is its weight, and whether inputs come before outputs in it.
    pub weight: String,
    pub transposed: bool,
    /// The value that is its bias, in the node or added behind it.
    pub bias: Option<String>,
    /// The first of the layer's inputs that it reads: not 0 where the layer is taken apart by the maps that it reads.
    pub column: usize,
}

/// Where something stands in a network: the last layers that it depends on, none of which depends on another.
pub type Place = Arc<[usize]>;

/// The order that data gives layers.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// All layers that a layer depends on.
    before: Vec<BTreeSet<usize>>,
}

impl Order {
    /// Adds a layer that stands at `place`.
    pub fn push(&mut self, place: &[usize]) -> usize {
        let mut before: BTreeSet<usize> = place.iter().copied().collect();
        place.iter().for_each(|&layer| before.extend(&self.before[layer]));
        self.before.push(before);
        self.before.len() - 1
    }

    /// Whether a layer depends on another.
    #[must_use]
    pub fn is_before(&self, layer: usize, other: usize) -> bool {
        self.before[other].contains(&layer)
    }

    /// The latest of all layers at `places`.
    #[must_use]
    pub fn latest(&self, places: &[Place]) -> Place {
        match places {
            [] => Place::default(),
            [first, rest @ ..] if rest.iter().all(|place| place == first) => first.clone(),
            _ => {
                let all: BTreeSet<usize> = places.iter().flat_map(|place| place.iter().copied()).collect();
                let is_before = |layer: usize| all.iter().any(|&other| self.before[other].contains(&layer));
                all.iter().copied().filter(|&layer| !is_before(layer)).collect()
            }
        }
    }
}

/// What a walk does with a layer: which one it is.
pub trait Name {
    type Error;

    /// The layer that `part` is, or is a part of, which stands at `place`; `None` where it is none: a product with a
    /// constant that nobody learnt.
    ///
    /// # Errors
    /// It is none that is known.
    fn name(&mut self, shape: Shape, part: Part, place: Place) -> Result<Option<usize>, Self::Error>;

    /// Gives part of a layer, `made` by the node with that index, a bias that is added behind it.
    fn add_bias(&mut self, layer: usize, made: usize, bias: String, elements: usize);

    fn order(&self) -> &Order;

    /// Where what a layer gives stands.
    fn behind(&self, layer: usize) -> Place {
        Place::from([layer])
    }
}

/// The place of every node by index, layer for layer named by `names`; bodies' nodes stand where what they read does.
///
/// # Errors
/// A layer has no name.
pub fn walk<N: Name>(inference: &Inference, names: &mut N) -> Result<Vec<Place>, N::Error> {
    let path = DataPath::whole(inference);
    let mut at: HashMap<&str, Place> = HashMap::new();
    // The layers whose products still lack a bias, by the value that they write.
    let mut unbiased: HashMap<&str, (usize, usize)> = HashMap::new();
    let mut places = Vec::with_capacity(inference.nodes.len());
    for (index, node) in inference.nodes.iter().enumerate() {
        let operands = || node.node.input.iter().map(String::as_str);
        let of_operands: Vec<Place> = operands().filter_map(|name| at.get(name)).cloned().collect();
        let mut place = match node.node.op_type() {
            // An extent is no element: what is made of it does not depend on the data.
            "Shape" | "Size" => Place::default(),
            _ => names.order().latest(&of_operands),
        };
        // A body's nodes run within their node; layers stand in the main graph, on the way of the data.
        let main = node.path.is_empty();
        let output = node.node.output.first().map_or("", String::as_str);
        let linear = linear(inference, index).filter(|_| main && path.has(output));
        if let Some((shape, part)) = linear {
            let biased = part.bias.is_some();
            if let Some(layer) = names.name(shape, part, place.clone())? {
                place = names.behind(layer);
                if !biased {
                    unbiased.insert(output, (layer, index));
                }
            }
        } else if node.node.op_type() == "Add"
            && let Some((layer, made)) = operands().find_map(|name| unbiased.get(name).copied())
            && let Some((bias, elements)) = operands().find_map(|name| constant(inference, name))
        {
            names.add_bias(layer, made, bias, elements);
        }
        if main {
            for name in &node.node.output {
                at.insert(name, place.clone());
            }
        }
        places.push(place);
    }
    Ok(places)
}

/// A value that constants alone decide, and the number of its elements.
pub fn constant(inference: &Inference, name: &str) -> Option<(String, usize)> {
    let fact = inference.values.get(name).filter(|fact| fact.source.is_some())?;
    Some((name.to_owned(), fact.count().count()? as usize))
}

/// The operators that multiply with a weight: its operand, and how it lies in memory.
const LINEAR: [(&str, usize, Layout); 5] = [
    ("Conv", 1, Layout::Kernel),
    ("FusedConv", 1, Layout::Kernel),
    ("Gemm", 1, Layout::Gemm),
    ("FusedGemm", 1, Layout::Gemm),
    ("MatMul", 1, Layout::Columns),
];

#[derive(Debug, Clone, Copy)]
enum Layout {
    /// `[M, C/group, k, k]`
    Kernel,
    /// `[M, K]` where transposed, `[K, M]` else.
    Gemm,
    /// `[…, K, M]`
    Columns,
}

/// The shape of a node that multiplies data with a constant, and where its weights are.
pub fn linear(inference: &Inference, index: usize) -> Option<(Shape, Part)> {
    let node = inference.nodes[index].node;
    let &(_, operand, layout) = LINEAR.iter().find(|(name, ..)| *name == node.op_type())?;
    let name = |index: usize| node.input.get(index).map(String::as_str);
    let fact = |index: usize| inference.values.get(name(index)?);
    if fact(0)?.source.is_some() || fact(operand)?.source.is_none() {
        return None;
    }
    let dims = fact(operand)?.dims.as_ref().ok()?;
    let dims: Vec<usize> = dims.iter().map(|d| d.count().map(|n| n as usize)).collect::<Option<_>>()?;
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name() == name);
    let step = |name: &str| attribute(name).and_then(|a| a.ints.first()).map_or(1, |&n| n as usize);
    let (shape, transposed) = match (layout, dims.as_slice()) {
        (Layout::Kernel, &[outputs, inputs, kernel, width]) if kernel == width => {
            let (stride, dilation) = (step("strides"), step("dilations"));
            (Shape { outputs, inputs, kernel, stride, dilation }, false)
        }
        (Layout::Gemm, &[a, b]) => match attribute("transB").is_some_and(|t| t.i() != 0) {
            true => (Shape::pointwise(a, b), false),
            false => (Shape::pointwise(b, a), true),
        },
        (Layout::Columns, &[.., inputs, outputs]) => (Shape::pointwise(outputs, inputs), true),
        _ => return None,
    };
    let bias = match layout {
        Layout::Columns => None,
        Layout::Kernel | Layout::Gemm => {
            name(2).and_then(|name| constant(inference, name)).map(|(name, _)| name)
        }
    };
    Some((shape, Part { node: index, weight: name(operand)?.to_owned(), transposed, bias, column: 0 }))
}

/// Pixels of a layer's output, or tokens, for an image; 0 where they are not known.
pub fn pixels(inference: &Inference, index: usize, shape: Shape) -> usize {
    let dims = inference.nodes[index].outputs.first().and_then(|fact| fact.dims.as_ref().ok());
    // The first axis has the images, or images and windows of each.
    let elements = dims.and_then(|dims| dims.get(1..)?.iter().map(Expr::count).product::<Option<u64>>());
    elements.map_or(0, |elements| elements as usize / shape.outputs.max(1))
}
