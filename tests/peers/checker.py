"""Compares `emo check` with `onnx.checker` and its full check, both ways.

    python tests/peers/checker.py target/release/emo

1. Accepts: the `light` models of the `onnx` package and every operator case of its backend tests that
   onnx.checker accepts have exit code 0 and no error.
2. Refuses: each mutation below of a real model is refused by onnx.checker, and by `emo check`.
3. verifier/inspect/src/graph/schemas.txt is what the package says, and so is the table of lowest IR versions.

Exit code 1, and a list, where one of these does not hold. Needs the pinned `onnx`.
"""

import contextlib
import copy
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, checker, helper, numpy_helper, parser
from onnx.backend.test.case.node import collect_testcases

ROOT = Path(__file__).parents[2]

# Operator cases that onnx.checker accepts and we do not, each with its cause.
ALLOWED = {}


def quiet(function, *arguments, **options):
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def refused(model):
    """What onnx.checker says against a model, a path or a message; None if it accepts it."""
    try:
        quiet(checker.check_model, model, full_check=True)
    except Exception as error:  # each of its layers has a class of its own
        return str(error) or type(error).__name__
    return None


def check(emo, folder, names):
    """The verdicts of one call over many files, and its exit code."""
    command = [str(emo), "check", "--format", "json", *names]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not run.stdout:
        sys.exit(f"{' '.join(command[:4])} …: exit code {run.returncode}, {run.stderr}")
    documents = json.loads(run.stdout)
    documents = documents if isinstance(documents, list) else [documents]
    return {document["file"]: document for document in documents}, run.returncode


def errors(document):
    return [f for f in document["findings"] if f["severity"] == "error"]


# The models that mutations start from.


def case(name):
    return lambda cases: copy.deepcopy(cases[name].model)


def text(source):
    return lambda _: parser.parse_model(source)


def light(name):
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return lambda _: onnx.load(folder / f"light_{name}.onnx")


FUNCTION = """
<ir_version: 9, opset_import: ["" : 17, "local" : 1]>
agraph (float[N] x) => (float[N] y) { h = local.twice<scale = 2.0>(x)  y = local.again(h) }
<domain: "local", opset_import: ["" : 17, "local" : 1]>
twice <scale> (x) => (y) { s = Constant<value_float: float = @scale>()  y = Mul(x, s) }
<domain: "local", opset_import: ["" : 17, "local" : 1]>
again (x) => (y) { y = local.twice<scale = 1.0>(x) }
"""

SPARSE = """
<ir_version: 9, opset_import: ["" : 17]>
agraph (float[3] x) => (float[3] y) { y = Identity(x) }
"""

BASES = {
    "squeezenet": light("squeezenet"),
    "resnet50": light("resnet50"),
    "conv": case("test_basic_conv_with_padding"),
    "matmul": case("test_matmul_2d"),
    "concat": case("test_concat_2d_axis_0"),
    "reshape": case("test_reshape_reordered_all_dims"),
    "cast": case("test_cast_FLOAT_to_DOUBLE"),
    "batchnorm": case("test_batchnorm_example"),
    "dropout": case("test_dropout_default"),
    "if": case("test_if"),
    "loop": case("test_loop11"),
    "scan": case("test_scan9_sum"),
    "sequence": case("test_sequence_insert_at_back"),
    "function": text(FUNCTION),
    "sparse": text(SPARSE),
}

MUTATIONS = []


def mutation(base, what):
    def register(function):
        MUTATIONS.append((base, what, function))
        return function

    return register


def node(model, operator):
    return next(n for n in model.graph.node if n.op_type == operator)


def attribute(node, name):
    return next(a for a in node.attribute if a.name == name)


# The model.


@mutation("squeezenet", "no ir_version")
def _(m):
    m.ClearField("ir_version")


@mutation("squeezenet", "an ir_version of the future")
def _(m):
    m.ir_version = onnx.IR_VERSION + 1


@mutation("squeezenet", "no operator set")
def _(m):
    del m.opset_import[:]


@mutation("squeezenet", "operator sets at an IR version without them")
def _(m):
    m.ir_version = 2


