//! What a parameter is: small graphs, each with one constant that an exporter made or a module learnt.

use emo_proto::tensor_proto::DataType;
use emo_proto::{AttributeProto, NodeProto, TensorProto};
use emo_tests::onnx::*;
use emo_verifier::audit::audit;
use emo_verifier::infer::Bindings;

const FLOAT: DataType = DataType::Float;

struct Case {
    what: &'static str,
    /// Extents of the input `x`.
    x: &'static [i64],
    constants: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    parameters: i64,
    /// Elements of float initializers that are none, with what they are.
    left_out: &'static [(i64, &'static str)],
}

fn plain(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(operator, inputs, &[output], vec![])
}

fn with(operator: &str, inputs: &[&str], output: &str, attribute: AttributeProto) -> NodeProto {
    node(operator, inputs, &[output], vec![attribute])
}

/// A `Constant` node of floats.
fn made(name: &str, shape: &[i64]) -> NodeProto {
    with("Constant", &[], name, tensor("value", weight("", shape)))
}

/// Scores of `x: [2, 4, 16, 8]`, of which `before` changes the queries and `after` the scores.
fn attention(before: Vec<NodeProto>, queries: &str, after: Vec<NodeProto>, scores: &str) -> Vec<NodeProto> {
    let mut nodes = vec![plain("MatMul", &["x", "wq"], "q"), plain("MatMul", &["x", "wk"], "k")];
    nodes.extend(before);
    nodes.push(with("Transpose", &["k"], "kt", ints("perm", &[0, 1, 3, 2])));
    nodes.push(plain("MatMul", &[queries, "kt"], "s"));
    nodes.extend(after);
    nodes.push(plain("Softmax", &[scores], "p"));
    nodes.push(plain("MatMul", &["p", "x"], "z"));
    nodes
}

fn attended(mut constants: Vec<TensorProto>) -> Vec<TensorProto> {
    constants.extend([weight("wq", &[8, 8]), weight("wk", &[8, 8])]);
    constants
}

/// Constants that were learnt.
fn learnt() -> Vec<Case> {
    let tokens: &[i64] = &[2, 16, 64];
    vec![
        Case {
            what: "a class token behind Expand and Concat",
            x: tokens,
            constants: vec![
                weight("cls", &[1, 1, 64]),
                list("from", &[0]),
                list("to", &[1]),
                weight("w", &[64, 8]),
            ],
            nodes: vec![
                plain("Shape", &["x"], "shape"),
                plain("Slice", &["shape", "from", "to"], "batch"),
                plain("Concat", &["batch", "to", "to"], "extents").with_axis(0),
                plain("Expand", &["cls", "extents"], "token"),
                plain("Concat", &["token", "x"], "joined").with_axis(1),
                plain("MatMul", &["joined", "w"], "z"),
            ],
            parameters: 64 + 512,
            left_out: &[],
        },
        Case {
            what: "a scale a channel, and a sum",
            x: tokens,
            constants: vec![
                weight("w", &[64, 64]),
                weight("gamma", &[64]),
                weight("positions", &[1, 16, 64]),
            ],
            nodes: vec![
                plain("Add", &["x", "positions"], "placed"),
                plain("MatMul", &["placed", "w"], "y"),
                plain("Mul", &["y", "gamma"], "scaled"),
                plain("Add", &["x", "scaled"], "z"),
            ],
            parameters: 4096 + 64 + 1024,
            left_out: &[],
        },
        Case {
            what: "a lone number that an exponential keeps above zero",
            x: tokens,
            constants: vec![weight("w", &[64, 64]), weight("scale", &[])],
            nodes: vec![
                plain("MatMul", &["x", "w"], "y"),
                plain("Exp", &["scale"], "raised"),
                plain("Mul", &["y", "raised"], "z"),
            ],
            parameters: 4097,
            left_out: &[],
        },
        Case {
            what: "weights in Constant nodes, where all are",
            x: tokens,
            constants: vec![],
            nodes: vec![
                made("w", &[64, 64]),
                made("b", &[64]),
                plain("MatMul", &["x", "w"], "y"),
                plain("Add", &["y", "b"], "z"),
            ],
            parameters: 4160,
            left_out: &[],
        },
        Case {
            what: "a bias of attention scores for each head and pair",
            x: &[2, 4, 16, 8],
            constants: attended(vec![weight("bias", &[1, 4, 16, 16])]),
            nodes: attention(vec![], "q", vec![plain("Add", &["s", "bias"], "biased")], "biased"),
            parameters: 128 + 1024,
            left_out: &[],
        },
        Case {
            what: "the bias of a classifier before its softmax",
            x: tokens,
            constants: vec![weight("w", &[64, 3]), weight("b", &[3])],
            nodes: vec![
                plain("MatMul", &["x", "w"], "y"),
                plain("Add", &["y", "b"], "logits"),
                plain("Softmax", &["logits"], "z"),
            ],
            parameters: 195,
            left_out: &[],
        },
        Case {
            what: "a layer on a table of sines",
            x: tokens,
            constants: vec![weight("angles", &[1, 8, 4, 4]), weight("w", &[64, 8, 4, 4]), weight("b", &[64])],
            nodes: vec![
                plain("Sin", &["angles"], "table"),
                plain("Conv", &["table", "w", "b"], "map"),
                with("Flatten", &["map"], "row", int("axis", 1)),
                plain("Add", &["x", "row"], "z"),
            ],
            parameters: 8192 + 64,
            left_out: &[(128, "tensors that meet no data")],
        },
    ]
}

