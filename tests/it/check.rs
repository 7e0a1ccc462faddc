//! Every structural check: silent on a clean file, fired by a mutation of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use emo_exporter::weights::Spec;
use emo_proto::attribute_proto::AttributeType;
use emo_proto::file::OnnxFile;
use emo_proto::tensor::{DataType, External, Tensor};
use emo_proto::tensor_proto::DataLocation;
use emo_proto::{
    AttributeProto, FunctionProto, GraphProto, Message as _, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};
use emo_tests::Order;
use emo_tests::fixture;
use emo_verifier::check::{UNDECIDED, check, checks};
use emo_verifier::finding::{Finding, Severity};

type Mutation = fn(&mut ModelProto);

/// Each code, and what makes it fire.
const MUTATIONS: &[(&str, Mutation)] = &[
    ("ir-version-missing", |m| m.ir_version = None),
    ("ir-version-unknown", |m| m.ir_version = Some(99)),
    ("ir-version-low", |m| m.ir_version = Some(7)),
    ("ir-version-high", |m| m.ir_version = Some(10)),
    ("opset-missing", |m| m.opset_import.clear()),
    ("opset-duplicate", |m| m.opset_import.push(opset("", 17))),
    ("opset-range", |m| m.opset_import[0].version = Some(0)),
    ("opset-newer", |m| m.opset_import[0].version = Some(99)),
    ("opset-unused", |m| m.opset_import.push(opset("ai.onnx.ml", 3))),
    ("domain-not-imported", |m| last(m).rare().domain = Some("com.example".to_owned())),
    ("metadata-duplicate", |m| m.metadata_props.extend([entry("author", "a"), entry("author", "b")])),
    ("private-path", |m| m.doc_string = Some("made of /home/ada/net.pth".to_owned())),
    ("stack-trace", |m| last(m).rare().doc_string = Some("File \"net.py\", line 3, in forward".to_owned())),
    ("graph-unnamed", |m| graph(m).name = None),
    ("value-unnamed", |m| graph(m).output.push(ValueInfoProto::default())),
    ("redefined", |m| {
        let again = last(m).clone();
        graph(m).node.push(again);
    }),
    ("out-of-order", |m| graph(m).node.swap(0, 1)),
    ("undefined", |m| last(m).input[0] = "nothing".to_owned()),
    ("output-undefined", |m| graph(m).output[0].name = Some("nothing".to_owned())),
    ("duplicate-initializer", |m| {
        let again = graph(m).initializer[0].clone();
        graph(m).initializer.push(again);
    }),
    ("initializer-no-input", |m| m.ir_version = Some(3)),
    ("input-default", |m| {
        let input =
            ValueInfoProto { name: graph(m).initializer[0].name.clone(), ..graph(m).input[0].clone() };
        graph(m).input.push(input);
    }),
    ("shadowed", |m| {
        let mut weight = floats("tail", &[1], vec![1.0]);
        weight.name = graph(m).initializer[0].name.clone();
        branch(m).initializer.push(weight);
    }),
    ("duplicate-output", |m| {
        let again = graph(m).output[0].clone();
        graph(m).output.push(again);
    }),
    ("duplicate-node-name", |m| last(m).name = graph(m).node[0].name.clone()),
    ("unnamed-nodes", |m| last(m).name = None),
    ("unused-input", |m| {
        let input = ValueInfoProto { name: Some("spare".to_owned()), ..graph(m).input[0].clone() };
        graph(m).input.push(input);
    }),
    ("unused-initializer", |m| graph(m).initializer.push(floats("spare", &[1], vec![1.0]))),
    ("dead-node", |m| {
        let dead = node("Relu", &["input"], &["dead"]);
        graph(m).node.push(dead);
    }),
    ("operator-missing", |m| last(m).op_type = None),
    ("node-empty", |m| graph(m).node.push(node("Relu", &[], &[]))),
    ("unknown-operator", |m| first(m, "Sigmoid").op_type = Some("Gelu".into())),
    (UNDECIDED, |m| {
        m.opset_import.push(opset("com.example", 1));
        first(m, "Sigmoid").rare().domain = Some("com.example".to_owned());
    }),
    ("deprecated-operator", |m| first(m, "Sigmoid").op_type = Some("Upsample".into())),
    ("experimental-operator", |m| first(m, "Sigmoid").op_type = Some("Affine".into())),
    ("wrong-inputs", |m| first(m, "Conv").input.truncate(1)),
    ("wrong-outputs", |m| first(m, "Sigmoid").output.push("more".to_owned())),
    ("random-operator", |m| first(m, "Sigmoid").op_type = Some("RandomNormalLike".into())),
    ("training-mode", |m| {
        first(m, "BatchNormalization").attribute.push(int("training_mode", 1));
    }),
    ("attribute-unnamed", |m| first(m, "Conv").attribute[0].name = None),
    ("duplicate-attribute", |m| {
        let again = first(m, "Conv").attribute[0].clone();
        first(m, "Conv").attribute.push(again);
    }),
    ("attribute-untyped", |m| first(m, "Conv").attribute[0].r#type = None),
    ("attribute-payload", |m| first(m, "Conv").attribute[0].f = Some(1.0)),
    ("attribute-reference", |m| {
        let reference = AttributeProto { i: None, ref_attr_name: Some("axis".to_owned()), ..int("group", 1) };
        first(m, "Conv").attribute.retain(|a| a.name() != "group");
        first(m, "Conv").attribute.push(reference);
    }),
    ("unknown-attribute", |m| first(m, "Sigmoid").attribute.push(int("axis", 1))),
    ("missing-attribute", |m| {
        let sigmoid = first(m, "Sigmoid");
        sigmoid.op_type = Some("Concat".into());
    }),
    ("mistyped-attribute", |m| {
        let conv = first(m, "Conv");
        conv.attribute.retain(|a| a.name() != "strides");
        conv.attribute.push(int("strides", 1));
    }),
    ("body-signature", |m| {
        let again = branch(m).output[0].clone();
        branch(m).output.push(again);
    }),
    ("body-type", |m| {
        let cast =
            NodeProto { attribute: vec![int("to", 10)], ..node("Cast", &["tail.called"], &["tail.then"]) };
        branch(m).node = vec![cast];
    }),
    ("function-unnamed", |m| m.functions[0].domain = None),
    ("function-duplicate", |m| {
        let again = m.functions[0].clone();
        m.functions.push(again);
    }),
    ("function-signature", |m| m.functions[0].input.push("x".to_owned())),
    ("function-recursive", |m| {
        m.functions[0].opset_import.push(opset("local", 1));
        m.functions[0].node[0] = node("keep", &["x"], &["y"]).of_domain("local");
    }),
    ("function-opset", |m| m.functions[0].opset_import[0].version = Some(1)),
    ("function-call", |m| {
        let call = first(m, "keep");
        call.input.push("input".to_owned());
    }),
    ("function-unused", |m| {
        let spare = FunctionProto { name: Some("spare".to_owned()), ..m.functions[0].clone() };
        m.functions.push(spare);
    }),
    ("tensor-type", |m| graph(m).initializer[0].data_type = Some(99)),
    ("tensor-payload", |m| graph(m).initializer[0].dims.push(2)),
    ("external-payload", |m| {
        let weight = outside(m, "weights.bin", 0);
        weight.raw_data = Some(vec![0; 4].into());
    }),
    ("external-location", |m| {
        outside(m, "../weights.bin", 0);
    }),
    ("external-missing", |m| {
        outside(m, "absent.bin", 0);
    }),
    ("external-range", |m| {
        outside(m, "weights.bin", 1 << 40);
    }),
    ("sparse-tensor", |m| {
        let values = floats("sparse", &[1], vec![1.0]);
        let indices = Tensor::from_i64(vec![1], &[9]).unwrap().encode("");
        graph(m).sparse_initializer.push(SparseTensorProto {
            values: Some(values),
            indices: Some(indices),
            dims: vec![3],
        });
    }),
    ("value-type", |m| graph(m).input[0].r#type = None),
    ("element-type", |m| dtype_of(&mut graph(m).output[0], 99)),
    ("negative-extent", |m| {
        use emo_proto::tensor_shape_proto::dimension::Value;
        let shape = tensor_type(&mut graph(m).input[0]).shape.as_mut().unwrap();
        shape.dim[0].value = Some(Value::DimValue(-1));
    }),
    ("type-mismatch", |m| {
        let weight = graph(m).initializer.iter_mut().find(|t| t.dims.len() == 4).unwrap();
        let dims: Vec<usize> = weight.dims.iter().map(|&d| d as usize).collect();
        let bytes = vec![0; dims.iter().product::<usize>() * 2].into();
        let name = weight.name().to_owned();
        *weight = Tensor::new(DataType::Float16, dims, bytes).unwrap().encode(&name);
    }),
    ("impossible-operands", |m| {
        let weight = graph(m).initializer.iter_mut().find(|t| t.dims.len() == 4 && t.dims[1] > 1).unwrap();
        weight.dims = vec![weight.dims[1], weight.dims[0], weight.dims[2], weight.dims[3]];
    }),
    ("wrong-declaration", |m| {
        use emo_proto::tensor_shape_proto::dimension::Value;
        let shape = tensor_type(&mut graph(m).output[0]).shape.as_mut().unwrap();
        shape.dim[1].value = Some(Value::DimValue(7));
    }),
    ("wrong-default", |m| {
        let mut input = graph(m).input[0].clone();
        input.name = graph(m).initializer[0].name.clone();
        graph(m).input.push(input);
    }),
    ("runtime-operator", |m| {
        let norm = node("SimplifiedLayerNormalization", &["tail.logits", "tail.scale"], &["tail.norm"]);
        graph(m).node.push(norm);
        graph(m).initializer.push(floats("tail.scale", &[1000], vec![1.0; 1000]));
    }),
    ("stray-declaration", |m| {
        let stray = ValueInfoProto { name: Some("nothing".to_owned()), ..graph(m).output[0].clone() };
        graph(m).value_info.push(stray);
    }),
    ("nan-weights", |m| fill(m, |_| f32::NAN)),
    ("infinite-weights", |m| fill(m, |_| f32::INFINITY)),
    ("denormal-weights", |m| fill(m, |i| if i % 2 == 0 { 1e-40 } else { 1.0 })),
    ("float64", |m| {
        let cast = NodeProto { attribute: vec![int("to", 11)], ..node("Cast", &["input"], &["wide"]) };
        graph(m).node.push(cast);
    }),
    ("duplicate-weights", |m| {
        let twin = TensorProto { name: Some("twin".to_owned()), ..largest(m).clone() };
        graph(m).initializer.push(twin);
    }),
];

/// EMO-1M as exported, its logits passed through a function and a branch.
static BASE: LazyLock<ModelProto> = LazyLock::new(|| {
    let request = Order::named("emo-1m", "reference");
    let export = request.export(&Spec::Formula(0)).unwrap();
    let mut m = ModelProto::decode(emo_proto::Bytes::from(export.bytes)).unwrap();
    let logits = last(&mut m);
    assert_eq!(logits.output, ["logits"]);
    logits.output[0] = "tail.logits".to_owned();
    m.opset_import.push(opset("local", 1));
    m.functions.push(FunctionProto {
        name: Some("keep".to_owned()),
        domain: Some("local".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: vec![node("Clip", &["x"], &["y"])],
        opset_import: vec![opset("", 17)],
        ..Default::default()
    });
    let branch = |name: &str, operator: &str| AttributeProto {
        name: Some(format!("{name}_branch")),
        r#type: Some(AttributeType::Graph.into()),
        g: Some(Box::new(GraphProto {
            name: Some(name.to_owned()),
            node: vec![node(operator, &["tail.called"], &[&format!("tail.{name}")])],
            output: vec![ValueInfoProto { name: Some(format!("tail.{name}")), ..Default::default() }],
            ..Default::default()
        })),
        ..Default::default()
    };
    let call = node("keep", &["tail.logits"], &["tail.called"]).of_domain("local");
    let attribute = vec![branch("then", "Relu"), branch("else", "Neg")];
    let choice = NodeProto { attribute, ..node("If", &["tail.choice"], &["logits"]) };
    let graph = graph(&mut m);
    graph.node.extend([call, choice]);
    let truth = Tensor::new(DataType::Bool, vec![], vec![1].into()).unwrap();
    graph.initializer.push(truth.encode("tail.choice"));
    m
});

fn graph(m: &mut ModelProto) -> &mut GraphProto {
    m.graph.as_mut().unwrap()
}

fn last(m: &mut ModelProto) -> &mut NodeProto {
    graph(m).node.last_mut().unwrap()
}

fn first<'m>(m: &'m mut ModelProto, operator: &str) -> &'m mut NodeProto {
    graph(m).node.iter_mut().find(|node| node.op_type() == operator).unwrap()
}

fn branch(m: &mut ModelProto) -> &mut GraphProto {
    first(m, "If").attribute[0].g.as_mut().unwrap()
}

fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    NodeProto {
        name: Some(format!("tail.{operator}")),
        op_type: Some(operator.into()),
        input: names(inputs),
        output: names(outputs),
        ..Default::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int.into()),
        i: Some(value),
        ..Default::default()
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}

