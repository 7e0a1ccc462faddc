//! Graphs cut out of small files: what is folded, and that tract computes the same.

use emo_proto::file::OnnxFile;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use ndarray::ArrayD;

use super::testing::{
    array, attribute_of, body, file, floats, graph, int, ints, model, node, shapes, strings, value,
};
use super::{Concrete, Cut, Failure, Form, Runtime, Tract};

fn operators(model: &ModelProto) -> Vec<&str> {
    model.graph.iter().flat_map(|graph| &graph.node).map(NodeProto::op_type).collect()
}

/// The operators of the plain form, and what tract makes of the input.
fn run(file: &OnnxFile, x: &ArrayD<f32>) -> (Vec<String>, ArrayD<f32>) {
    let inputs = shapes(&[("x", x.shape())]);
    let concrete = Concrete::new(file, &inputs).unwrap();
    let plain = concrete.cut(&[], &[], Form::Plain).unwrap().model;
    let mut session = Tract.ready(&concrete, &[], &[]).unwrap();
    let y = session.run(std::slice::from_ref(x)).unwrap().remove(0);
    (strings(&operators(&plain)), y)
}

fn x(dims: &[i64]) -> Vec<emo_proto::ValueInfoProto> {
    vec![value("x", DataType::Float, Some(dims))]
}

fn y(dtype: DataType) -> Vec<emo_proto::ValueInfoProto> {
    // Exporters declare shapes that do not hold.
    vec![value("y", dtype, Some(&[9, 9, 9, 9, 9]))]
}

fn numbers(shape: &[usize]) -> ArrayD<f32> {
    let count: usize = shape.iter().product();
    ArrayD::from_shape_vec(shape, (0..count).map(|i| i as f32).collect()).unwrap()
}

/// Rows padded to a multiple of 4, as PyTorch's TorchScript exporter writes it:
/// `F.pad(x, (0, 0, 0, (4 - h % 4) % 4)).reshape(-1, 4, w)`.
fn padded() -> OnnxFile {
    let nodes = vec![
        node("Shape", &["x"], &["shape"], vec![]),
        node("Gather", &["shape", "zero"], &["h"], vec![int("axis", 0)]),
        node("Gather", &["shape", "one"], &["w"], vec![int("axis", 0)]),
        node("Mod", &["h", "four"], &["over"], vec![]),
        node("Sub", &["four", "over"], &["short"], vec![]),
        node("Mod", &["short", "four"], &["pad"], vec![]),
        node("Unsqueeze", &["pad", "axes"], &["pads.2"], vec![]),
        node("Concat", &["none", "pads.2", "nothing"], &["pads"], vec![int("axis", 0)]),
        node("Pad", &["x", "pads"], &["whole"], vec![]),
        node("Unsqueeze", &["w", "axes"], &["w.1"], vec![]),
        node("Concat", &["rest", "w.1"], &["target"], vec![int("axis", 0)]),
        node("Reshape", &["whole", "target"], &["y"], vec![]),
    ];
    let scalar = |name, n: i64| {
        Tensor::new(DataType::Int64, vec![], n.to_le_bytes().to_vec().into()).unwrap().encode(name)
    };
    let constants = vec![
        scalar("zero", 0),
        scalar("one", 1),
        scalar("four", 4),
        ints("axes", &[0]),
        ints("none", &[0, 0]),
        ints("nothing", &[0]),
        ints("rest", &[-1, 4]),
    ];
    file(model(graph(x(&[-1, -1]), constants, nodes, y(DataType::Float))))
}

#[test]
fn shape_arithmetic_is_gone_at_every_size() {
    for (height, blocks) in [(8, 2), (9, 3), (11, 3), (1, 1)] {
        let x = numbers(&[height, 3]);
        let (operators, y) = run(&padded(), &x);
        assert_eq!(operators, ["Pad", "Reshape"]);
        assert_eq!(y.shape(), [blocks, 4, 3]);
        let mut expected: Vec<f32> = x.iter().copied().collect();
        expected.resize(blocks * 12, 0.0);
        assert_eq!(y.into_raw_vec_and_offset().0, expected);
    }
}

