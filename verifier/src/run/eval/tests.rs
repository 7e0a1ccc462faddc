//! Small graphs, with values from the operators' definitions.

use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::{AttributeProto, NodeProto, TensorProto};
use ndarray::ArrayD;

use super::{Noise, Rounding};
use crate::runtime::testing::{
    array, attribute_of, file, floats, graph, int, int_list, ints, model, node, text, value,
};
use crate::runtime::{Concrete, Evaluator, Failure, Form};

/// The outputs of a graph whose f32 inputs are these.
fn run(
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    inputs: &[(&str, ArrayD<f32>)],
    outputs: &[&str],
    rounding: Rounding,
) -> Result<Vec<ArrayD<f64>>, Failure> {
    let file = graph_file(nodes, constants, inputs, outputs);
    let shapes: Vec<_> = inputs.iter().map(|(name, x)| ((*name).to_owned(), x.shape().to_vec())).collect();
    let evaluator = Evaluator::new(&Concrete::new(&file, &shapes)?, &[], &[])?;
    evaluator.run(&inputs.iter().map(|(_, x)| x.clone()).collect::<Vec<_>>(), rounding)
}

fn graph_file(
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    inputs: &[(&str, ArrayD<f32>)],
    outputs: &[&str],
) -> emo_proto::file::OnnxFile {
    let declared = |(name, x): &(&str, ArrayD<f32>)| {
        let dims: Vec<i64> = x.shape().iter().map(|&d| d as i64).collect();
        value(name, DataType::Float, Some(&dims))
    };
    let found = outputs.iter().map(|name| value(name, DataType::Float, None)).collect();
    let mut model = model(graph(inputs.iter().map(declared).collect(), constants, nodes, found));
    model.opset_import[0].version = Some(18);
    model
        .opset_import
        .push(emo_proto::OperatorSetIdProto { domain: Some("com.microsoft".to_owned()), version: Some(1) });
    file(model)
}

fn bytes(name: &str, dtype: DataType, dims: &[usize], values: &[u8]) -> TensorProto {
    Tensor::new(dtype, dims.to_vec(), values.to_vec().into()).unwrap().encode(name)
}

fn microsoft(mut node: NodeProto) -> NodeProto {
    node.rare().domain = Some("com.microsoft".to_owned());
    node
}

/// (operator, its attributes, constants, the input, its shape, what comes out)
type Case<'a> = (NodeProto, Vec<TensorProto>, &'a [usize], &'a [f32], &'a [usize], &'a [f64]);