/// Constants that an exporter made.
fn exporters() -> Vec<Case> {
    let (tokens, heads): (&[i64], &[i64]) = (&[2, 16, 64], &[2, 4, 16, 8]);
    vec![
        Case {
            what: "the scale of an attention",
            x: heads,
            constants: attended(vec![weight("scale", &[1])]),
            nodes: attention(vec![plain("Mul", &["q", "scale"], "scaled")], "scaled", vec![], "s"),
            parameters: 128,
            left_out: &[(1, "scales of attention")],
        },
        Case {
            what: "a mask of attention scores",
            x: heads,
            constants: attended(vec![weight("mask", &[1, 1, 16, 16])]),
            nodes: attention(vec![], "q", vec![plain("Add", &["s", "mask"], "masked")], "masked"),
            parameters: 128,
            left_out: &[(256, "masks of attention scores")],
        },
        Case {
            what: "tables of rotations",
            x: heads,
            constants: attended(vec![weight("cos", &[16, 8]), weight("sin", &[16, 8])]),
            nodes: attention(
                vec![
                    plain("Mul", &["q", "cos"], "straight"),
                    plain("Neg", &["q"], "turned"),
                    plain("Mul", &["turned", "sin"], "across"),
                    plain("Add", &["straight", "across"], "rotated"),
                ],
                "rotated",
                vec![],
                "s",
            ),
            parameters: 128,
            left_out: &[(256, "tables of rotations")],
        },
        Case {
            what: "a state of zeros",
            x: tokens,
            constants: vec![weight("w", &[64, 64]), list("extents", &[2, 1, 64])],
            nodes: vec![
                plain("ConstantOfShape", &["extents"], "zeros"),
                plain("Concat", &["zeros", "x"], "joined").with_axis(1),
                plain("MatMul", &["joined", "w"], "z"),
            ],
            parameters: 4096,
            left_out: &[],
        },
        Case {
            what: "Constant nodes beside weights that are tensors",
            x: tokens,
            constants: vec![weight("w", &[64, 64]), weight("b", &[64])],
            nodes: vec![
                made("grid", &[16, 64]),
                plain("MatMul", &["x", "w"], "y"),
                plain("Add", &["y", "b"], "biased"),
                plain("Mul", &["biased", "grid"], "z"),
            ],
            parameters: 4160,
            left_out: &[],
        },
        Case {
            what: "ones and zeros of a norm over groups",
            x: &[1, 8, 4, 4],
            constants: vec![
                weight("ones", &[2]),
                weight("zeros", &[2]),
                list("groups", &[0, 2, -1]),
                list("image", &[1, 8, 4, 4]),
                weight("gamma", &[8, 1, 1]),
                weight("beta", &[8, 1, 1]),
                weight("w", &[8, 8, 1, 1]),
            ],
            nodes: vec![
                plain("Reshape", &["x", "groups"], "grouped"),
                plain("InstanceNormalization", &["grouped", "ones", "zeros"], "normed"),
                plain("Reshape", &["normed", "image"], "y"),
                plain("Mul", &["y", "gamma"], "scaled"),
                plain("Add", &["scaled", "beta"], "shifted"),
                plain("Conv", &["shifted", "w"], "z"),
            ],
            parameters: 16 + 64,
            left_out: &[(4, "ones and zeros of norms that are written for groups")],
        },
        Case {
            what: "the scales of a weight that is quantised channel by channel",
            x: tokens,
            constants: vec![
                TensorProto { data_type: Some(DataType::Int8.into()), ..weight("w", &[64, 8]) },
                weight("scales", &[8]),
                weight("b", &[8]),
            ],
            nodes: vec![
                node("DynamicQuantizeLinear", &["x"], &["q", "scale", "zero"], vec![]),
                plain("MatMulInteger", &["q", "w", "zero"], "sums"),
                with("Cast", &["sums"], "floats", int("to", 1)),
                plain("Mul", &["scale", "scales"], "all"),
                plain("Mul", &["floats", "all"], "y"),
                plain("Add", &["y", "b"], "z"),
            ],
            parameters: 512 + 8,
            left_out: &[(8, "scales of quantisation")],
        },
        Case {
            what: "the mean and the deviation of images",
            x: &[1, 3, 8, 8],
            constants: vec![
                weight("mean", &[3, 1, 1]),
                weight("deviation", &[3, 1, 1]),
                weight("w", &[4, 3, 1, 1]),
            ],
            nodes: vec![
                plain("Add", &["x", "mean"], "centred"),
                plain("Mul", &["centred", "deviation"], "normal"),
                plain("Conv", &["normal", "w"], "z"),
            ],
            parameters: 12,
            left_out: &[(6, "means and deviations of the input")],
        },
        Case {
            what: "running statistics",
            x: &[1, 3, 8, 8],
            constants: ["gamma", "beta", "mean", "variance"].map(|name| weight(name, &[3])).to_vec(),
            nodes: vec![plain("BatchNormalization", &["x", "gamma", "beta", "mean", "variance"], "z")],
            parameters: 6,
            left_out: &[(6, "running statistics of norms")],
        },
    ]
}