#[test]
fn the_written_form_keeps_its_nodes_and_weights_are_shared() {
    let file = padded();
    let concrete = Concrete::new(&file, &shapes(&[("x", &[8, 3])])).unwrap();
    let Cut { model: written, inputs, .. } = concrete.cut(&[], &[], Form::Written).unwrap();
    assert_eq!(operators(&written).len(), 12);
    assert_eq!(inputs, shapes(&[("x", &[8, 3])]));
    let shared = |model: &ModelProto| {
        model
            .graph
            .as_ref()
            .unwrap()
            .initializer
            .iter()
            .find(|t| t.name() == "rest")
            .unwrap()
            .raw_data()
            .as_ptr()
    };
    assert_eq!(shared(&written), shared(&file.model));
}

#[test]
fn values_inside_are_fed_and_asked_for() {
    let file = padded();
    let concrete = Concrete::new(&file, &shapes(&[("x", &[9, 3])])).unwrap();
    assert_eq!(concrete.shape("whole"), Some(&[12, 3][..]));
    let whole = numbers(&[12, 3]);
    for form in [Form::Plain, Form::Written] {
        let Cut { model: cut, inputs, .. } = concrete.cut(&strings(&["whole"]), &[], form).unwrap();
        assert_eq!((operators(&cut), inputs), (vec!["Reshape"], shapes(&[("whole", &[12, 3])])));
    }
    let mut session = Tract.ready(&concrete, &strings(&["whole"]), &strings(&["y", "whole"])).unwrap();
    let outputs = session.run(std::slice::from_ref(&whole)).unwrap();
    assert_eq!(outputs[0].shape(), [3, 4, 3]);
    assert_eq!(outputs[1], whole);
    // What the sizes decide is given as it is, a scalar without axes.
    let mut session = Tract.ready(&concrete, &[], &strings(&["pad", "pads"])).unwrap();
    let outputs = session.run(&[numbers(&[9, 3])]).unwrap();
    assert_eq!(outputs, [array(&[], &[3.0]), array(&[4], &[0.0, 0.0, 3.0, 0.0])]);
}

#[test]
fn what_cannot_be_cut_is_wrong() {
    let file = padded();
    let concrete = Concrete::new(&file, &shapes(&[("x", &[9, 3])])).unwrap();
    let cases: [(&[&str], &[&str], &str); 7] = [
        (&["w"], &["y"], "w: a constant of the graph cannot be fed"),
        (&["nobody"], &["y"], "the graph has no value nobody"),
        (&["x"], &["nobody"], "the graph has no value nobody"),
        (&["x", "x"], &["y"], "x: expected each input once, found it twice"),
        (&["x"], &["y", "y"], "y: expected each output once, found it twice"),
        (&["y"], &["whole"], "the outputs depend on x, which is not fed"),
        (&["four"], &["y"], "four: a constant of the graph cannot be fed"),
    ];
    for (inputs, outputs, expected) in cases {
        let failure = concrete.cut(&strings(inputs), &strings(outputs), Form::Plain).unwrap_err();
        assert_eq!(failure.to_string(), expected);
    }
    let fixed =
        file_of(graph(x(&[1, 3]), vec![], vec![node("Relu", &["x"], &["y"], vec![])], y(DataType::Float)));
    for (inputs, expected) in [
        (shapes(&[("x", &[2, 3])]), "x: expected FLOAT [1, 3], found [2, 3]"),
        (shapes(&[("x", &[3])]), "x: expected FLOAT [1, 3], found [3]"),
        (shapes(&[]), "the graph's input x was given no shape"),
        (shapes(&[("x", &[1, 3]), ("z", &[1])]), "expected the graph's inputs, x, found z"),
    ] {
        assert_eq!(Concrete::new(&fixed, &inputs).unwrap_err().to_string(), expected);
    }
}