#[test]
fn operators_are_what_their_definitions_say() {
    let x = |op: &str, more: &[&str], attributes: Vec<AttributeProto>| {
        let inputs: Vec<&str> = ["x"].into_iter().chain(more.iter().copied()).collect();
        node(op, &inputs, &["y"], attributes)
    };
    let six: &[f32] = &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let cases: Vec<Case> = vec![
        (
            x("Conv", &["w"], vec![int_list("pads", &[0, 1]), int_list("strides", &[2])]),
            vec![floats("w", &[1, 1, 2], &[1.0, 10.0])],
            &[1, 1, 6],
            six,
            &[1, 1, 3],
            &[21.0, 43.0, 65.0],
        ),
        (
            x("Conv", &["w", "b"], vec![int("group", 2)]),
            vec![floats("w", &[2, 1, 1], &[2.0, 3.0]), floats("b", &[2], &[0.5, -0.5])],
            &[1, 2, 3],
            six,
            &[1, 2, 3],
            &[2.5, 4.5, 6.5, 11.5, 14.5, 17.5],
        ),
        (
            x("ConvTranspose", &["w"], vec![int_list("strides", &[2])]),
            vec![floats("w", &[1, 1, 2], &[1.0, 10.0])],
            &[1, 1, 2],
            &[1.0, 2.0],
            &[1, 1, 4],
            &[1.0, 10.0, 2.0, 20.0],
        ),
        (
            x(
                "MaxPool",
                &[],
                vec![int_list("kernel_shape", &[2]), int_list("strides", &[2]), int("ceil_mode", 1)],
            ),
            vec![],
            &[1, 1, 5],
            &six[..5],
            &[1, 1, 3],
            &[2.0, 4.0, 5.0],
        ),
        (
            x("AveragePool", &[], vec![int_list("kernel_shape", &[2]), int_list("pads", &[1, 0])]),
            vec![],
            &[1, 1, 3],
            &six[..3],
            &[1, 1, 3],
            &[1.0, 1.5, 2.5],
        ),
        (
            x("MatMul", &["w"], vec![]),
            vec![floats("w", &[3], &[1.0, 0.0, -1.0])],
            &[2, 3],
            six,
            &[2],
            &[-2.0, -2.0],
        ),
        (
            x("Gemm", &["w", "b"], vec![int("transA", 1), attribute_of("alpha", 2.0)]),
            vec![floats("w", &[2, 1], &[1.0, 1.0]), floats("b", &[1], &[0.5])],
            &[2, 3],
            six,
            &[3, 1],
            &[10.5, 14.5, 18.5],
        ),
        (
            x("Einsum", &[], vec![text("equation", "ij->ji")]),
            vec![],
            &[2, 3],
            six,
            &[3, 2],
            &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0],
        ),
        (
            x("Einsum", &["x"], vec![text("equation", "ij,kj->ik")]),
            vec![],
            &[2, 3],
            six,
            &[2, 2],
            &[14.0, 32.0, 32.0, 77.0],
        ),
        (
            x("ReduceMean", &["a"], vec![int("keepdims", 0)]),
            vec![ints("a", &[-1])],
            &[2, 3],
            six,
            &[2],
            &[2.0, 5.0],
        ),
        (
            x("CumSum", &["a"], vec![int("reverse", 1)]),
            vec![ints("a", &[1])],
            &[2, 3],
            six,
            &[2, 3],
            &[6.0, 5.0, 3.0, 15.0, 11.0, 6.0],
        ),
        (
            x("Slice", &["s", "e", "a", "t"], vec![]),
            vec![ints("s", &[-1]), ints("e", &[i64::MIN]), ints("a", &[1]), ints("t", &[-2])],
            &[2, 3],
            six,
            &[2, 2],
            &[3.0, 1.0, 6.0, 4.0],
        ),
        (
            x("Pad", &["p"], vec![text("mode", "reflect")]),
            vec![ints("p", &[0, 2, 0, 1])],
            &[1, 3],
            &six[..3],
            &[1, 6],
            &[3.0, 2.0, 1.0, 2.0, 3.0, 2.0],
        ),
        (
            x("Gather", &["i"], vec![int("axis", 1)]),
            vec![ints("i", &[-1, 0])],
            &[2, 3],
            six,
            &[2, 2],
            &[3.0, 1.0, 6.0, 4.0],
        ),
        (
            x("Resize", &["", "s"], vec![text("mode", "linear")]),
            vec![floats("s", &[2], &[1.0, 2.0])],
            &[1, 2],
            &[1.0, 2.0],
            &[1, 4],
            &[1.0, 1.25, 1.75, 2.0],
        ),
        (
            x("DepthToSpace", &[], vec![int("blocksize", 2)]),
            vec![],
            &[1, 4, 1, 1],
            &six[..4],
            &[1, 1, 2, 2],
            &[1.0, 2.0, 3.0, 4.0],
        ),
        (
            x("LayerNormalization", &["w"], vec![attribute_of("epsilon", 0.0)]),
            vec![floats("w", &[2], &[1.0, 2.0])],
            &[1, 2],
            &[1.0, 3.0],
            &[1, 2],
            &[-1.0, 2.0],
        ),
        (x("Softmax", &[], vec![int("axis", 0)]), vec![], &[2, 1], &[0.0, 0.0], &[2, 1], &[0.5, 0.5]),
        (
            microsoft(x("FusedMatMul", &["x"], vec![int("transB", 1), attribute_of("alpha", 0.5)])),
            vec![],
            &[2, 3],
            six,
            &[2, 2],
            &[7.0, 16.0, 16.0, 38.5],
        ),
        (
            microsoft(x("FusedConv", &["w"], vec![text("activation", "Relu")])),
            vec![floats("w", &[1, 1, 1], &[-1.0])],
            &[1, 1, 2],
            &[1.0, -2.0],
            &[1, 1, 2],
            &[0.0, 2.0],
        ),
        (
            // The second overlaps the first, the third is below the threshold, the fourth stands alone.
            x("NonMaxSuppression", &["s", "m", "i", "t"], vec![]),
            vec![
                floats("s", &[1, 1, 4], &[0.9, 0.8, 0.1, 0.95]),
                ints("m", &[9]),
                floats("i", &[1], &[0.5]),
                floats("t", &[1], &[0.25]),
            ],
            &[1, 4, 4],
            &[0.0, 0.0, 10.0, 10.0, 10.0, 9.0, 0.0, 0.0, 5.0, 0.0, 9.0, 9.0, 40.0, 0.0, 50.0, 9.0],
            &[2, 3],
            &[0.0, 0.0, 3.0, 0.0, 0.0, 0.0],
        ),
    ];
    for (node, constants, shape, elements, expected_shape, expected) in cases {
        let place = node.op_type().to_owned();
        let inputs = [("x", array(shape, elements))];
        let y = run(vec![node], constants, &inputs, &["y"], Rounding::Exact).expect(&place).remove(0);
        assert_eq!(y.shape(), expected_shape, "{place}");
        for (y, expected) in y.iter().zip(expected) {
            assert!((y - expected).abs() < 1e-12, "{place}: {y} for {expected}");
        }
    }
}