@mutation("squeezenet", "an operator set beyond 32 bits")
def _(m):
    m.opset_import[0].version = 2**40


@mutation("squeezenet", "an operator set of 0")
def _(m):
    m.opset_import[0].version = 0


@mutation("squeezenet", "the wrong domain imported")
def _(m):
    m.opset_import[0].domain = "com.example"


@mutation("squeezenet", "a metadata key twice")
def _(m):
    for value in "ab":
        m.metadata_props.add(key="author", value=value)


@mutation("squeezenet", "no graph")
def _(m):
    m.ClearField("graph")


@mutation("squeezenet", "a graph without a name")
def _(m):
    m.graph.ClearField("name")


# Names and order.


@mutation("squeezenet", "a node that nothing feeds")
def _(m):
    node(m, "Conv").input[0] = "nothing"


@mutation("squeezenet", "two nodes in the wrong order")
def _(m):
    conv = node(m, "Conv")
    m.graph.node.append(conv)
    m.graph.node.remove(conv)


@mutation("squeezenet", "a cycle")
def _(m):
    relu = node(m, "Relu")
    relu.input[0] = relu.output[0]


@mutation("squeezenet", "a value written twice")
def _(m):
    m.graph.node.append(copy.deepcopy(m.graph.node[0]))


@mutation("squeezenet", "an output that no node writes")
def _(m):
    m.graph.output[0].name = "nothing"


@mutation("squeezenet", "an output without a name")
def _(m):
    m.graph.output[0].name = ""


@mutation("squeezenet", "an input twice")
def _(m):
    m.graph.input.append(copy.deepcopy(m.graph.input[0]))


@mutation("squeezenet", "an input without a name")
def _(m):
    m.graph.input.add().type.CopyFrom(m.graph.input[0].type)


@mutation("squeezenet", "an initializer that is no input at IR version 3")
def _(m):
    m.ir_version = 3
    m.graph.initializer.append(numpy_helper.from_array(numpy.zeros(2, numpy.float32), "extra"))


@mutation("conv", "two initializers of one name")
def _(m):
    for _ in range(2):
        m.graph.initializer.append(numpy_helper.from_array(numpy.zeros(2, numpy.float32), "extra"))


@mutation("conv", "an initializer without a name")
def _(m):
    m.graph.initializer.append(numpy_helper.from_array(numpy.zeros(2, numpy.float32), ""))


@mutation("conv", "an output that an input writes")
def _(m):
    m.graph.node[0].output[0] = m.graph.input[0].name


# Types of the interface.


@mutation("conv", "an input without a type")
def _(m):
    m.graph.input[0].ClearField("type")


@mutation("conv", "an input without an element type")
def _(m):
    m.graph.input[0].type.tensor_type.ClearField("elem_type")


@mutation("conv", "an input without a shape")
def _(m):
    m.graph.input[0].type.tensor_type.ClearField("shape")


@mutation("conv", "an output without a shape")
def _(m):
    m.graph.output[0].type.tensor_type.ClearField("shape")


@mutation("sequence", "a sequence without a type of its items")
def _(m):
    m.graph.input[0].type.sequence_type.ClearField("elem_type")


@mutation("conv", "an element type that does not exist")
def _(m):
    m.graph.input[0].type.tensor_type.elem_type = 99


# Operators.


@mutation("squeezenet", "a node without an operator")
def _(m):
    node(m, "Relu").ClearField("op_type")


@mutation("squeezenet", "an operator that does not exist")
def _(m):
    node(m, "Relu").op_type = "Reluu"


@mutation("squeezenet", "an operator of a later set")
def _(m):
    node(m, "Relu").op_type = "Gelu"


@mutation("squeezenet", "a domain that is not imported")
def _(m):
    node(m, "Relu").domain = "ai.onnx.ml"


@mutation("conv", "an operator that was withdrawn")
def _(m):
    m.opset_import[0].version = 10
    m.graph.node[0].CopyFrom(helper.make_node("Upsample", list(m.graph.node[0].input), list(m.graph.node[0].output)))


