//! Third-party files: whatever they say, inference ends soon and does not panic.

use std::collections::BTreeMap;

use emo_exporter::profile::PROFILES;
use emo_exporter::weights::Spec;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_proto::tensor_proto::DataType;
use emo_proto::text::Text;
use emo_proto::{AttributeProto, Message as _, ModelProto, NodeProto, OperatorSetIdProto};
use emo_tests::Order;
use emo_tests::onnx::*;
use emo_verifier::fact::Fact;
use emo_verifier::infer::{Bindings, Inference, infer};
use emo_verifier::lint::lint;
use emo_verifier::ops;
use emo_verifier::sym::Expr;
use proptest::prelude::*;

/// Everything that is asked of a model, none of which may panic.
pub(crate) fn survive(model: &ModelProto) -> Inference<'_> {
    let inference = infer(model, &Bindings::new());
    for fact in inference.values.values() {
        let dims = fact.dims.as_deref().unwrap_or_default();
        assert!(dims.iter().all(|d| d.number().is_none_or(|n| n >= 0)), "{}", fact.describe());
        assert!(fact.elements.as_ref().is_none_or(|e| fact.count().is(e.len() as i64)));
    }
    let _ = (inference.contradictions(), inference.highest_rank());
    for profile in &PROFILES {
        let lint = lint(model, &inference, profile);
        // A partition is of taken nodes; those of a body that is taken with its node are in none.
        assert!(lint.taken <= lint.nodes && lint.partitions.iter().sum::<usize>() <= lint.taken);
    }
    let external = External::none();
    let describe = |_: &str, name: &str| inference.values.get(name).map(Fact::describe);
    let text =
        Text { model, external: &external, digests: &std::collections::HashMap::new(), describe: &describe }
            .to_string();
    assert!(text.ends_with('\n'));
    inference
}

/// Values of all sorts that a random node may read.
fn pool() -> (Vec<emo_proto::ValueInfoProto>, Vec<emo_proto::TensorProto>) {
    let input = |name: &str, dtype, shape: &[Extent]| value(name, dtype, shape);
    let inputs = vec![
        input("image", DataType::Float, &["n".into(), 3.into(), "h".into(), "w".into()]),
        input("fixed", DataType::Float, &[2.into(), 4.into(), 6.into(), 6.into()]),
        input("tokens", DataType::Float, &[2.into(), 5.into(), 8.into()]),
        input("matrix", DataType::Double, &[4.into(), 8.into()]),
        input("half", DataType::Float16, &[Extent::Open]),
        input("empty", DataType::Float, &[0.into(), 3.into()]),
        input("scalar", DataType::Float, &[]),
        input("bytes", DataType::Uint8, &[4.into(), 4.into()]),
        input("ids", DataType::Int64, &[2.into(), 5.into()]),
        input("truth", DataType::Bool, &[5.into()]),
        input("words", DataType::String, &[3.into()]),
        input("huge", DataType::Float, &[i64::MAX.into(), i64::MAX.into(), 2.into(), 2.into()]),
        emo_proto::ValueInfoProto { r#type: Some(tensor_type(DataType::Float, None)), ..named("shapeless") },
        named("typeless"),
    ];
    let constants = vec![
        list("axes", &[0, -1]),
        list("one", &[1]),
        list("shape", &[1, -1, 0]),
        list("four", &[1, 2, 2, 1]),
        list("eight", &[0, 0, 1, 1, 0, 0, 1, 1]),
        list("extreme", &[i64::MIN, i64::MAX, 0]),
        list("nothing", &[]),
        scalar("zero", 0),
        scalar("three", 3),
        emo_proto::tensor::Tensor::from_f32(vec![4], vec![1.0, 1.0, 2.0, 0.5]).unwrap().encode("scales"),
        emo_proto::tensor::Tensor::from_f32(vec![2], vec![f32::NAN, f32::INFINITY]).unwrap().encode("odd"),
        weight("kernel", &[4, 3, 3, 3]),
        weight("negative", &[-1, 3]),
    ];
    (inputs, constants)
}

fn operand() -> impl Strategy<Value = String> {
    let (inputs, constants) = pool();
    let mut names: Vec<String> = inputs.iter().map(|v| v.name().to_owned()).collect();
    names.extend(constants.iter().map(|t| t.name().to_owned()));
    names.extend(["", "never", "sequence", "optional"].map(str::to_owned));
    prop::sample::select(names)
}

/// Every attribute that a rule may ask for.
const ATTRIBUTES: &[&str] = &[
    "axis",
    "axes",
    "perm",
    "split",
    "num_outputs",
    "keepdims",
    "shape",
    "to",
    "dtype",
    "value",
    "value_ints",
    "kernel_shape",
    "strides",
    "pads",
    "dilations",
    "group",
    "auto_pad",
    "output_shape",
    "output_padding",
    "ceil_mode",
    "blocksize",
    "k",
    "starts",
    "ends",
    "start",
    "end",
    "allowzero",
    "new_axis",
    "equation",
    "hidden_size",
    "direction",
    "layout",
    "num_heads",
    "kv_num_heads",
    "q_num_heads",
    "batch_dims",
    "axis_w",
    "pooled_shape",
    "sample_size",
    "transA",
    "transB",
    "num_scan_inputs",
    "body",
    "then_branch",
    "else_branch",
    "mode",
    "scales",
    "height_scale",
    "K",
    "N",
    "bits",
    "block_size",
    "noop_with_empty_axes",
    "num_groups",
    "onesided",
    "output_height",
    "output_width",
    "classlabels_int64s",
    "classlabels_strings",
    "n_targets",
    "keep_aspect_ratio_policy",
    "spatial_scale",
    "detect_positive",
    "select_last_index",
    "broadcast",
    "tiles",
];

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![6 => -3_i64..8, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 1 => any::<i64>()]
}