/// DequantizeLinear → Softmax → QuantizeLinear, with the pairs around it that make six nodes.
#[test]
fn softmax_in_units_of_a_scale() {
    let nodes = || {
        vec![
            node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![]),
            node("DequantizeLinear", &["q", "s", "z"], &["d"], vec![]),
            node("Softmax", &["d"], &["p"], vec![]),
            node("QuantizeLinear", &["p", "t", "o"], &["r"], vec![]),
            node("DequantizeLinear", &["r", "t", "o"], &["e"], vec![]),
            node("Identity", &["e"], &["y"], vec![]),
        ]
    };
    let constants = || {
        vec![
            floats("s", &[], &[0.5]),
            bytes("z", DataType::Uint8, &[], &[128]),
            floats("t", &[], &[0.25]),
            bytes("o", DataType::Uint8, &[], &[1]),
        ]
    };
    let inputs = [("x", array(&[1, 2], &[0.3, 1.4]))];
    let run = |rounding| run(nodes(), constants(), &inputs, &["y"], rounding).unwrap().remove(0);
    // 0.3 is 1 unit of 0.5 and 1.4 is 3: softmax of 0.5 and 1.5 is 0.269 and 0.731, in units of 0.25 1 and 3.
    assert_eq!(run(Rounding::Written).as_slice().unwrap(), [0.25, 0.75]);
    let exact = 1.0 / (1.0 + (f64::from(1.4_f32) - f64::from(0.3_f32)).exp());
    assert!((run(Rounding::Exact)[[0, 0]] - exact).abs() < 1e-12);
    let noise = |seed| Noise { seed, arithmetic: true, ..Noise::default() };
    let (first, second, silent) = (noise(1), noise(2), Noise::default());
    let (one, other) = (run(Rounding::Noise(&first)), run(Rounding::Noise(&second)));
    assert_ne!(one, other);
    assert_eq!(one, run(Rounding::Noise(&first)));
    // Half a unit of the second scale, and what half a unit of the first may do.
    assert!((one[[0, 0]] - exact).abs() < 0.125 + 0.25, "{one}");
    assert_eq!(run(Rounding::Noise(&silent)), run(Rounding::Exact));
}