@mutation("conv", "a node with neither input nor output")
def _(m):
    m.graph.node.add(op_type="Conv")


@mutation("conv", "too few inputs")
def _(m):
    del m.graph.node[0].input[1:]


@mutation("conv", "too many inputs")
def _(m):
    m.graph.node[0].input.extend([m.graph.input[1].name] * 2)


@mutation("conv", "a required input left out")
def _(m):
    m.graph.node[0].input[1] = ""


@mutation("conv", "too many outputs")
def _(m):
    m.graph.node[0].output.append("extra")


@mutation("conv", "a required output left out")
def _(m):
    m.graph.node[0].output[0] = ""
    m.graph.output[0].name = m.graph.input[0].name
    m.graph.output[0].type.CopyFrom(m.graph.input[0].type)


@mutation("batchnorm", "a number of outputs in between")
def _(m):
    m.graph.node[0].output.append("mean")


@mutation("concat", "a variadic operator without inputs")
def _(m):
    del m.graph.node[0].input[:]


# Attributes.


@mutation("conv", "an attribute that the operator does not know")
def _(m):
    m.graph.node[0].attribute.append(helper.make_attribute("stride", [1, 1]))


@mutation("conv", "an attribute of another type")
def _(m):
    strides = attribute(m.graph.node[0], "pads")
    strides.CopyFrom(helper.make_attribute("pads", 1))


@mutation("conv", "an attribute twice")
def _(m):
    m.graph.node[0].attribute.append(copy.deepcopy(m.graph.node[0].attribute[0]))


@mutation("conv", "an attribute without a name")
def _(m):
    m.graph.node[0].attribute[0].ClearField("name")


@mutation("conv", "an attribute without a type")
def _(m):
    m.graph.node[0].attribute[0].ClearField("type")


@mutation("conv", "an attribute whose type is not its value's")
def _(m):
    m.graph.node[0].attribute[0].type = onnx.AttributeProto.FLOATS


@mutation("conv", "an attribute of two values")
def _(m):
    m.graph.node[0].attribute[0].i = 1


@mutation("concat", "a required attribute missing")
def _(m):
    del m.graph.node[0].attribute[:]


@mutation("cast", "a required attribute without which nothing is known")
def _(m):
    del m.graph.node[0].attribute[:]


@mutation("if", "a graph attribute without a graph")
def _(m):
    attribute(m.graph.node[0], "then_branch").ClearField("g")


# Types and shapes of operands.


@mutation("conv", "an operand of a type that the operator does not take")
def _(m):
    m.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


@mutation("matmul", "operands of two types")
def _(m):
    m.graph.input[1].type.tensor_type.elem_type = TensorProto.DOUBLE


@mutation("matmul", "an output declared with another type")
def _(m):
    m.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


@mutation("matmul", "an output declared with another extent")
def _(m):
    m.graph.output[0].type.tensor_type.shape.dim[0].dim_value += 1


@mutation("matmul", "an output declared with another rank")
def _(m):
    m.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1


@mutation("squeezenet", "an inner value declared with another shape")
def _(m):
    relu = node(m, "Relu").output[0]
    m.graph.value_info.append(helper.make_tensor_value_info(relu, TensorProto.FLOAT, [1, 2, 3, 4]))


@mutation("squeezenet", "an inner value declared with another type")
def _(m):
    relu = node(m, "Relu").output[0]
    m.graph.value_info.append(helper.make_tensor_value_info(relu, TensorProto.INT64, None))


@mutation("matmul", "inner extents that differ")
def _(m):
    m.graph.input[1].type.tensor_type.shape.dim[0].dim_value += 1


@mutation("concat", "an axis beyond the rank")
def _(m):
    attribute(m.graph.node[0], "axis").i = 7


@mutation("concat", "operands that do not fit beside each other")
def _(m):
    m.graph.input[1].type.tensor_type.shape.dim[1].dim_value += 1


