"""Compares `emo audit`'s multiply-adds with those of a run in ONNX Runtime.

ONNX Runtime runs each model with profiling on and its optimiser off; the shapes that the profile reports
for every convolution, matrix product and recurrent cell are multiplied out here. Models: the light ones of
the `onnx` package, EMO as `emo export` writes it, and the files of the PyPI packages nudenet,
rapidocr-onnxruntime, silero-vad and magika (installed without their dependencies). Every file must audit
whole: nothing uncounted.

    python tests/peers/macs.py PATH/TO/emo
"""

import importlib.util
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"

# Package, file in it, extents of its inputs. Scalars that decide a branch have their value.
FILES = [
    ("nudenet", "320n.onnx", {"images": [1, 3, 320, 320]}),
    ("nudenet", "320n.onnx", {"images": [2, 3, 416, 256]}),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": [1, 3, 640, 640]}),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"x": [1, 3, 48, 320]}),
    ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": [1, 3, 48, 192]}),
    ("silero_vad", "data/silero_vad.onnx", {"input": [1, 576], "state": [2, 1, 128], "sr": 16000}),
    ("silero_vad", "data/silero_vad_16k_op15.onnx", {"input": [1, 576], "state": [2, 1, 128], "sr": 16000}),
    ("silero_vad", "data/silero_vad_half.onnx", {"input": [1, 576], "state": [2, 1, 128]}),
    ("silero_vad", "data/silero_vad_16k_sequence.onnx", {"input": [7, 576], "h": [1, 1, 128], "c": [1, 1, 128]}),
    ("silero_vad", "data/silero_vad_op18_ifless.onnx", {"input": [1, 576], "state": [2, 1, 128], "sr": 16000}),
    ("silero_vad", "data/silero_vad_openvino_16k.onnx", {"input": [1, 576], "state": [2, 1, 128]}),
    ("magika", "models/standard_v3_3/model.onnx", {"bytes": [3, 2048]}),
]

NUMPY = {"float": np.float32, "float16": np.float16, "int64": np.int64, "int32": np.int32}


def product(shape):
    return math.prod(shape)


def conv(x, weight, out):
    return product(out) * product(weight[1:])


def conv_transpose(x, weight, out):
    return product(x) * product(weight[1:])


def gemm(a, b, out):
    # M·K, K·N and M·N multiply to the square of M·K·N, whatever is transposed.
    return math.isqrt(product(a) * product(b) * product(out))


def matmul(a, b, out):
    return product(out) * a[-1]


def cell(x, weight, recurrent, out):
    # [directions, gates·hidden, inputs or hidden], once for every step of every sequence.
    return x[0] * x[1] * (product(weight) + product(recurrent))


RULES = {
    "Conv": (conv, 2),
    "ConvTranspose": (conv_transpose, 2),
    "Gemm": (gemm, 2),
    "MatMul": (matmul, 2),
    "LSTM": (cell, 3),
    "GRU": (cell, 3),
    "RNN": (cell, 3),
}
# These multiply, too: a model with one of them needs a rule above.
OTHERS = {"Einsum", "Attention", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DeformConv"}


def run(path, shapes, folder):
    """Multiply-adds by operator, from the profile of one run."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # A packed weight has no shape in the profile.
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {}
    for node in session.get_inputs():
        dtype = NUMPY[node.type.removeprefix("tensor(").removesuffix(")")]
        given = shapes.get(node.name, node.shape)
        feeds[node.name] = np.zeros(given, dtype) if isinstance(given, list) else np.array(given, dtype)
    session.run(None, feeds)
    counts = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        details = event.get("args", {})
        if event.get("cat") != "Node" or "input_type_shape" not in details:
            continue
        operator = details["op_name"]
        if operator in OTHERS:
            sys.exit(f"{path}: {operator} has no rule here")
        if operator in RULES:
            rule, operands = RULES[operator]
            inputs = [shape for typed in details["input_type_shape"] for shape in typed.values()]
            outputs = [shape for typed in details["output_type_shape"] for shape in typed.values()]
            counts[operator] += rule(*inputs[:operands], outputs[0])
    return counts


def audit(emo, path, shapes):
    """The multiply-adds that `emo audit` counts, and what it could not count."""
    command = [emo, "audit", str(path), "--format", "json"]
    for name, shape in shapes.items():
        if isinstance(shape, list):
            command += ["--input", f"{name}={','.join(map(str, shape))}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    found = found["files"][0] if "files" in found else found
    return found["totals"]["macs"], found["uncounted"]


def models(emo, folder):
    """Name, path and input extents of each model."""
    for path in sorted(LIGHT.glob("light_*.onnx")):
        yield path.stem, path, {}
    for variant in ("emo-1m", "emo-2m", "emo-5m", "emo-6m"):
        for profile in ("reference", "portable"):
            path = folder / f"{variant}_{profile}.onnx"
            options = ["--target", profile, "--batch", "dynamic", "--no-verify", "--out", str(path)]
            subprocess.run([emo, "export", variant, *options], check=True, capture_output=True)
            (name,) = [node.name for node in onnx.load(path, load_external_data=False).graph.input]
            yield path.stem, path, {name: [2, 3, 224, 224]}
    for package, file, shapes in FILES:
        path = Path(importlib.util.find_spec(package).submodule_search_locations[0]) / file
        size = "x".join(map(str, next(iter(shapes.values()))))
        yield f"{path.stem} {size}", path, shapes


def main():
    emo = sys.argv[1]
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path, shapes in models(emo, Path(folder)):
            expected = run(str(path), shapes, Path(folder))
            counted, uncounted = audit(emo, path, shapes)
            total = sum(expected.values())
            by_operator = ", ".join(f"{operator} {count:,}" for operator, count in sorted(expected.items()))
            print(f"{name:45} {total:>14,} = {by_operator}")
            if counted != total:
                wrong.append(f"{name}: ONNX Runtime's shapes make {total:,} multiply-adds, emo counts {counted}")
            wrong += [f"{name}: not counted: {item}" for item in uncounted]
    print(f"{len(wrong)} differences")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
