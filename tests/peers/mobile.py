"""ONNX Runtime's mobile usability checker on our profiles and on other people's files.

    python mobile.py EMO

CoreML's ML Program must take `coreml` and `portable`, NNAPI must take `nnapi`: YES, one partition, every node,
all four variants at 224, opset 17 and 20, and detectors and segmenters at their published sizes, what their last layers
give; `emo lint` must say the same of the file. Prints the table; other toolchains' files are shown beside ours where
they are at hand.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from onnxruntime.tools.mobile_helpers import usability_checker as checker
from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo, optimize_model

THIRD_PARTY = pathlib.Path(__file__).parent.parent.parent.parent / "shared" / "third_party"
MODELS = ("emo-1m", "emo-2m", "emo-5m", "emo-6m")
OPSETS = ("17", "20")
# Heads, and backbones: windows of every side (7, 10, 16) that are whole or padded.
HEADS = dict.fromkeys(("ssdlite", "retinanet"), "raw")
HEADS |= dict.fromkeys(("deeplabv3", "pspnet", "semantic-fpn", "segformer"), "logits-small")
BACKBONES = ("emo-1m", "emo-5m", "emo2-1m", "emo2-5m")
PROVIDERS = {
    "NNAPI": lambda model: checker.check_nnapi_partitions(model, True),
    "NeuralNetwork": lambda model: checker.check_coreml_partitions(
        model, True, "coreml_supported_neuralnetwork_ops.md"
    ),
    "MLProgram": lambda model: checker.check_coreml_partitions(model, True, "coreml_supported_mlprogram_ops.md"),
}
PROMISED = {"coreml": "MLProgram", "portable": "MLProgram", "nnapi": "NNAPI"}


def optimised(path: pathlib.Path, folder: str) -> pathlib.Path:
    """The file after ONNX Runtime's basic optimisation, on which the tool counts."""
    target = pathlib.Path(folder) / "optimised.onnx"
    optimize_model(path, target, use_external_initializers=True)
    return target


def verdicts(path: pathlib.Path, folder: str) -> dict:
    """Of each provider: the verdict, partitions, nodes taken, nodes."""
    model = ModelProtoWithShapeInfo(optimised(path, folder)).model_with_shape_info
    found = {}
    for name, check in PROVIDERS.items():
        info = check(model)
        found[name] = info.suitability().name, info.num_partitions, info.num_supported_nodes, info.num_nodes
    return found


def rows(emo: str):
    """Every model with the arguments of its export."""
    for model in MODELS:
        for opset in OPSETS:
            yield model, ("--opset", opset)
    told = subprocess.run([emo, "list", "--format", "json"], check=True, capture_output=True, text=True)
    dense = {row["model"] for row in json.loads(told.stdout)["dense"]}
    for head, output in HEADS.items():
        for backbone in BACKBONES:
            if f"{head}-{backbone}" in dense:
                yield f"{head}-{backbone}", ("--output", output)
    yield "ssdlite-emo2-1m", ("--output", "raw", "--size", "512")


def lint(emo: str, path: pathlib.Path, profile: str) -> tuple:
    """Whether every rule holds, and how many partitions there are."""
    command = [emo, "lint", str(path), "--target", profile, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0, len(json.loads(done.stdout)["partitions"])


def show(name: str, found: dict) -> None:
    cells = [f"{verdict} {parts} ({taken}/{nodes})" for verdict, parts, taken, nodes in found.values()]
    print(f"{name:46}" + "".join(f"{cell:24}" for cell in cells).rstrip())


def main(emo: str) -> int:
    print(f"{'verdict, partitions, nodes taken':46}" + "".join(f"{name:24}" for name in PROVIDERS).rstrip())
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        for model, arguments in rows(emo):
            for profile, provider in PROMISED.items():
                command = [emo, "export", model, "--target", profile, *arguments, "--no-verify"]
                subprocess.run([*command, "-o", str(path)], check=True, stdout=subprocess.DEVNULL)
                found, name = verdicts(path, folder), " ".join((model, profile, *arguments[1::2]))
                show(name, found)
                verdict, parts, taken, nodes = found[provider]
                if (verdict, parts, taken) != ("YES", 1, nodes):
                    failures.append(f"{name}: {provider} {found[provider]}")
                if (linted := lint(emo, path, profile)) != (True, 1):
                    failures.append(f"{name}: emo lint {linted}")
        for path in sorted(THIRD_PARTY.glob("*.onnx")):
            show(path.name, verdicts(path, folder))
    print("\n".join(failures) or "every promise holds")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