@mutation("resnet50", "an initializer of another shape than its input")
def _(m):
    tensor = m.graph.initializer[0] if m.graph.initializer else None
    tensor = tensor or m.graph.initializer.add(name=m.graph.input[1].name, data_type=TensorProto.FLOAT)
    tensor.CopyFrom(numpy_helper.from_array(numpy.zeros((1, 2, 3), numpy.float32), tensor.name))


# Tensors.


def with_weight(m, **fields):
    """Feeds the model's second input from an initializer."""
    value = m.graph.input[1]
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    tensor = numpy_helper.from_array(numpy.ones(dims, numpy.float32), value.name)
    for name, data in fields.items():
        tensor.ClearField(name)
        if isinstance(data, (list, tuple)):
            getattr(tensor, name).extend(data)
        elif data is not None:
            setattr(tensor, name, data)
    m.graph.initializer.append(tensor)
    return tensor


@mutation("conv", "a tensor without an element type")
def _(m):
    with_weight(m, data_type=None)


@mutation("conv", "a tensor of an undefined element type")
def _(m):
    with_weight(m, data_type=0)


@mutation("conv", "a tensor without a payload")
def _(m):
    with_weight(m, raw_data=None)


@mutation("conv", "a tensor of two payloads")
def _(m):
    with_weight(m, float_data=[1.0] * 9)


@mutation("conv", "a payload in the field of another type")
def _(m):
    with_weight(m, raw_data=None, int64_data=[1] * 9)


@mutation("conv", "raw data that is too short")
def _(m):
    with_weight(m, raw_data=b"\0" * 35)


@mutation("conv", "typed data that is too short")
def _(m):
    with_weight(m, raw_data=None, float_data=[1.0] * 8)


@mutation("conv", "strings as raw data")
def _(m):
    with_weight(m, data_type=TensorProto.STRING)


@mutation("conv", "dimensions whose product overflows")
def _(m):
    with_weight(m, dims=[2**40, 2**40])


@mutation("conv", "data in a tensor without elements")
def _(m):
    with_weight(m, dims=[0, 3])


def outside(location):
    def change(m):
        tensor = with_weight(m, raw_data=None)
        tensor.data_location = TensorProto.EXTERNAL
        if location is not None:
            tensor.external_data.add(key="location", value=location)
        return tensor

    return change


for name, location in {
    "no location of external data": None,
    "an empty location of external data": "",
    "an absolute location of external data": "/etc/hostname",
    "external data outside of the folder": "../weights.bin",
    "external data in a folder": "folder",
    "external data behind a symbolic link": "link",
    "external data that is not there": "absent.bin",
}.items():
    mutation("conv", name)(outside(location))


@mutation("conv", "external data and data inside")
def _(m):
    outside("weights.bin")(m).raw_data = b"\0" * 36


def sparse(m, dims=(3,), values=((1.0,), (1,)), indices=((2,), (1,)), dtype=numpy.int64):
    tensor = m.graph.sparse_initializer.add()
    tensor.dims.extend(dims)
    array = numpy.array(values[0], numpy.float32).reshape(values[1])
    tensor.values.CopyFrom(numpy_helper.from_array(array, "s"))
    if indices is not None:
        tensor.indices.CopyFrom(numpy_helper.from_array(numpy.array(indices[0], dtype).reshape(indices[1])))


for name, fields in {
    "a sparse tensor without indices": {"indices": None},
    "a sparse tensor without a shape": {"dims": ()},
    "a sparse tensor of a negative extent": {"dims": (-3,)},
    "sparse values of two axes": {"values": ((1.0,), (1, 1))},
    "a sparse index out of range": {"indices": ((3,), (1,))},
    "sparse indices that are out of order": {"values": ((1, 2), (2,)), "indices": ((2, 1), (2,))},
    "sparse coordinates out of range": {"dims": (2, 2), "indices": ((0, 2), (1, 2))},
    "sparse coordinates of another rank": {"dims": (2, 2), "indices": ((0, 1, 1), (1, 3))},
    "sparse indices of another number": {"indices": ((0, 1), (2,))},
    "sparse indices of 32 bits": {"dtype": numpy.int32},
}.items():
    mutation("sparse", name)(lambda m, fields=fields: sparse(m, **fields))


