//! Where in a model a node lies, as its writer tells it.

use std::borrow::Cow;

use emo_proto::NodeProto;

/// The metadata entry in which PyTorch's exporter keeps a node's module path.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// The module path of a node, dotted: `stage3.1.v.conv`; empty where nothing tells it.
///
/// In this order: the metadata that PyTorch's newer exporter writes; the node's name, where
/// it is a path (`/stage3/stage3.1/v/conv/Conv`, `stage3.1.v.conv`); the name of the first of
/// the node's `weights` (`stage3.1.v.conv.weight`).
#[must_use]
pub fn scope<'a>(node: &'a NodeProto, weights: impl IntoIterator<Item = &'a str>) -> Cow<'a, str> {
    let metadata = node.metadata_props().iter().find(|entry| entry.key() == SCOPES);
    if let Some(path) = metadata.and_then(|entry| listed(entry.value())) {
        return path.into();
    }
    let name = node.name();
    if name.contains('/') {
        return modules(name).into();
    }
    // Constants are often shared, and called after what they hold.
    if name.contains('.') && !node.input.is_empty() {
        return name.into();
    }
    let mut weights = weights.into_iter().filter(|name| name.contains(['.', '/']));
    match weights.next() {
        Some(name) if name.contains('/') => owner(name).into(),
        Some(name) => name.rsplit_once('.').map_or(name, |(path, _)| path).into(),
        None => "".into(),
    }
}

/// The longest path of a printed Python list, `['', 'stage3.4', 'stage3.4.norm', 'add_3']`,
/// whose last entry is the operation itself.
fn listed(list: &str) -> Option<&str> {
    let entries = list.trim_matches(['[', ']']).rsplit(", ").map(|entry| entry.trim_matches(['\'', '"']));
    entries.skip(1).find(|entry| !entry.is_empty())
}

/// `/stage3/stage3.1/v/conv/Conv` as `stage3.1.v.conv`: the last part names the operator, and
/// a part that begins with the one before it takes its place.
fn modules(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts.pop();
    let repeats = |i: usize| {
        let rest = parts.get(i + 1).and_then(|next| next.strip_prefix(parts[i]));
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let kept: Vec<&str> = (0..parts.len()).filter(|&i| !repeats(i)).map(|i| parts[i]).collect();
    kept.join(".")
}

/// `conv2_1/x2/bn_scale_0` as `conv2_1.x2.bn`: Caffe2 writes what a weight is at the end of its name.
fn owner(weight: &str) -> String {
    let bare = weight.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    let role = bare.rsplit_once('_').filter(|(_, role)| matches!(*role, "w" | "b" | "s" | "scale" | "bias"));
    role.map_or_else(|| modules(weight), |(path, _)| path.replace('/', "."))
}

/// The path and every path above it, the shortest first, to a `depth` of parts.
pub fn ancestors(path: &str, depth: usize) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    ends.take(depth).map(|end| &path[..end])
}

/// The block of EMO that a module path lies in: `stage3.1` for `stage3.1.v.conv`, `head` for
/// `head`.
#[must_use]
pub fn block(path: &str) -> &str {
    let depth = if is_staged(path) { 2 } else { 1 };
    ancestors(path, depth).last().unwrap_or(path)
}

/// Whether the path is one of a stage, as EMO counts them.
#[must_use]
pub fn is_staged(path: &str) -> bool {
    path.strip_prefix("stage").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use emo_proto::StringStringEntryProto;

    use super::*;

    #[test]
    fn every_exporter_s_names_give_the_module_path() {
        let torch = "['', 'stage3.4', 'stage3.4.conv_local', 'stage3.4.conv_local.norm', 'batch_norm_14']";
        let cases = [
            ("node_Conv_1025", torch, "", "stage3.4.conv_local.norm"),
            ("node_add", "['', 'add']", "", ""),
            ("/stage3/stage3.1/v/conv/Conv", "", "", "stage3.1.v.conv"),
            ("/features/features.1/conv/conv.0/conv.0.0/Conv", "", "", "features.1.conv.0.0"),
            ("/ReduceMean", "", "", ""),
            ("model/block_1/Conv2D", "", "", "model.block_1"),
            ("stage3.1.v.conv", "", "", "stage3.1.v.conv"),
            ("node_conv2d_56", "", "stage4.2.v.conv.weight", "stage4.2.v.conv"),
            ("n14", "", "conv2_1/x1_w_0", "conv2_1.x1"),
            ("n15", "", "conv2_1/x2/bn_scale_0", "conv2_1.x2.bn"),
            ("head", "", "head.weight", "head"),
            ("Conv_0", "", "onnx::Conv_12", ""),
        ];
        for (name, metadata, weight, expected) in cases {
            let entry = StringStringEntryProto { key: Some(SCOPES.into()), value: Some(metadata.into()) };
            let input = vec!["x".to_owned()];
            let mut node = NodeProto { name: Some(name.into()), input, ..Default::default() };
            if !metadata.is_empty() {
                node.rare().metadata_props.push(entry);
            }
            assert_eq!(scope(&node, [weight]), expected, "{name}");
        }
    }

    #[test]
    fn paths_have_ancestors() {
        assert_eq!(ancestors("a.b.c", 2).collect::<Vec<_>>(), ["a", "a.b"]);
        assert_eq!(ancestors("a", 9).collect::<Vec<_>>(), ["a"]);
        assert_eq!(block("stage3.1.v.conv"), "stage3.1");
        assert_eq!(block("norm.norm"), "norm");
    }
}
