//! A model as text: one line a node, made for diffs.
//!
//! Two files that mean the same are the same text, wherever they keep their weights and in
//! whatever order their initializers and attributes come. Tensors show their type, their shape and
//! the start of the SHA-256 of their elements; small ones show their elements.

use std::collections::HashMap;
use std::fmt::{self, Display, Write as _};

use sha2::{Digest as _, Sha256};

use crate::attribute_proto::AttributeType;
use crate::file::pieces;
use crate::plain::plain;
use crate::tensor::{DataType, External, Tensor};
use crate::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// Lists and tensors of up to this many elements are written out.
const SHORT: usize = 8;

/// A model with what is known of its values, to be written with [`Display`].
pub struct Text<'a> {
    pub model: &'a ModelProto,
    /// Where its tensors keep their data. A tensor whose data are not there has no digest.
    pub external: &'a External,
    /// Digests of tensors that are known already, by where the tensors are in memory.
    pub digests: &'a HashMap<*const TensorProto, String>,
    /// The type and shape of a value: from the path of the body that it lies in (empty in the main
    /// graph, else [`path`]) and its name.
    pub describe: &'a dyn Fn(&str, &str) -> Option<String>,
}

/// What a node is called: its name, or its operator and first output where it has none.
pub fn label(node: &NodeProto) -> String {
    match node.name() {
        "" => format!("{}({})", node.op_type(), node.output.first().map_or("", String::as_str)),
        name => name.to_owned(),
    }
}

/// The path of a body that a node in `around` holds as the attribute `name`: `loop_1/body/`.
pub fn path(around: &str, node: &NodeProto, name: &str) -> String {
    format!("{around}{}/{name}/", label(node))
}

/// The SHA-256 of a tensor's elements, little-endian and row-major, in hexadecimal; of strings, of
/// each after its length in 8 bytes.
///
/// # Errors
/// When the elements cannot be read: see [`Tensor::decode`].
pub fn digest(proto: &TensorProto, external: &External) -> crate::Result<String> {
    let mut hash = Sha256::new();
    if proto.data_type() == i32::from(DataType::String) {
        for text in &proto.string_data {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    } else {
        let tensor = Tensor::decode(proto, external)?;
        pieces(tensor.bytes()).for_each(|piece| hash.update(piece));
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// Writes names without their hidden characters: none of them ends a line.
struct Plain<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&plain(text))
    }
}

impl Plain<'_, '_> {
    /// The text and, last, the end of its line.
    fn line(&mut self, text: fmt::Arguments) -> fmt::Result {
        self.write_fmt(text)?;
        self.0.write_char('\n')
    }
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Plain(f);
        let model = self.model;
        f.line(format_args!("model ir_version {}", model.ir_version()))?;
        for set in &model.opset_import {
            f.line(format_args!("opset {} {}", named(set.domain(), "ai.onnx"), set.version()))?;
        }
        let known = [
            ("producer", model.producer_name()),
            ("producer_version", model.producer_version()),
            ("domain", model.domain()),
            ("doc_string", model.doc_string()),
        ];
        for (key, value) in known.into_iter().filter(|(_, value)| !value.is_empty()) {
            f.line(format_args!("{key} {value:?}"))?;
        }
        for entry in &model.metadata_props {
            f.line(format_args!("metadata {} {:?}", entry.key(), entry.value()))?;
        }
        for function in &model.functions {
            self.function(f, function)?;
        }
        if let Some(graph) = &model.graph {
            f.line(format_args!("graph {}", graph.name()))?;
            self.graph(f, graph, "", 1)?;
        }
        Ok(())
    }
}