/// What is too large for float16 is infinite, as it is in every engine that does not widen it.
#[test]
fn casts_round_and_overflow() {
    let nodes = || {
        vec![
            node("Conv", &["x", "w"], &["c"], vec![]),
            node("Mul", &["c", "large"], &["m"], vec![]),
            node("Cast", &["m"], &["h"], vec![int("to", DataType::Float16 as i64)]),
            node("Cast", &["h"], &["f"], vec![int("to", DataType::Float as i64)]),
            node("Div", &["f", "large"], &["y"], vec![]),
        ]
    };
    let constants = || vec![floats("w", &[1, 1, 1, 1], &[1.0]), floats("large", &[], &[1e6])];
    let inputs = [("x", array(&[1, 1, 1, 3], &[1.0, 0.0, 0.05]))];
    let written = run(nodes(), constants(), &inputs, &["y"], Rounding::Written).unwrap().remove(0);
    assert_eq!(written.as_slice().unwrap()[..2], [f64::INFINITY, 0.0]);
    let exact = run(nodes(), constants(), &inputs, &["y"], Rounding::Exact).unwrap().remove(0);
    assert!((exact[[0, 0, 0, 0]] - 1.0).abs() < 1e-12);

    let file = graph_file(nodes(), constants(), &inputs, &["y"]);
    let concrete = Concrete::new(&file, &[("x".to_owned(), vec![1, 1, 1, 3])]).unwrap();
    let evaluator = Evaluator::new(&concrete, &[], &[]).unwrap();
    assert_eq!(evaluator.coarse(), Some(("the Cast".to_owned(), "FLOAT16")));
    assert_eq!(concrete.cut(&[], &[], Form::Plain).unwrap().unrounded, ["the Cast"]);
}

/// Noise on constants: those that are stored coarsely, but for those that are spared.
#[test]
fn stored_weights_are_known_to_half_a_unit() {
    let nodes = || {
        vec![
            node("DequantizeLinear", &["w", "s"], &["d"], vec![]),
            node("Transpose", &["d"], &["t"], vec![]),
            node("MatMul", &["x", "t"], &["y"], vec![]),
        ]
    };
    let constants = || vec![bytes("w", DataType::Int8, &[1, 2], &[10, 20]), floats("s", &[], &[0.5])];
    let inputs = [("x", array(&[1, 2], &[1.0, 0.0]))];
    let with = |noise: &Noise| {
        run(nodes(), constants(), &inputs, &["y"], Rounding::Noise(noise)).unwrap().remove(0)[[0, 0]]
    };
    let disturbed = with(&Noise { seed: 3, ..Noise::default() });
    assert!(disturbed != 5.0 && (disturbed - 5.0).abs() <= 0.25, "{disturbed}");
    let spared = Noise { seed: 3, spared: std::iter::once("w".to_owned()).collect(), ..Noise::default() };
    assert_eq!(with(&spared), 5.0);
}

/// A loop that adds x three times to what it carries, and stacks what it carries.
#[test]
fn bodies_run_and_see_what_is_around_them() {
    let body = graph(
        vec![
            value("i", DataType::Int64, Some(&[])),
            value("go", DataType::Bool, Some(&[])),
            value("sum", DataType::Float, Some(&[2])),
        ],
        vec![],
        vec![
            node("Add", &["sum", "x"], &["next"], vec![]),
            node("Identity", &["go"], &["still"], vec![]),
            node("Identity", &["next"], &["kept"], vec![]),
        ],
        vec![
            value("still", DataType::Bool, Some(&[])),
            value("next", DataType::Float, Some(&[2])),
            value("kept", DataType::Float, Some(&[2])),
        ],
    );
    let loops =
        node("Loop", &["n", "", "x"], &["y", "all"], vec![crate::runtime::testing::body("body", body)]);
    let constants = vec![Tensor::from_i64(vec![], &[3]).unwrap().encode("n")];
    let inputs = [("x", array(&[2], &[1.0, 2.0]))];
    let outputs = run(vec![loops], constants, &inputs, &["y", "all"], Rounding::Written).unwrap();
    assert_eq!(outputs[0].as_slice().unwrap(), [4.0, 8.0]);
    assert_eq!(outputs[1].as_slice().unwrap(), [2.0, 4.0, 3.0, 6.0, 4.0, 8.0]);
}

