//! Where the layers of a file are: by the names that the exporter gave, ours or PyTorch's. The recogniser, which the
//! mistakes are to test, has no part in it.

use std::collections::{HashMap, HashSet};

use emo_exporter::graph::{Graph, Source};
use emo_exporter::models::Model;
use emo_proto::{ModelProto, NodeProto};

/// A linear layer of a model.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Its module: `stage3.1.qk.conv`.
    pub name: String,
    /// What its nodes write; nothing where it is one with the next, several where q, k and v lie apart.
    pub outputs: Vec<String>,
}

/// The modules by what their nodes write.
pub(super) type Names = HashMap<String, String>;

/// The linear layers of a model in the order of the network: what has a matrix or kernels of its own.
fn modules(model: &Model) -> Vec<String> {
    let weights = model.parameters().into_iter().filter(|p| p.shape.len() >= 2);
    weights.filter_map(|p| p.name.strip_suffix(".weight").map(str::to_owned)).collect()
}

/// Of the exporter's own graph, whose constants know the published weights that they are made of.
pub(super) fn ours(graph: &Graph) -> Names {
    let of = |source: &Option<Source>, name: &str| match source {
        Some(Source::Parameter) => Some(name.to_owned()),
        Some(Source::FoldedWeight(conv)) => Some(conv.weight.clone()),
        _ => None,
    };
    let mut names = Names::new();
    for node in &graph.nodes {
        let weights = node.inputs.iter().map(|&v| graph.value(v)).filter(|v| v.shape.rank() >= 2);
        let mut weights = weights.filter_map(|v| of(&v.constant, &v.name));
        if let Some(module) = weights.find_map(|w| w.strip_suffix(".weight").map(str::to_owned)) {
            names.insert(graph.value(node.outputs[0]).name.clone(), module);
        }
    }
    names
}

/// Of a file by PyTorch: its weights have the checkpoint's names, also behind onnxslim, which drops all others; where
/// TorchScript has folded a norm into one, the path of the node is left, `/stage3.1/qk/conv/Conv`.
pub(super) fn theirs(file: &ModelProto, model: &Model) -> Names {
    let modules: HashSet<String> = modules(model).into_iter().collect();
    let module = |node: &NodeProto| {
        let weight = node.input.get(1)?.strip_suffix(".weight").map(str::to_owned);
        let path =
            node.name().trim_start_matches('/').rsplit_once('/').map(|(path, _)| path.replace('/', "."));
        [weight, path].into_iter().flatten().find(|name| modules.contains(name))
    };
    let linear = |node: &&NodeProto| matches!(node.op_type(), "Conv" | "Gemm" | "MatMul");
    let nodes = file.graph.iter().flat_map(|graph| &graph.node).filter(linear);
    nodes.filter_map(|node| Some((node.output[0].clone(), module(node)?))).collect()
}

/// Every layer of the model, with its nodes.
///
/// # Panics
/// If more layers than one with the next have none.
pub(super) fn layers(file: &ModelProto, model: &Model, names: &Names) -> Vec<Layer> {
    let written: Vec<&String> = file.graph.iter().flat_map(|g| &g.node).flat_map(|n| &n.output).collect();
    let layer = |name: String| {
        let outputs = written.iter().filter(|o| names.get(**o) == Some(&name)).map(|o| (*o).clone());
        Layer { outputs: outputs.collect(), name }
    };
    let layers: Vec<Layer> = modules(model).into_iter().map(layer).collect();
    let absent = layers.iter().filter(|layer| layer.outputs.is_empty()).count();
    assert!(absent <= 1, "{absent} of {} layers have no node by their name", layers.len());
    layers
}

/// How many layers of the network a value depends on: the number of the latest. What is none of them has none.
pub(super) fn depths(file: &ModelProto, layers: &[Layer]) -> HashMap<String, usize> {
    let numbered = layers.iter().zip(1..).flat_map(|(layer, n)| layer.outputs.iter().map(move |o| (o, n)));
    let numbers: HashMap<&String, usize> = numbered.collect();
    let mut depths: HashMap<String, usize> = HashMap::new();
    for node in file.graph.iter().flat_map(|graph| &graph.node) {
        let before = node.input.iter().filter_map(|input| depths.get(input)).max().copied();
        for output in &node.output {
            let depth = numbers.get(output).copied().or(before).unwrap_or(0);
            depths.insert(output.clone(), depth);
        }
    }
    depths
}