fn attribute() -> impl Strategy<Value = AttributeProto> {
    let words = prop::sample::select(vec![
        "SAME_UPPER",
        "SAME_LOWER",
        "VALID",
        "NOTSET",
        "bidirectional",
        "reverse",
        "linear",
        "cubic",
        "DCR",
        "ij,jk->ik",
        "bij,bjk",
        "...i,ji->...",
        "->",
        "not_larger",
        "none",
        "RIGHT",
        "wrap",
        "é",
    ]);
    let body = graph_of(
        vec![named("a"), named("b")],
        vec![],
        vec![node("Add", &["a", "image"], &["c"], vec![]), node("Not", &["truth"], &["go"], vec![])],
        &["go", "c"],
    );
    let name = prop::sample::select(ATTRIBUTES);
    (name, number(), prop::collection::vec(number(), 0..9), words, 0..5_u8).prop_map(
        move |(name, i, list, word, kind)| match kind {
            0 => int(name, i),
            1 => ints(name, &list),
            2 => text(name, word),
            3 => tensor(name, emo_tests::onnx::list("", &list)),
            _ => graph(name, body.clone()),
        },
    )
}

fn random_node() -> impl Strategy<Value = (NodeProto, i64)> {
    let rows: Vec<(&str, &str)> = ops::rows().map(|(domain, row)| (domain, row.name)).collect();
    let inputs = prop::collection::vec(operand(), 0..7);
    let attributes = prop::collection::vec(attribute(), 0..6);
    (prop::sample::select(rows), inputs, attributes, 0..4_usize, 0..30_i64).prop_map(
        |((domain, name), inputs, attributes, outputs, opset)| {
            let outputs: Vec<String> = (0..outputs).map(|i| format!("out{i}")).collect();
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
            let mut node = node(name, &inputs, &outputs, attributes);
            node.rare().domain = Some(domain.to_owned());
            (node, opset)
        },
    )
}