@mutation("sparse", "a sparse tensor without a name")
def _(m):
    sparse(m)
    m.graph.sparse_initializer[0].values.ClearField("name")


# Bodies.


@mutation("if", "a branch without a name")
def _(m):
    attribute(m.graph.node[0], "then_branch").g.ClearField("name")


@mutation("if", "a branch that reads what nobody writes")
def _(m):
    attribute(m.graph.node[0], "then_branch").g.node.insert(0, helper.make_node("Relu", ["nothing"], ["r"]))


@mutation("if", "a branch that writes a name of the graph around")
def _(m):
    branch = attribute(m.graph.node[0], "then_branch").g
    branch.node[0].output[0] = m.graph.input[0].name
    branch.output[0].name = m.graph.input[0].name


@mutation("if", "a branch whose output nobody writes")
def _(m):
    attribute(m.graph.node[0], "then_branch").g.output[0].name = "nothing"


@mutation("if", "a branch with one output too many")
def _(m):
    branch = attribute(m.graph.node[0], "then_branch").g
    branch.output.append(branch.output[0])


@mutation("if", "a branch with an unknown operator")
def _(m):
    attribute(m.graph.node[0], "else_branch").g.node[0].op_type = "Konstant"


@mutation("if", "a branch of another element type")
def _(m):
    branch = attribute(m.graph.node[0], "then_branch").g
    value = attribute(branch.node[0], "value").t
    value.CopyFrom(numpy_helper.from_array(numpy.ones(5, numpy.int64), value.name))
    branch.output[0].type.tensor_type.elem_type = TensorProto.INT64


@mutation("loop", "a state that changes its element type")
def _(m):
    body = attribute(m.graph.node[0], "body").g
    body.node.append(helper.make_node("Cast", [body.output[1].name], ["other"], to=TensorProto.DOUBLE))
    body.output[1].name = "other"
    body.output[1].type.tensor_type.elem_type = TensorProto.DOUBLE


@mutation("loop", "a body with one input too few")
def _(m):
    del attribute(m.graph.node[0], "body").g.input[2:]


@mutation("loop", "a body with one output too few")
def _(m):
    del attribute(m.graph.node[0], "body").g.output[2:]


@mutation("scan", "a body with one output too few")
def _(m):
    del attribute(m.graph.node[0], "body").g.output[1:]


# Functions.


@mutation("function", "a function without a name")
def _(m):
    m.functions[0].ClearField("name")


@mutation("function", "a function without a domain")
def _(m):
    m.functions[0].ClearField("domain")


@mutation("function", "a function twice")
def _(m):
    m.functions.append(m.functions[0])


@mutation("function", "an input of a function twice")
def _(m):
    m.functions[0].input.append("x")


@mutation("function", "an output of a function twice")
def _(m):
    m.functions[0].output.append("y")


@mutation("function", "an attribute of a function twice")
def _(m):
    m.functions[0].attribute.append("scale")


@mutation("function", "a function that calls itself")
def _(m):
    node = m.functions[1].node[0]
    node.op_type = "again"
    del node.attribute[:]


@mutation("function", "two functions that call each other")
def _(m):
    m.functions[0].node.append(helper.make_node("again", ["x"], ["z"], domain="local"))


@mutation("function", "a function that reads what it has no input for")
def _(m):
    m.functions[0].node[1].input[0] = "outside"


@mutation("function", "a function that writes a value twice")
def _(m):
    m.functions[0].node.append(helper.make_node("Relu", ["x"], ["y"]))


@mutation("function", "a function of an operator set that means something else")
def _(m):
    m.functions[0].opset_import[0].version = 6


@mutation("function", "a function without the operator set of its nodes")
def _(m):
    del m.functions[0].opset_import[0]