fn file_of(graph: GraphProto) -> OnnxFile {
    file(model(graph))
}

/// `x` doubled where it has more than `most` rows, else negated twice in a branch of the branch.
fn branches() -> OnnxFile {
    let out = |name| vec![value(name, DataType::Float, None)];
    let doubled = graph(
        vec![],
        vec![floats("two", &[], &[2.0])],
        vec![node("Mul", &["x", "two"], &["r"], vec![])],
        out("r"),
    );
    let negated = graph(vec![], vec![], vec![node("Neg", &["r"], &["s"], vec![])], out("s"));
    let same = graph(vec![], vec![], vec![], out("r"));
    let inner = vec![
        node("Neg", &["x"], &["r"], vec![]),
        node("If", &["always"], &["q"], vec![body("then_branch", negated), body("else_branch", same)]),
    ];
    let otherwise = graph(vec![], vec![], inner, out("q"));
    let nodes = vec![
        node("Shape", &["x"], &["shape"], vec![]),
        node("Gather", &["shape", "zero"], &["h"], vec![int("axis", 0)]),
        node("Greater", &["h", "most"], &["many"], vec![]),
        node("If", &["many"], &["y"], vec![body("then_branch", doubled), body("else_branch", otherwise)]),
    ];
    let always = Tensor::new(DataType::Bool, vec![], vec![1].into()).unwrap().encode("always");
    let constants = vec![ints("zero", &[0]), ints("most", &[4]), always];
    file_of(graph(x(&[-1, 2]), constants, nodes, y(DataType::Float)))
}

#[test]
fn decided_branches_are_written_out() {
    let (many, few) = (numbers(&[5, 2]), numbers(&[4, 2]));
    assert_eq!(run(&branches(), &many), (strings(&["Mul", "Identity"]), &many * 2.0));
    assert_eq!(run(&branches(), &few), (strings(&["Neg", "Neg", "Identity", "Identity"]), few));
}

#[test]
fn functions_are_written_out_with_their_arguments() {
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    // scaled(a, b; axis, alpha = 0.5) = LeakyRelu(Concat(a, b; axis); alpha)
    let function = |name: &str, nodes| FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("ours".to_owned()),
        input: strings(&["a", "b"]),
        output: strings(&["out"]),
        attribute: strings(&["axis"]),
        attribute_proto: vec![attribute_of("alpha", 0.5)],
        node: nodes,
        opset_import: vec![opset("", 17), opset("ours", 1)],
        ..FunctionProto::default()
    };
    let refers = |name: &str| {
        let mut attribute = int(name, 0);
        (attribute.i, attribute.ref_attr_name) = (None, Some(name.to_owned()));
        attribute
    };
    let inner = function(
        "scaled",
        vec![
            node("Concat", &["a", "b"], &["x"], vec![refers("axis")]),
            node("LeakyRelu", &["x"], &["out"], vec![refers("alpha")]),
        ],
    );
    let mut call = node("scaled", &["a", "a"], &["twice"], vec![refers("axis")]);
    call.rare().domain = Some("ours".to_owned());
    let outer = function("outer", vec![call, node("Add", &["twice", "b"], &["out"], vec![])]);
    let mut start = node("outer", &["x", "one"], &["y"], vec![int("axis", 1)]);
    start.rare().domain = Some("ours".to_owned());

    let mut whole =
        model(graph(x(&[1, 2]), vec![floats("one", &[1], &[1.0])], vec![start], y(DataType::Float)));
    whole.opset_import.push(opset("ours", 1));
    whole.functions = vec![inner, outer];
    let (operators, y) = run(&file(whole.clone()), &array(&[1, 2], &[4.0, -4.0]));
    assert_eq!(operators, ["Concat", "LeakyRelu", "Add"]);
    assert_eq!(y, array(&[1, 4], &[5.0, -1.0, 5.0, -1.0]));

    whole.functions[0].node[1].op_type = Some("outer".into());
    whole.functions[0].node[1].rare().domain = Some("ours".to_owned());
    let failure = Concrete::new(&file(whole), &shapes(&[("x", &[1, 2])])).unwrap_err();
    assert!(matches!(&failure, Failure::Wrong(e) if e.to_string().contains("calls itself")), "{failure}");
}