fn floats(name: &str, dims: &[usize], values: Vec<f32>) -> TensorProto {
    Tensor::from_f32(dims.to_vec(), values).unwrap().encode(name)
}

fn largest(m: &mut ModelProto) -> &mut TensorProto {
    graph(m).initializer.iter_mut().max_by_key(|t| t.raw_data().len()).unwrap()
}

fn fill(m: &mut ModelProto, value: fn(usize) -> f32) {
    let tensor = largest(m);
    let dims: Vec<usize> = tensor.dims.iter().map(|&d| d as usize).collect();
    let values = (0..dims.iter().product()).map(value).collect();
    *tensor = floats(tensor.name(), &dims, values);
}

/// Puts the largest weight outside of the file.
fn outside<'m>(m: &'m mut ModelProto, location: &str, offset: u64) -> &'m mut TensorProto {
    let tensor = largest(m);
    tensor.raw_data = None;
    tensor.data_location = Some(DataLocation::External.into());
    tensor.external_data = vec![entry("location", location), entry("offset", &offset.to_string())];
    tensor
}

fn tensor_type(value: &mut ValueInfoProto) -> &mut emo_proto::type_proto::Tensor {
    match value.r#type.as_mut().unwrap().value.as_mut().unwrap() {
        emo_proto::type_proto::Value::TensorType(tensor) => tensor,
        other => panic!("expected a tensor, found {other:?}"),
    }
}