def mutants(cases, folder):
    """Writes every mutant; by file name what was done to which model, and those that onnx.checker accepts."""
    (folder / "folder").mkdir()
    (folder / "weights.bin").write_bytes(b"\0" * 36)
    (folder / "link").symlink_to("weights.bin")
    whats, accepted = {}, []
    for base, model in ((base, make(cases)) for base, make in BASES.items()):
        if error := refused(model):
            accepted.append(f"{base}: onnx.checker refuses it before any mutation: {error}")
    for number, (base, what, change) in enumerate(MUTATIONS):
        model = BASES[base](cases)
        change(model)
        name = f"{number:03}.onnx"
        (folder / name).write_bytes(model.SerializeToString())
        whats[name] = f"{base}: {what}"
        if refused(str(folder / name)) is None:
            accepted.append(f"{base}: {what}: onnx.checker accepts it, so it tests nothing")
    return whats, accepted


def accepts(emo, cases, folder):
    """What is refused without reason, and how many files were checked."""
    names = []
    for name, case in cases.items():
        if case.model is not None and refused(case.model) is None:
            (folder / f"{name}.onnx").write_bytes(case.model.SerializeToString())
            names.append(f"{name}.onnx")
    lights = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))
    documents, _ = check(emo, folder, [*names, *map(str, lights)])
    problems = [
        f"{name}: {e['code']}: {e['place']}: {e['message']}"
        for name, document in documents.items()
        if name.removesuffix(".onnx") not in ALLOWED
        for e in errors(document)
    ]
    undecided = [
        f"{name}: undecided"
        for name, document in documents.items()
        if document["verdict"] not in ("pass", "fail") and name.removesuffix(".onnx") not in ALLOWED
    ]
    _, code = check(emo, folder, [str(path) for path in lights])
    if code != 0:
        problems.append(f"the light models: expected exit code 0, found {code}")
    return problems + undecided, len(names), len(lights)


def refuses(emo, cases, folder):
    whats, problems = mutants(cases, folder)
    documents, code = check(emo, folder, list(whats))
    for name, what in whats.items():
        if not errors(documents[name]):
            reason = refused(str(folder / name))
            problems.append(f"{what}: accepted; onnx.checker says: {' '.join((reason or '').split())[:200]}")
    codes = {e["code"] for document in documents.values() for e in errors(document)}
    if code == 0:
        problems.append("the mutants: expected an exit code other than 0")
    return problems, len(whats), len(codes)


def freshness():
    """Facts of the package that are written down in the sources."""
    script = ROOT / "verifier" / "inspect" / "src" / "graph" / "schemas.py"
    run = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    print(run.stdout.strip() or run.stderr.strip())
    problems = [] if run.returncode == 0 else ["verifier/inspect/src/graph/schemas.txt is stale"]
    lowest = {}
    for _, ir, *versions in helper.VERSION_TABLE:
        for domain, version in zip(("ai.onnx", "ai.onnx.ml"), versions, strict=False):
            lowest.setdefault((domain, version), ir)
    source = (ROOT / "verifier" / "inspect" / "src" / "check" / "model.rs").read_text(encoding="utf-8")
    source = re.search(r"const LOWEST_IR.*?\n\];", source, re.DOTALL)[0]
    for domain in ("ai.onnx", "ai.onnx.ml"):
        part = re.search(rf'"{re.escape(domain)}",\s*&\[(.*?)\]', source, re.DOTALL)[1]
        rows = [tuple(map(int, pair)) for pair in re.findall(r"\((\d+), (\d+)\)", part)]
        for (of, version), ir in lowest.items():
            ours = next((ir for newest, ir in rows if version <= newest), None)
            if of == domain and ours != ir:
                problems.append(f"{domain} {version}: onnx came with IR version {ir}, ours says {ours}")
    return problems


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    emo = Path(sys.argv[1]).resolve()
    cases = {case.name: case for case in quiet(collect_testcases)}
    problems = freshness()
    with tempfile.TemporaryDirectory() as folder:
        found, operators, lights = accepts(emo, cases, Path(folder))
        problems += found
        print(f"{operators} operator cases and {lights} light models that onnx.checker accepts: {len(found)} refused")
    with tempfile.TemporaryDirectory() as folder:
        found, count, codes = refuses(emo, cases, Path(folder))
        problems += found
        print(f"{count} mutations that onnx.checker refuses: {len(found)} accepted; {codes} codes")
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore"
    sys.exit(main())
