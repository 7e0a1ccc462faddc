"""ONNX Runtime's mobile usability checker on our profiles and on other people's files.

    python mobile.py EMO

CoreML's ML Program must take `coreml` and `portable`, NNAPI must take `nnapi`: YES, one partition, every node,
all four variants at 224, opset 17 and 20. Prints the table; other toolchains' files are shown
beside ours where they are at hand.
"""

import pathlib
import subprocess
import sys
import tempfile

from onnxruntime.tools.mobile_helpers import usability_checker as checker
from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo, optimize_model

THIRD_PARTY = pathlib.Path(__file__).parent.parent.parent.parent / "shared" / "third_party"
MODELS = ("emo-1m", "emo-2m", "emo-5m", "emo-6m")
OPSETS = ("17", "20")
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


def show(name: str, found: dict) -> None:
    cells = [f"{verdict} {parts} ({taken}/{nodes})" for verdict, parts, taken, nodes in found.values()]
    print(f"{name:40}" + "".join(f"{cell:24}" for cell in cells).rstrip())


def main(emo: str) -> int:
    print(f"{'verdict, partitions, nodes taken':40}" + "".join(f"{name:24}" for name in PROVIDERS).rstrip())
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        for model in MODELS:
            for profile, provider in PROMISED.items():
                for opset in OPSETS:
                    command = [emo, "export", model, "--target", profile, "--opset", opset, "--no-verify"]
                    subprocess.run([*command, "-o", str(path)], check=True, stdout=subprocess.DEVNULL)
                    found = verdicts(path, folder)
                    show(f"{model} {profile} opset {opset}", found)
                    verdict, parts, taken, nodes = found[provider]
                    if (verdict, parts, taken) != ("YES", 1, nodes):
                        failures.append(f"{model} {profile} opset {opset}: {provider} {found[provider]}")
        for path in sorted(THIRD_PARTY.glob("*.onnx")):
            show(path.name, verdicts(path, folder))
    print("\n".join(failures) or "every promise holds")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