fn around(nodes: Vec<NodeProto>, opset: i64) -> ModelProto {
    let (inputs, constants) = pool();
    let makers = [
        node("SequenceConstruct", &["fixed", "image"], &["sequence"], vec![]),
        node("Optional", &["ids"], &["optional"], vec![]),
    ];
    let nodes = makers.into_iter().chain(nodes).collect();
    let mut model = model(opset, graph_of(inputs, constants, nodes, &["out0", "image"]));
    let domains = ["ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "ai.onnx.preview"];
    model.opset_import.extend(
        domains.map(|domain| OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(1) }),
    );
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    /// Any operator with any operands and attributes, and another one after it.
    #[test]
    fn any_node_is_survived((first, opset) in random_node(), (mut second, _) in random_node()) {
        if let Some(operand) = second.input.first_mut() {
            *operand = "out0".to_owned();
        }
        second.output.iter_mut().for_each(|name| name.push('b'));
        let model = around(vec![first, second], opset);
        agrees_with_numbers(&model, &survive(&model));
    }
}

/// What formulas say of extents and elements is what inference with numbers finds.
fn agrees_with_numbers(model: &ModelProto, formulas: &Inference) {
    let bindings: Bindings =
        [("n", 2), ("h", 9), ("w", 7), ("half.0", 5)].map(|(k, v)| (k.to_owned(), v)).into();
    let numbers = infer(model, &bindings);
    let value = |name: &str| bindings.get(name).copied();
    for (name, formula) in formulas.values.iter() {
        let number = &numbers.values[name];
        let pairs = |a: &[Expr], b: &[Expr]| a.iter().cloned().zip(b.to_vec()).collect::<Vec<_>>();
        let mut same = Vec::new();
        if let (Ok(a), Ok(b)) = (&formula.dims, &number.dims) {
            assert_eq!(a.len(), b.len(), "{name}: {} and {}", formula.describe(), number.describe());
            same.extend(pairs(a, b));
        }
        if let (Some(a), Some(b)) = (&formula.elements, &number.elements) {
            same.extend(pairs(a, b));
        }
        for (a, b) in same.into_iter().filter(|(a, _)| a.is_known()) {
            let a = a.with(&value);
            assert!(
                a == b || !a.is_known() || !b.is_known(),
                "{name}: {} is {a}, not {b}",
                formula.describe()
            );
        }
    }
}

/// EMO-1M as it is written, without its weights: the structure is what can be wrong.
fn emo() -> Vec<u8> {
    let request = Order::named("emo-1m", "reference");
    let export = request.export(&Spec::Formula(0)).unwrap();
    let mut model = ModelProto::decode(bytes_of(export.bytes)).unwrap();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        if tensor.dims.iter().product::<i64>() > 16 {
            tensor.raw_data = None;
        }
    }
    model.encode_to_vec()
}

fn bytes_of(bytes: impl Into<emo_proto::Bytes>) -> emo_proto::Bytes {
    bytes.into()
}

#[test]
fn a_file_with_wrong_bytes_is_survived() {
    let file = emo();
    let mut random = 1_u64;
    let mut next = |below: usize| {
        // Knuth's MMIX generator: the same mutations on every machine.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut decoded = 0;
    for _ in 0..400 {
        let mut bytes = file.clone();
        for _ in 0..=next(6) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = next(256) as u8,
                1 => bytes[at] ^= 1 << next(8),
                _ => drop(bytes.splice(at..(at + next(9)).min(bytes.len()), [])),
            }
        }
        if let Ok(file) = OnnxFile::from_bytes(bytes.into(), External::none()) {
            survive(&file.model);
            decoded += 1;
        }
    }
    assert!(decoded > 20, "mutations that no decoder lets through test nothing: {decoded}");
}

#[test]
fn every_family_is_met() {
    let mut families: BTreeMap<&str, usize> = BTreeMap::new();
    for (domain, _) in ops::rows() {
        *families.entry(domain).or_default() += 1;
    }
    assert!(families[""] > 190, "{families:?}");
}