fn dtype_of(value: &mut ValueInfoProto, code: i32) {
    tensor_type(value).elem_type = Some(code);
}

/// Checks the model as a file would be, in a folder with the largest weight's bytes in it.
fn findings(m: &ModelProto, folder: &Path) -> Vec<Finding> {
    let file = OnnxFile::from_bytes(m.encode_to_vec().into(), External::folder(folder)).unwrap();
    check(&file, Some(folder))
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let weights = largest(&mut BASE.clone()).raw_data().to_vec();
    fs::write(folder.path().join("weights.bin"), weights).unwrap();
    folder
}

#[test]
fn every_code_is_in_the_table_once() {
    let codes: Vec<&str> = checks().map(|check| check.code).collect();
    let unique: BTreeSet<&str> = codes.iter().copied().collect();
    assert_eq!(codes.len(), unique.len());
    let tested: BTreeSet<&str> = MUTATIONS.iter().map(|(code, _)| *code).collect();
    assert_eq!(unique, tested);
    for check in checks() {
        let kebab = check.code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        assert!(kebab && !check.what.is_empty() && !check.what.ends_with('.'), "{}", check.code);
    }
}

#[test]
fn each_mutation_fires_its_code() {
    let folder = folder();
    for (code, mutate) in MUTATIONS {
        let mut m = BASE.clone();
        mutate(&mut m);
        let found = findings(&m, folder.path());
        let mut fired = found.iter().filter(|finding| finding.code == *code).peekable();
        assert!(fired.peek().is_some(), "{code} is silent, found {found:#?}");
        for finding in fired {
            let message = &finding.message;
            let form = message.contains("expected") || finding.code == "impossible-operands";
            assert!(form && !message.ends_with('.') && !message.contains("  "), "{code}: {message}");
        }
    }
}

