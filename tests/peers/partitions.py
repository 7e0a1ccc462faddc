"""The partitions that `emo lint` cuts a file into, against ONNX Runtime's own partitioning.

    python partitions.py EMO

1. Random graphs, and every real file (of every profile, and detectors and segmenters of three) against every profile: the nodes that a row leaves out are given to
   ONNX Runtime's partitioning as unsupported, and its partitions must have the sizes of our partitions.
2. `coreml` and `nnapi` against the mobile usability checker, which reads a table of operators: the nodes that
   one of the two leaves out and the other takes, each with the rule that it breaks. A difference that the
   profile's notes do not explain fails.
"""

import collections
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import onnx
from onnx import TensorProto, helper
from onnxruntime.tools.mobile_helpers import usability_checker as checker
from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo

from mobile import PROVIDERS, THIRD_PARTY, optimised

OURS = {"NNAPI": "nnapi", "MLProgram": "coreml"}
# What we leave out and the checker takes: it reads operators, the ranks of operands (CoreML) and free shapes.
STRICTER = {
    ("NNAPI", "lint-rank"),
    ("NNAPI", "lint-condition"),
    ("NNAPI", "lint-dtype"),
    ("MLProgram", "lint-rank"),
    ("MLProgram", "lint-condition"),
}

GRAPHS = 300
# What is written for `portable`, `coreml` and `nnapi` beside EMO-1M: outputs of every head.
DENSE = {
    "ssdlite-emo-1m": ("raw", "decoded"),
    "retinanet-emo-1m": ("raw",),
    "deeplabv3-emo2-1m": ("logits-small", "logits"),
    "pspnet-emo-1m": ("logits-small",),
    "semantic-fpn-emo2-1m": ("logits-small", "logits"),
    "segformer-emo2-1m": ("logits-small", "logits"),
}
DENSE_PROFILES = ("portable", "coreml", "nnapi")

failures = []


def label(node):
    return node.name or f"{node.op_type}({node.output[0] if node.output else ''})"


def lint(emo, path, profiles):
    command = [emo, "lint", str(path), "--target", ",".join(profiles), "--format", "json"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"{command}: {done.stderr.decode()}")
    documents = json.loads(done.stdout)
    return documents if isinstance(documents, list) else [documents]


class Given:
    """Stands in for the checker's table: everything is supported but what is named."""

    def __init__(self, outside):
        self.outside = set(outside)

    def is_op_supported(self, node):
        return label(node) not in self.outside


def without_constants(graph):
    """The graph without the nodes that constants alone decide, and how many they were."""
    kept = onnx.GraphProto()
    kept.CopyFrom(graph)
    known = {tensor.name for tensor in graph.initializer} | {""}
    del kept.node[:]
    for node in graph.node:
        if all(name in known for name in node.input):
            known.update(node.output)
            kept.initializer.extend(TensorProto(name=name) for name in node.output)
        else:
            kept.node.append(node)
    return kept, len(graph.node) - len(kept.node)


def misread(provider, node):
    """Whether the checker leaves a node out that the provider takes: its table has a name that no operator has,
    and an operand that is left out counts as one of free shape."""
    return (provider, node.op_type) == ("MLProgram", "ArgMax") or "" in node.input


def same_partitions(name, graph, document):
    graph, folded = without_constants(graph)
    if folded != document["folded"]:
        failures.append(f"{name} {document['profile']}: {document['folded']} nodes folded, not {folded}")
    info = checker.check_partitioning(graph, Given(document["outside"]), False)
    theirs = [len(group) for group in info.supported_groups]
    if theirs != document["partitions"]:
        failures.append(f"{name} {document['profile']}: ours {document['partitions']}, theirs {theirs}")


def random_graph(seed):
    """Nodes of one to three operands of one shape; CoreML has no Sign, Mod and Sum."""
    dice = random.Random(seed)
    values, nodes = ["x"], []
    for i in range(dice.randint(1, 60)):
        operators = dice.choice([("Relu", "Sign"), ("Add", "Mod"), ("Max", "Sum")])
        operator = operators[dice.random() < 0.3]
        operands = [dice.choice(values[-8:]) for _ in range({"Relu": 1, "Sign": 1, "Max": 3, "Sum": 3}.get(operator, 2))]
        attributes = {"fmod": 1} if operator == "Mod" else {}
        nodes.append(helper.make_node(operator, operands, [f"v{i}"], name=f"n{i}", **attributes))
        values.append(f"v{i}")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])]
    outputs = [helper.make_tensor_value_info(values[-1], TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "net", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def compare(emo, name, path, profiles, folder):
    """Partitions of the optimised file under every profile; a row of the table for the checker's two."""
    target = optimised(path, folder)
    model = ModelProtoWithShapeInfo(target).model_with_shape_info
    raw = {document["profile"]: document for document in lint(emo, path, OURS.values())}
    documents = {document["profile"]: document for document in lint(emo, target, profiles)}
    for document in documents.values():
        same_partitions(name, model.graph, document)
    cells = []
    for provider, profile in OURS.items():
        info, document = PROVIDERS[provider](model), documents[profile]
        groups = {label(node) for group in info.supported_groups for node in group}
        nodes = {label(node): node for node in without_constants(model.graph)[0].node}
        outside, theirs = set(document["outside"]), nodes.keys() - groups
        codes = collections.defaultdict(set)
        for finding in document["findings"]:
            codes[finding["place"]].add(finding["code"])
        why = collections.Counter()
        for node in outside - theirs:
            found = codes[f'node "{node}" ({nodes[node].op_type})'] & {code for p, code in STRICTER if p == provider}
            if not found:
                failures.append(f"{name} {provider}: {node} ({nodes[node].op_type}) is taken by the checker alone")
            why.update(f"{nodes[node].op_type} {code}" for code in found)
        for node in theirs - outside:
            if not misread(provider, nodes[node]):
                failures.append(f"{name} {provider}: {node} ({nodes[node].op_type}) is taken by us alone")
        partitions = f"{len(raw[profile]['partitions'])} as it is"
        cells.append((provider, info.num_partitions, len(document["partitions"]), partitions, dict(why)))
    for provider, theirs, ours, partitions, why in cells:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(why.items()))
        print(f"{name:46} {provider:10} checker {theirs:3}  emo lint {ours:3} ({partitions})  {reasons}".rstrip())
        name = ""


def main(emo):
    emo = str(pathlib.Path(emo).resolve())
    done = subprocess.run([emo, "profiles", "--format", "json"], capture_output=True, check=True)
    profiles = [profile["name"] for profile in json.loads(done.stdout)]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        sizes = collections.Counter()
        for seed in range(GRAPHS):
            model = random_graph(seed)
            onnx.save(model, path)
            (document,) = lint(emo, path, ["coreml"])
            sizes[len(document["partitions"])] += 1
            same_partitions(f"random graph {seed}", model.graph, document)
        print(f"{GRAPHS} random graphs, by partitions: {dict(sorted(sizes.items()))}")
        files = [("emo-1m", profile) for profile in profiles]
        outputs = [(model, output) for model, outputs in DENSE.items() for output in outputs]
        files += [(*row, profile) for row in outputs for profile in DENSE_PROFILES]
        for model, *output, profile in files:
            command = [emo, "export", model, "--target", profile, "--no-verify", "-o", str(path)]
            command += ["--output", *output] if output else []
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            compare(emo, " ".join((model, *output, profile)), path, profiles, folder)
        for path in sorted(THIRD_PARTY.glob("*.onnx")):
            compare(emo, path.stem, path, profiles, folder)
    print("\n".join(failures) or "the same partitions everywhere, every difference explained")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
