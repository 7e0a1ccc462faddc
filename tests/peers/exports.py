"""Peers on our exports: onnx.checker, strict shape inference, ONNX Runtime against the goldens.

    python exports.py EMO

Every classification golden, both profiles, opsets 17 and 20, fixed and dynamic batch.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

from formula import network_input

GOLDENS = pathlib.Path(__file__).parent.parent / "data" / "goldens"
TOLERANCE = 2e-6
HIGHEST_RANK = 4


def export(emo: str, folder: str, *arguments: str) -> str:
    path = f"{folder}/model.onnx"
    subprocess.run([emo, "export", *arguments, "--no-verify", "-o", path], check=True, stdout=subprocess.DEVNULL)
    return path


def check(path: str) -> None:
    """Accepts the file as onnx does, with strict inference; no tensor has a higher rank than all runtimes take."""
    onnx.checker.check_model(path, full_check=True)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True, data_prop=True)
    written = {name for node in model.graph.node for name in node.output}
    inferred = {value.name: value for value in [*model.graph.value_info, *model.graph.output]}
    missing = written - inferred.keys()
    assert not missing, f"onnx infers no shape for {sorted(missing)[:3]}"
    for value in inferred.values():
        rank = len(value.type.tensor_type.shape.dim)
        assert rank <= HIGHEST_RANK, f"{value.name} has rank {rank}"


def main(emo: str) -> None:
    goldens = [json.loads(path.read_text()) for path in sorted(GOLDENS.glob("*.json"))]
    # A file with a free batch runs every golden of its model and size.
    groups = {}
    for golden in goldens:
        groups.setdefault((golden["model"], *golden["input"][2:]), []).append(golden)
    files = runs = 0
    worst = 0.0
    for (model, height, width), group in groups.items():
        for profile in ("reference", "portable"):
            for opset in ("17", "20"):
                batches = {str(golden["input"][0]): [golden] for golden in group} | {"dynamic": group}
                for batch, checked in batches.items():
                    with tempfile.TemporaryDirectory() as folder:
                        path = export(
                            emo, folder, model.replace("_", "-"), "--size", f"{height}x{width}",
                            "--profile", profile, "--opset", opset, "--batch", batch,
                        )
                        check(path)
                        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                    files += 1
                    # A free batch also runs three times the golden's images.
                    repeats = (1, 3) if batch == "dynamic" else (1,)
                    for golden, repeat in itertools.product(checked, repeats):
                        images = np.tile(network_input(golden["input"]), (repeat, 1, 1, 1))
                        (logits,) = session.run(["logits"], {"input": images})
                        truth = np.tile(np.array(golden["logits"]).reshape(golden["input"][0], -1), (repeat, 1))
                        error = np.abs(logits - truth).max() / np.abs(truth).max()
                        place = f"{model} {height}x{width} {profile} opset {opset} batch {batch}"
                        assert np.isfinite(error) and error <= TOLERANCE, f"{place}: {error:.1e} of the largest"
                        worst = max(worst, error)
                        runs += 1
    print(f"{files} exports accepted by onnx, {runs} runs in ONNX Runtime within {TOLERANCE:.0e}: worst {worst:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