#[test]
fn clean_files_are_silent() {
    let folder = folder();
    assert_eq!(findings(&BASE, folder.path()), []);
    let mut apart = BASE.clone();
    outside(&mut apart, "weights.bin", 0);
    assert_eq!(findings(&apart, folder.path()), []);
    for profile in ["reference", "portable"] {
        let request = Order::named("emo-2m", profile);
        let export = request.export(&Spec::Formula(0)).unwrap();
        let file = OnnxFile::from_bytes(export.bytes.into(), External::none()).unwrap();
        assert_eq!(check(&file, None), [], "{profile}");
    }
}

/// What onnx.checker says of each third-party file, and what else there is to say.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn third_party_files_are_judged() {
    let errors: [(&str, &[&str]); 6] = [
        ("emo_1m_dynamo_op18.onnx", &[]),
        ("emo_1m_dynamo_op20_onnxslim.onnx", &[]),
        ("emo_1m_einops_torchscript_op17.onnx", &[]),
        // A converter put a cast behind the nodes that read it; onnx.checker refuses the file too.
        ("emo_1m_fp16.onnx", &["out-of-order"]),
        ("emo_1m_torchscript_op13.onnx", &[]),
        ("emo_1m_torchscript_op17_dynamic.onnx", &[]),
    ];
    for (name, expected) in errors {
        let path = fixture(&format!("third_party/{name}"));
        let file = emo_proto::file::open(&path).unwrap();
        let found = check(&file, path.parent());
        let of = |severity| -> BTreeSet<&str> {
            found.iter().filter(|f| f.severity == severity).map(|f| f.code).collect()
        };
        assert_eq!(of(Severity::Error), expected.iter().copied().collect(), "{name}: {found:#?}");
        let traced = of(Severity::Warning).contains("stack-trace");
        assert_eq!(traced, name == "emo_1m_dynamo_op18.onnx", "{name}");
    }
}

/// A file may break one rule in every node: what is said of it stays readable.
#[test]
fn findings_of_a_code_are_bounded() {
    let mut m = BASE.clone();
    graph(&mut m).node.extend((0..5000).map(|_| node("Relu", &["nothing"], &[])));
    let found = findings(&m, Path::new("."));
    let undefined: Vec<_> = found.iter().filter(|f| f.code == "undefined").collect();
    assert_eq!(undefined.len(), 1001);
    assert_eq!(undefined[1000].message, "4000 more findings of this code are left out");
}

/// The graph alone: damage to weights is only other weights.
static BONES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut m = BASE.clone();
    graph(&mut m).initializer.retain(|tensor| tensor.raw_data().len() < 1024);
    m.encode_to_vec()
});

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_files_are_judged_without_panic(
        damage in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0_u8..), 1..16),
    ) {
        let mut bytes = BONES.clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(file) = OnnxFile::from_bytes(bytes.into(), External::none()) {
            let _ = check(&file, None);
        }
    }
}