/// A third-party node may ask for anything.
#[test]
fn what_does_not_fit_is_a_failure() {
    let x = ("x", array(&[2, 3], &[0.0; 6]));
    let cases = [
        (node("ConstantOfShape", &["n"], &["y"], vec![]), vec![ints("n", &[1 << 40, 1 << 40])]),
        (node("Expand", &["x", "n"], &["y"], vec![]), vec![ints("n", &[1 << 30, 2, 3])]),
        (node("MatMul", &["x", "x"], &["y"], vec![]), vec![]),
        (node("Reshape", &["x", "n"], &["y"], vec![]), vec![ints("n", &[4, 4])]),
        (node("Conv", &["x", "x"], &["y"], vec![]), vec![]),
        (node("Gather", &["x", "n"], &["y"], vec![]), vec![ints("n", &[7])]),
        (node("Transpose", &["x"], &["y"], vec![int_list("perm", &[0, 0])]), vec![]),
        (node("Softmax", &["x"], &["y"], vec![int("axis", i64::MIN)]), vec![]),
        (node("Split", &["x", "n"], &["y"], vec![]), vec![ints("n", &[i64::MAX, 1])]),
        (node("Add", &["x"], &["y"], vec![]), vec![]),
        (node("Slice", &["x", "n", "n", "n", "n"], &["y"], vec![]), vec![ints("n", &[0])]),
    ];
    for (node, constants) in cases {
        let op = node.op_type().to_owned();
        let failure = run(vec![node], constants, std::slice::from_ref(&x), &["y"], Rounding::Written);
        let failure = failure.expect_err(&op);
        assert!(matches!(failure, Failure::Refused { .. } | Failure::Wrong(_)), "{op}: {failure}");
    }
}

/// A float graph is what an engine gets of a quantised one: bounded as the integers are, not rounded; weights
/// are floats.
#[test]
fn a_quantised_graph_is_plain_without_its_units() {
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![]),
        node("Transpose", &["q"], &["r"], vec![]),
        node("DequantizeLinear", &["r", "s", "z"], &["d"], vec![]),
        node("DequantizeLinear", &["w", "s"], &["v"], vec![]),
        node("MatMul", &["d", "v"], &["y"], vec![]),
    ];
    let constants = vec![
        floats("s", &[], &[0.5]),
        bytes("z", DataType::Uint8, &[], &[0]),
        bytes("w", DataType::Uint8, &[2, 1], &[2, 4]),
    ];
    let inputs = [("x", array(&[2, 1], &[-1.0, 0.7]))];
    let quantised = graph_file(nodes, constants, &inputs, &["y"]);
    let concrete = Concrete::new(&quantised, &[("x".to_owned(), vec![2, 1])]).unwrap();
    let cut = concrete.cut(&[], &[], Form::Plain).unwrap();
    assert_eq!(cut.unrounded, ["the QuantizeLinear"]);
    let graph = cut.model.graph.clone().unwrap();
    let operators: Vec<&str> = graph.node.iter().map(NodeProto::op_type).collect();
    assert_eq!(operators, ["Max", "Min", "Transpose", "Identity", "MatMul"]);
    // What is below the integers' range is at its end: 0 · 1 + 0.7 · 2.
    let plain = file(cut.model);
    let shapes = [("x".to_owned(), vec![2, 1])];
    let evaluator = Evaluator::new(&Concrete::new(&plain, &shapes).unwrap(), &[], &[]).unwrap();
    let y = evaluator.run(&[inputs[0].1.clone()], Rounding::Exact).unwrap().remove(0);
    assert!((y[[0, 0]] - 2.0 * f64::from(0.7_f32)).abs() < 1e-9, "{y}");
}

/// An exponent that is disturbed would leave negative numbers without a power.
#[test]
fn noise_leaves_exponents_alone() {
    let nodes = vec![
        node("Cast", &["two"], &["e"], vec![int("to", DataType::Float as i64)]),
        node("Pow", &["x", "e"], &["y"], vec![]),
    ];
    let constants = vec![bytes("two", DataType::Float16, &[], &[0, 0x40])];
    let inputs = [("x", array(&[1], &[-3.0]))];
    let noise = Noise { seed: 1, arithmetic: true, singles: true, ..Noise::default() };
    let y = run(nodes, constants, &inputs, &["y"], Rounding::Noise(&noise)).unwrap().remove(0);
    assert!((y[[0]] - 9.0).abs() < 1e-5 && y[[0]] != 9.0, "{y}");
}
