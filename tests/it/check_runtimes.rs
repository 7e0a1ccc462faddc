//! Checks beside what ONNX Runtime takes and refuses: small models, each with one point.

use std::collections::BTreeSet;

use emo_proto::file::OnnxFile;
use emo_proto::tensor::{DataType, External, Tensor};
use emo_proto::{Message as _, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use emo_tests::onnx::*;
use emo_verifier::audit::audit;
use emo_verifier::check::check;
use emo_verifier::finding::{Finding, Severity};
use emo_verifier::infer::Bindings;

const FLOAT: DataType = DataType::Float;

fn floats(name: &str, dims: &[usize]) -> TensorProto {
    Tensor::from_f32(dims.to_vec(), vec![1.0; dims.iter().product()]).unwrap().encode(name)
}

/// `x: [2, 3]` to `z`.
fn of(constants: Vec<TensorProto>, nodes: Vec<NodeProto>) -> ModelProto {
    let mut graph = graph_of(vec![value("x", FLOAT, &[2.into(), 3.into()])], constants, nodes, &["z"]);
    graph.name = Some("g".to_owned());
    graph.output = vec![value("z", FLOAT, &[2.into(), 3.into()])];
    ModelProto { ir_version: Some(8), ..model(17, graph) }
}

/// A norm that came with operator set 17.
fn norm() -> ModelProto {
    of(vec![floats("scale", &[3])], vec![node("LayerNormalization", &["x", "scale"], &["z"], vec![])])
}

fn found(m: &ModelProto) -> Vec<Finding> {
    let bytes = emo_proto::Bytes::from(m.encode_to_vec());
    check(&OnnxFile::from_bytes(bytes, External::none()).unwrap(), None)
}

fn codes(m: &ModelProto, severity: Severity) -> BTreeSet<&'static str> {
    found(m).into_iter().filter(|finding| finding.severity == severity).map(|finding| finding.code).collect()
}

fn errors(m: &ModelProto) -> Vec<(&'static str, String, String)> {
    let errors = found(m).into_iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| (finding.code, finding.place, finding.message)).collect()
}

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

/// skl2onnx imports a domain twice; ONNX Runtime imports every set that it has into what it writes.
#[test]
fn imports_bind_to_the_highest_and_ask_only_if_used() {
    for versions in [[9, 17], [17, 9]] {
        let m = ModelProto { opset_import: versions.map(|version| import("", version)).to_vec(), ..norm() };
        assert_eq!(errors(&m), [], "{versions:?}");
        assert!(codes(&m, Severity::Note).contains("opset-duplicate"));
        assert_eq!(audit(&m, &Bindings::new()).opsets["ai.onnx"], 17);
    }
    let mut m = norm();
    // It came with IR version 10.
    m.opset_import.push(import("ai.onnx.ml", 5));
    assert!(!codes(&m, Severity::Warning).contains("ir-version-low"));
    m.graph.as_mut().unwrap().node.push(node("Binarizer", &["x"], &["bits"], vec![]).of_domain("ai.onnx.ml"));
    assert!(codes(&m, Severity::Warning).contains("ir-version-low"));
}

/// ONNX Runtime infers the shapes of a branch that is never taken, and refuses what cannot be.
#[test]
fn contradictions_of_dead_branches_are_found() {
    let branches = |operand: TensorProto, operator: &str| {
        let ours = graph_of(vec![], vec![], vec![node("Relu", &["x"], &["a"], vec![])], &["a"]);
        let dead = node(operator, &["x", operand.name()], &["b"], vec![]);
        let dead = graph_of(vec![], vec![operand], vec![dead], &["b"]);
        let truth = Tensor::new(DataType::Bool, vec![], vec![1].into()).unwrap().encode("c");
        let branches = vec![graph("then_branch", ours), graph("else_branch", dead)];
        of(vec![truth], vec![node("If", &["c"], &["z"], branches)])
    };
    for (operand, operator) in [(floats("bad", &[5]), "Add"), (floats("bad", &[5, 2]), "MatMul")] {
        let m = branches(operand, operator);
        let errors: Vec<_> =
            errors(&m).into_iter().filter(|(code, ..)| *code == "impossible-operands").collect();
        assert_eq!(errors.len(), 1, "{operator}: {errors:?}");
        assert!(errors[0].1.contains("else_branch") && errors[0].2.contains("never taken"), "{errors:?}");
        assert!(!audit(&m, &Bindings::new()).is_lower_bound(), "what never runs is counted");
    }
    // The shape that an operand holds is looked at only when the node runs.
    let m = branches(list("bad", &[7]), "Reshape");
    assert!(!codes(&m, Severity::Error).contains("impossible-operands"));
}

/// numpy lets ellipses differ in rank; ONNX Runtime does not, nor does it matter whether one has an axis.
#[test]
fn ellipses_that_differ_in_rank_are_found() {
    let sum = |equation: &str, dims: &[usize]| {
        let einsum = node("Einsum", &["x", "factors"], &["z"], vec![text("equation", equation)]);
        codes(&of(vec![floats("factors", dims)], vec![einsum]), Severity::Error)
            .contains("impossible-operands")
    };
    assert!(sum("...i,...i->...i", &[3]));
    assert!(sum("...i,...i->...i", &[4, 2, 3]));
    assert!(!sum("...i,...i->...i", &[2, 3]));
    assert!(!sum("...i,i->...i", &[3]));
}

#[test]
fn declarations_of_nothing_are_one_finding_a_file() {
    let mut m = norm();
    let strays = (0..500).map(|i| value(&format!("nothing.{i}"), FLOAT, &[]));
    m.graph.as_mut().unwrap().value_info.extend(strays);
    let findings = found(&m);
    let strays: Vec<_> = findings.iter().filter(|finding| finding.code == "stray-declaration").collect();
    assert_eq!(strays.len(), 1);
    assert!(
        strays[0].message.contains("500 of no value") && strays[0].place.contains("nothing.0"),
        "{strays:?}"
    );
}

#[test]
fn files_of_onnx_runtimes_own_format_are_named() {
    let bytes = emo_proto::Bytes::from_static(b"\x14\0\0\0ORTM\x0c\0\x10\0\0\0\0\0");
    let why = OnnxFile::from_bytes(bytes, External::none()).unwrap_err().to_string();
    assert!(why.contains(".ort") && why.contains("ONNX Runtime's own format"), "{why}");
}
