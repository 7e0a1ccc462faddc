"""A model of a million nodes: `emo audit` and `emo check` beside `onnx.checker` and `onnx.shape_inference`, in one run.

    cargo build --release
    python3 -m venv target/counters && target/counters/bin/pip install -q -r tests/bench/counters.txt
    target/counters/bin/python tests/bench/scale.py target/release/emo [NODES]

Whole processes, in turn, medians; ratios are to `emo audit`, those of time by what the processors spent (`CPU`), which
other work on the machine moves least. The checker checks the structure alone, shape inference
infers shapes alone; `emo check` does both, and `emo audit` counts.
"""

import sys
import tempfile

from counters import measure, medians

ROUNDS = 3
TOOLS = {
    "onnx.checker": "import onnx, sys; onnx.checker.check_model(sys.argv[1])",
    "onnx.shape_inference": (
        "import onnx, sys; onnx.shape_inference.infer_shapes_path(sys.argv[1], sys.argv[1] + '.inferred')"
    ),
}
# In a process of its own: the kernel counts a parent's peak memory as its children's.
MAKE = """
import sys, onnx
from onnx import TensorProto, helper
path, count = sys.argv[1], int(sys.argv[2])
names = ["x", *(f"v{i}" for i in range(1, count)), "y"]
operators = ["Relu", "Add", "Sigmoid", "Mul", "Tanh"]
nodes = []
for i in range(count):
    operator = operators[i % 5]
    inputs = [names[i], names[max(i - 1, 0)]] if operator in ("Add", "Mul") else [names[i]]
    nodes.append(helper.make_node(operator, inputs, [names[i + 1]], name=f"n{i}"))
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy")
graph = helper.make_graph(nodes, "long", [x], [y])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
"""


def main(emo: str, nodes: str = "1000000") -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/long.onnx"
        measure([sys.executable, "-c", MAKE, path, nodes])
        tools = {"emo audit": [emo, "audit", path], "emo check": [emo, "check", path]}
        tools |= {tool: [sys.executable, "-c", code, path] for tool, code in TOOLS.items()}
        found = medians(tools, ROUNDS)
        base = found["emo audit"]
        print(f"{int(nodes):,} nodes\n{'':22}{'s':>8}{'CPU':>8}{'ratio':>8}{'MB':>10}{'ratio':>8}")
        for tool, (ms, cpu, mb) in found.items():
            print(f"{tool:22}{ms / 1e3:8.2f}{cpu / 1e3:8.2f}{cpu / base[1]:8.2f}{mb:10.1f}{mb / base[2]:8.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
