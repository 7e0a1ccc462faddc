"""ONNX Runtime's mobile usability checker on our profiles and on other people's files.

    python mobile.py EMO [THIRD_PARTY_FOLDER]

CoreML's ML Program must take `coreml` and `portable`, NNAPI must take `nnapi`: YES, one partition, every node,
all four variants at 224. Prints the table; files of others are shown beside ours.
"""

import pathlib
import subprocess
import sys
import tempfile

from onnxruntime.tools.mobile_helpers import usability_checker as checker
from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo, optimize_model

MODELS = ("emo-1m", "emo-2m", "emo-5m", "emo-6m")
PROVIDERS = {
    "NNAPI": lambda model: checker.check_nnapi_partitions(model, True),
    "NeuralNetwork": lambda model: checker.check_coreml_partitions(
        model, True, "coreml_supported_neuralnetwork_ops.md"
    ),
    "MLProgram": lambda model: checker.check_coreml_partitions(model, True, "coreml_supported_mlprogram_ops.md"),
}
PROMISED = {"coreml": "MLProgram", "portable": "MLProgram", "nnapi": "NNAPI"}


def verdicts(path: pathlib.Path, folder: str) -> dict:
    """Of each provider: the verdict, partitions, nodes taken, nodes; after basic optimisation, as the tool does."""
    optimised = pathlib.Path(folder) / "optimised.onnx"
    optimize_model(path, optimised, use_external_initializers=True)
    model = ModelProtoWithShapeInfo(optimised).model_with_shape_info
    found = {}
    for name, check in PROVIDERS.items():
        info = check(model)
        found[name] = info.suitability().name, info.num_partitions, info.num_supported_nodes, info.num_nodes
    return found


def show(name: str, found: dict) -> None:
    cells = [f"{verdict} {parts} ({taken}/{nodes})" for verdict, parts, taken, nodes in found.values()]
    print(f"{name:40}" + "".join(f"{cell:24}" for cell in cells))


def main(emo: str, others: str = "") -> int:
    print(f"{'verdict, partitions, nodes taken':40}" + "".join(f"{name:24}" for name in PROVIDERS))
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            for profile, provider in PROMISED.items():
                path = pathlib.Path(folder) / "model.onnx"
                command = [emo, "export", model, "--profile", profile, "--no-verify", "-o", str(path)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                found = verdicts(path, folder)
                show(f"{model} {profile}", found)
                verdict, parts, taken, nodes = found[provider]
                if (verdict, parts, taken) != ("YES", 1, nodes):
                    failures.append(f"{model} {profile}: {provider} {found[provider]}")
        for path in sorted(pathlib.Path(others).glob("emo_*.onnx")) if others else []:
            show(path.name, verdicts(path, folder))
    print("\n".join(failures) or "every promise holds")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