impl Text<'_> {
    fn function(&self, f: &mut Plain<'_, '_>, function: &FunctionProto) -> fmt::Result {
        let overload = if function.overload().is_empty() { "" } else { ":" };
        let (domain, name, version) = (function.domain(), function.name(), function.overload());
        let (inputs, outputs) = (function.input.join(", "), function.output.join(", "));
        f.line(format_args!("function {domain}.{name}{overload}{version}({inputs}) -> ({outputs})"))?;
        for set in &function.opset_import {
            f.line(format_args!("  opset {} {}", named(set.domain(), "ai.onnx"), set.version()))?;
        }
        for name in &function.attribute {
            f.line(format_args!("  attribute {name}"))?;
        }
        for attribute in &function.attribute_proto {
            f.line(format_args!("  attribute {} = {}", attribute.name(), self.value(attribute)))?;
        }
        // The types of a function's values are different at each call.
        let untyped = Text { describe: &|_, _| None, ..*self };
        function.node.iter().try_for_each(|node| untyped.node(f, node, "", 1))
    }

    fn graph(&self, f: &mut Plain<'_, '_>, graph: &GraphProto, path: &str, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let mut interface = |word: &str, values: &[ValueInfoProto]| {
            values.iter().try_for_each(|value| {
                f.line(format_args!("{indent}{word} {}", self.typed(path, value.name())))
            })
        };
        interface("input", &graph.input)?;
        interface("output", &graph.output)?;
        let mut initializers: Vec<&TensorProto> = graph.initializer.iter().collect();
        initializers.sort_by_key(|tensor| tensor.name());
        for tensor in initializers {
            f.line(format_args!("{indent}constant {}: {}", tensor.name(), self.tensor(tensor)))?;
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            f.line(format_args!("{indent}constant {name}: {}", self.sparse(sparse)))?;
        }
        graph.node.iter().try_for_each(|node| self.node(f, node, path, depth))
    }

    /// `y: FLOAT [1, 8] = Gemm(x, w) {transB = 1} # fc`, its bodies below it.
    fn node(&self, f: &mut Plain<'_, '_>, node: &NodeProto, path: &str, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let outputs: Vec<String> = node.output.iter().map(|name| self.typed(path, name)).collect();
        let domain = if matches!(node.domain(), "" | "ai.onnx") { "" } else { "." };
        let domain = format!("{}{domain}", if domain.is_empty() { "" } else { node.domain() });
        write!(f, "{indent}{} = {domain}{}", outputs.join(", "), node.op_type())?;
        if !node.overload().is_empty() {
            write!(f, ":{}", node.overload())?;
        }
        write!(f, "({})", node.input.join(", "))?;
        let mut attributes: Vec<&AttributeProto> = node.attribute.iter().collect();
        attributes.sort_by_key(|attribute| attribute.name());
        let held = |a: &&AttributeProto| a.g.is_none() && a.graphs.is_empty();
        let (values, bodies): (Vec<_>, Vec<_>) = attributes.into_iter().partition(held);
        if !values.is_empty() {
            let values: Vec<String> =
                values.into_iter().map(|a| format!("{} = {}", a.name(), self.value(a))).collect();
            write!(f, " {{{}}}", values.join(", "))?;
        }
        if !node.name().is_empty() {
            write!(f, " # {}", node.name())?;
        }
        f.line(format_args!(""))?;
        for body in bodies {
            for graph in body.g.as_deref().into_iter().chain(&body.graphs) {
                f.line(format_args!("{indent}  {} = graph {}", body.name(), graph.name()))?;
                self.graph(f, graph, &self::path(path, node, body.name()), depth + 2)?;
            }
        }
        Ok(())
    }

    fn typed(&self, path: &str, name: &str) -> String {
        match (self.describe)(path, name) {
            Some(known) if !name.is_empty() => format!("{name}: {known}"),
            _ => named(name, "_").to_owned(),
        }
    }

    fn value(&self, attribute: &AttributeProto) -> String {
        if !attribute.ref_attr_name().is_empty() {
            return format!("@{}", attribute.ref_attr_name());
        }
        let text = |bytes: &Vec<u8>| format!("{:?}", String::from_utf8_lossy(bytes));
        let tensors =
            |tensors: &[TensorProto]| tensors.iter().map(|t| self.tensor(t)).collect::<Vec<_>>().join(", ");
        match attribute.r#type() {
            AttributeType::Float => format!("{:?}", attribute.f()),
            AttributeType::Int => attribute.i().to_string(),
            AttributeType::String => attribute.s.as_ref().map_or_else(String::new, text),
            AttributeType::Tensor => attribute.t.as_ref().map_or_else(String::new, |t| self.tensor(t)),
            AttributeType::Floats => {
                list(&attribute.floats, |v| format!("{v:?}"), |v| v.to_le_bytes().to_vec())
            }
            AttributeType::Ints => list(&attribute.ints, i64::to_string, |v| v.to_le_bytes().to_vec()),
            AttributeType::Strings => list(&attribute.strings, text, |v| [v.as_slice(), b"\0"].concat()),
            AttributeType::Tensors => format!("[{}]", tensors(&attribute.tensors)),
            AttributeType::SparseTensor => {
                attribute.sparse_tensor.as_ref().map_or_else(String::new, |sparse| self.sparse(sparse))
            }
            AttributeType::SparseTensors => {
                let all: Vec<String> = attribute.sparse_tensors.iter().map(|s| self.sparse(s)).collect();
                format!("[{}]", all.join(", "))
            }
            AttributeType::TypeProto => attribute.tp.as_ref().map_or_else(String::new, |t| format!("{t:?}")),
            AttributeType::TypeProtos => format!("{:?}", attribute.type_protos),
            AttributeType::Graph | AttributeType::Graphs | AttributeType::Undefined => String::new(),
        }
    }

    /// `FLOAT [32, 3, 3, 3] sha256:0123456789ab`, `INT64 [2] {1, -1}`.
    fn tensor(&self, proto: &TensorProto) -> String {
        let dtype = DataType::try_from(proto.data_type()).map_or("?", |dtype| dtype.as_str_name());
        let head = format!("{dtype} {:?}", proto.dims);
        if let Some(elements) = self.elements(proto) {
            return format!("{head} {{{}}}", elements.join(", "));
        }
        let known = self.digests.get(&std::ptr::from_ref(proto)).cloned();
        match known.map_or_else(|| digest(proto, self.external), Ok) {
            Ok(digest) => format!("{head} sha256:{}", &digest[..12]),
            Err(why) => format!("{head} unreadable: {why}"),
        }
    }

    fn sparse(&self, sparse: &crate::SparseTensorProto) -> String {
        let part =
            |tensor: &Option<TensorProto>| tensor.as_ref().map_or_else(String::new, |t| self.tensor(t));
        format!("sparse {:?} values {} at {}", sparse.dims, part(&sparse.values), part(&sparse.indices))
    }

    /// The elements of a small tensor.
    fn elements(&self, proto: &TensorProto) -> Option<Vec<String>> {
        let count = proto.dims.iter().try_fold(1_i64, |count, &dim| count.checked_mul(dim))?;
        if usize::try_from(count).ok()? > SHORT {
            return None;
        }
        let tensor = Tensor::decode(proto, self.external).ok()?;
        match (tensor.i64s(), tensor.f64s()) {
            (Ok(integers), _) => Some(integers.iter().map(i64::to_string).collect()),
            // As the type itself writes them, shortest first.
            (_, Ok(_)) if tensor.dtype == DataType::Float => {
                Some(tensor.f32s().ok()?.iter().map(|v| format!("{v:?}")).collect())
            }
            (_, Ok(floats)) => Some(floats.iter().map(|v| format!("{v:?}")).collect()),
            _ => None,
        }
    }
}

fn named<'a>(name: &'a str, otherwise: &'a str) -> &'a str {
    if name.is_empty() { otherwise } else { name }
}

/// A list; of a long one the start, the length and a digest.
fn list<T>(values: &[T], show: impl Fn(&T) -> String, bytes: impl Fn(&T) -> Vec<u8>) -> String {
    let shown: Vec<String> = values.iter().take(SHORT).map(show).collect();
    if values.len() <= SHORT {
        return format!("[{}]", shown.join(", "));
    }
    let mut hash = Sha256::new();
    values.iter().for_each(|value| hash.update(bytes(value)));
    let mut digest = String::new();
    for byte in hash.finalize().iter().take(6) {
        let _ = write!(digest, "{byte:02x}");
    }
    format!("[{}, … {} in all, sha256:{digest}]", shown.join(", "), values.len())
}