/// Weights and computation in 16 bits, with float32 at both ends.
fn half(dtype: DataType, one_and_a_half: u16) -> OnnxFile {
    let code = i32::from(dtype).into();
    let weight =
        Tensor::new(dtype, vec![1], one_and_a_half.to_le_bytes().to_vec().into()).unwrap().encode("w");
    let nodes = vec![
        node("Cast", &["x"], &["x.16"], vec![int("to", code)]),
        node("Mul", &["x.16", "w"], &["y.16"], vec![]),
        node("Cast", &["y.16"], &["y"], vec![int("to", i32::from(DataType::Float).into())]),
    ];
    file_of(graph(x(&[2]), vec![weight], nodes, y(DataType::Float)))
}

#[test]
fn halves_are_computed_in_f32() {
    for file in [half(DataType::Float16, 0x3E00), half(DataType::Bfloat16, 0x3FC0)] {
        let (_, y) = run(&file, &array(&[2], &[1.0, 1_000_001.0]));
        assert_eq!(y, array(&[2], &[1.5, 1_500_001.5]));
        let concrete = Concrete::new(&file, &shapes(&[("x", &[2])])).unwrap();
        let written = concrete.cut(&[], &[], Form::Written).unwrap().model;
        assert_ne!(written.graph.unwrap().initializer[0].data_type(), i32::from(DataType::Float));
        // A value of 16 bits is fed and asked for as f32, in either form.
        for form in [Form::Plain, Form::Written] {
            let cut = concrete.cut(&strings(&["x.16"]), &strings(&["y.16"]), form).unwrap().model;
            let casts = if form == Form::Plain { 0 } else { 2 };
            assert_eq!(operators(&cut).iter().filter(|op| **op == "Cast").count(), casts);
        }
    }
}

#[test]
fn integers_come_and_go_as_f32() {
    let table = floats("table", &[3, 1], &[10.0, 20.0, 30.0]);
    let nodes = vec![
        node("Gather", &["table", "x"], &["rows"], vec![]),
        node("ArgMax", &["rows"], &["y"], vec![int("axis", 0), int("keepdims", 0)]),
    ];
    for dtype in [DataType::Int64, DataType::Int32] {
        let input = vec![value("x", dtype, Some(&[-1]))];
        let file = file_of(graph(input, vec![table.clone()], nodes.clone(), y(DataType::Int64)));
        let concrete = Concrete::new(&file, &shapes(&[("x", &[4])])).unwrap();
        let mut session = Tract.ready(&concrete, &[], &strings(&["rows", "y"])).unwrap();
        let outputs = session.run(&[array(&[4], &[1.0, 0.0, 2.0, 0.0])]).unwrap();
        assert_eq!(outputs, [array(&[4, 1], &[20.0, 10.0, 30.0, 10.0]), array(&[1], &[2.0])]);
    }
}

#[test]
fn names_of_our_own_collide_with_none() {
    let nodes = vec![node("Relu", &["~x"], &["~~y"], vec![]), node("Shape", &["~~y"], &["y"], vec![])];
    let input = vec![value("~x", DataType::Float, Some(&[2, 3]))];
    let file = file_of(graph(input, vec![], nodes, y(DataType::Int64)));
    let concrete = Concrete::new(&file, &shapes(&[("~x", &[2, 3])])).unwrap();
    let mut session = Tract.ready(&concrete, &[], &[]).unwrap();
    assert_eq!(session.run(&[numbers(&[2, 3])]).unwrap(), [array(&[2], &[2.0, 3.0])]);
    let cut = concrete.cut(&[], &[], Form::Plain).unwrap().model;
    assert!(cut.graph.unwrap().output[0].name().starts_with("~~~out "));
}
