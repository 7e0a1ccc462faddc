"""Detectors and segmenters in ONNX Runtime, against PyTorch's goldens.

    python dense.py EMO [TARGET…]

Every golden of `../shared/goldens`, raw and decoded, for every target (or those that are named), each output to 5e-6 of
its largest value, each file through onnx.checker's full check. `decoding.py` holds boxes and what is kept of them to
mmdetection; `grid.py` writes every model.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from formula import network_input

GOLDENS = pathlib.Path(__file__).parent.parent.parent.parent / "shared" / "goldens"
HEADS = ("ssdlite", "retinanet", "deeplabv3", "pspnet", "semantic_fpn", "segformer", "decoded")
TOLERANCE = 5e-6


def targets(emo: str) -> list[str]:
    run = subprocess.run([emo, "targets", "--format", "json"], check=True, capture_output=True, text=True)
    return [target["name"] for target in json.loads(run.stdout)]


def export(emo: str, path: pathlib.Path, model: str, target: str, size, *arguments: str) -> str:
    """Why the target does not take it; nothing where it does."""
    command = [emo, "export", model, "--target", target, "--size", f"{size[0]}x{size[1]}", "--no-verify"]
    run = subprocess.run([*command, "-o", str(path), *arguments], capture_output=True, text=True)
    if run.returncode == 0:
        onnx.checker.check_model(onnx.load(path), full_check=True)
    return "" if run.returncode == 0 else run.stderr.strip()


def run(path: pathlib.Path, size) -> list:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: network_input((1, 3, *size))})


def worst(values: list, outputs: list) -> float:
    """The largest error of any output, as a share of its largest value."""
    errors = []
    for value, golden in zip(values, outputs, strict=True):
        assert list(value.shape) == golden["shape"], f"{golden['name']}: {value.shape}"
        samples = value.reshape(-1)[:: golden["stride"]].astype(np.float64)
        errors.append(np.abs(samples - golden["samples"]).max() / golden["abs_max"])
    return max(errors)


def main(emo: str, *names: str) -> int:
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        for target in names or targets(emo):
            for file in sorted(GOLDENS.glob("*.json")):
                if not file.name.startswith(HEADS):
                    continue
                golden = json.loads(file.read_text())
                size, model = golden["input"][2:], golden["model"].replace("_", "-")
                arguments = ("--output", "decoded") if file.name.startswith("decoded") else ()
                name = f"{file.stem} {target}"
                if why := export(emo, path, model, target, size, *arguments):
                    print(f"{name}: {why}")
                    failures.append(name)
                    continue
                error = worst(run(path, size), golden["outputs"])
                print(f"{name}: {error:.1e}")
                if not error <= TOLERANCE:
                    failures.append(name)
    print(f"failures: {failures}" if failures else "every golden holds")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