trait Axis {
    fn with_axis(self, axis: i64) -> Self;
}

impl Axis for NodeProto {
    fn with_axis(mut self, axis: i64) -> Self {
        self.attribute.push(int("axis", axis));
        self
    }
}

#[test]
fn a_parameter_is_told_by_how_it_is_used_and_made() {
    let mut wrong = Vec::new();
    for case in learnt().into_iter().chain(exporters()) {
        let extents: Vec<_> = case.x.iter().map(|&n| n.into()).collect();
        let stored: i64 = case
            .constants
            .iter()
            .filter(|c| c.data_type() == 1)
            .map(|c| c.dims.iter().product::<i64>())
            .sum();
        let graph = graph_of(vec![value("x", FLOAT, &extents)], case.constants, case.nodes, &["z"]);
        let found = audit(&model(17, graph), &Bindings::new());
        let account = &found.account;
        let left_out: Vec<_> =
            account.left_out.iter().map(|e| (e.elements.number().unwrap(), e.what)).collect();
        if found.totals.params != case.parameters.into()
            || left_out != case.left_out
            || found.is_lower_bound()
        {
            wrong.push(format!(
                "{}: {} parameters, left out {left_out:?}, {:?}",
                case.what, found.totals.params, found.uncounted
            ));
        }
        // The account adds up.
        let sum = |entries: &[emo_verifier::audit::Entry]| {
            entries.iter().map(|e| e.elements.number().unwrap()).sum::<i64>()
        };
        assert_eq!(account.float_initializers, stored.into(), "{}", case.what);
        assert_eq!(account.parameters, found.totals.params, "{}", case.what);
        let made = stored - sum(&account.left_out) + sum(&account.added);
        assert_eq!(account.parameters, made.into(), "{}", case.what);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
