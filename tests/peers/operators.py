"""Runs every line of verifier/inspect/src/graph/ops/cases.txt in ONNX Runtime and compares what comes out.

The lines are what the unit tests of the op table expect; this shows that they are true. An operator that ONNX
Runtime does not implement is listed in `ELSEWHERE` with who runs it. Then every operator that ONNX Runtime registers
must be known to `emo check`. Exit code 1 on a difference.

    python tests/peers/operators.py PATH/TO/emo
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

CASES = Path(__file__).parents[2] / "verifier" / "inspect" / "src" / "graph" / "ops" / "cases.txt"
TYPES = {
    "f": np.float32,
    "d": np.float64,
    "i": np.int64,
    "j": np.int32,
    "u": np.uint8,
    "b": np.int8,
    "t": np.bool_,
}
# Operators that ONNX Runtime has no kernel for: the onnx package's reference runs them.
ELSEWHERE = {"CausalConvWithState", "LinearAttention", "SwiGLU"}


def numbers(text, kind):
    return [kind(word) for word in text.strip("[]{}()").split(",") if word]


def operand(name, text):
    """A graph input, or a constant, and the array to feed."""
    dtype = np.dtype(TYPES[text[0]])
    onnx_type = helper.np_dtype_to_tensor_dtype(dtype)
    if text[1] == "[":
        shape = numbers(text[1:], int)
        # A scale of zero is refused.
        values = np.zeros(shape, dtype) if shape else np.ones(shape, dtype)
        return helper.make_tensor_value_info(name, onnx_type, shape), values
    values = np.array(numbers(text[1:], float), dtype)
    return numpy_helper.from_array(values.reshape(() if text[1] == "(" else -1), name), None


def value(text):
    if text.startswith('"'):
        return text.strip('"')
    if text.startswith('["'):
        return [word.strip('"') for word in text.strip("[]").split(",")]
    kind = float if "." in text else int
    return numbers(text, kind) if text.startswith("[") else kind(text)


def run(operator, opset, operands, attributes, outputs):
    domain, _, operator = operator.rpartition(":")
    names = [f"x{i}" if text != "-" else "" for i, text in enumerate(operands)]
    made = [operand(name, text) for name, text in zip(names, operands) if name]
    results = [f"y{i}" for i in range(len(outputs))]
    node = helper.make_node(operator, names, results, domain=domain)
    for text in attributes:
        name, _, given = text.partition("=")
        node.attribute.append(helper.make_attribute(name, value(given)))
    graph = helper.make_graph(
        [node],
        "case",
        [proto for proto, array in made if array is not None],
        [helper.make_empty_tensor_value_info(name) for name in results],
        [proto for proto, _ in made if isinstance(proto, TensorProto)],
    )
    opsets = [helper.make_opsetid(domain, int(opset))]
    if domain:
        opsets.append(helper.make_opsetid("", 17))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feeds = {proto.name: array for proto, array in made if array is not None}
    if operator in ELSEWHERE:
        return ReferenceEvaluator(model).run(None, feeds)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def unknown(emo):
    """Operators that ONNX Runtime registers in domains that files have, and emo does not know."""
    names = {(schema.domain, schema.name) for schema in get_all_operator_schema()}
    names = sorted(name for name in names if name[0] != "com.ms.internal.nhwc")
    nodes = [helper.make_node(name, [], [f"y{i}"], name, domain=domain) for i, (domain, name) in enumerate(names)]
    graph = helper.make_graph(nodes, "all", [], [])
    domains = sorted({domain for domain, _ in names} - {""})
    opsets = [helper.make_opsetid(domain, 1) for domain in domains] + [helper.make_opsetid("", onnx.defs.onnx_opset_version())]
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(helper.make_model(graph, opset_imports=opsets).SerializeToString())
        file.flush()
        done = subprocess.run([emo, "check", file.name, "--format", "json"], capture_output=True, text=True)
    findings = [f for f in json.loads(done.stdout)["findings"] if f["code"] == "unjudged-operator"]
    print(f"{len(names)} operators of ONNX Runtime, {len(findings)} unknown")
    return [f"unknown: {finding['place']}" for finding in findings]


def main():
    ort.set_default_logger_severity(4)
    lines = [line for line in CASES.read_text().splitlines() if line and not line.startswith("#")]
    wrong = []
    for line in lines:
        operator, opset, operands, attributes, outputs, _ = (part.strip() for part in line.split("|"))
        outputs = outputs.split()
        expected = [(np.dtype(TYPES[text[0]]), numbers(text[1:], int)) for text in outputs]
        try:
            found = run(operator, opset, operands.split(), attributes.split(), outputs)
        except Exception as error:
            wrong.append(f"{line}\n    {error}")
            continue
        found = [(array.dtype, list(array.shape)) for array in found]
        if found != expected:
            wrong.append(f"{line}\n    {found}")
    print(f"{len(lines)} nodes run, {len(wrong)} differences, onnx {onnx.__version__}, onnxruntime {ort.__version__}")
    wrong += unknown(sys.argv[1])
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
