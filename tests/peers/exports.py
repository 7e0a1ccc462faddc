"""Peers on our exports: onnx.checker, strict shape inference, ONNX Runtime against the goldens.

    python exports.py EMO

Every target, model, opset, fixed and free batch, at every golden's size and at 224, 256 × 320 and 200 × 131;
where PyTorch left no golden, the truth is our reference profile's file. What a profile does not allow must be
refused. Then float16 files and files that take images.
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
MODELS = ("emo-1m", "emo-2m", "emo-5m", "emo-6m")
# What a golden's model is called here, where that is another name than PyTorch's.
NAMES = {
    "deit_tiny_patch16_224": "deit-tiny",
    "emo-nano": str(GOLDENS.parent / "emo-nano.toml"),
}
# Side of the windows where a golden or a request says nothing else.
WINDOW = 7
SIZES = ((224, 224), (256, 320), (200, 131))
OPSETS = ("17", "20")
BATCHES = ("1", "dynamic")
TOLERANCE = 2e-6
HIGHEST_RANK = 4
SQNR_DB = 50.0
# ImageNet's, by which the published models' images are normalised.
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Exporter:
    def __init__(self, emo: str, folder: str):
        self.emo, self.path, self.refused = emo, f"{folder}/model.onnx", 0

    def __call__(self, model: str, profile: str, size: tuple, *arguments: str):
        """A session of the file, or nothing where the profile does not allow it and says what works."""
        command = [self.emo, "export", model, "--target", profile, "--size", f"{size[0]}x{size[1]}", *arguments]
        run = subprocess.run([*command, "--no-verify", "-o", self.path], capture_output=True, text=True)
        if run.returncode == 2:
            assert profile in run.stderr, f"{' '.join(command)}: {run.stderr}"
            self.refused += 1
            return None
        assert run.returncode == 0, f"{' '.join(command)}: {run.stderr}"
        check(self.path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])


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


def goldens() -> dict:
    """By model, size and window of the classifiers: inputs and PyTorch's logits, a pair a batch size."""
    found = {}
    for path in sorted(GOLDENS.glob("*.json")):
        golden = json.loads(path.read_text())
        if "logits" not in golden:
            continue
        batch, _, *size = golden["input"]
        truth = np.array(golden["logits"]).reshape(batch, -1)
        model = NAMES.get(golden["model"], golden["model"].replace("_", "-"))
        key = model, tuple(size), golden.get("window", WINDOW)
        found.setdefault(key, []).append((network_input(golden["input"]), truth))
    return found


def grid(export: Exporter, profiles: list) -> None:
    known = goldens()
    files = runs = 0
    worst = 0.0
    for model, size, window in sorted({*known, *itertools.product(MODELS, SIZES, [WINDOW])}):
        pairs = known.get((model, size, window))
        windows = [] if window == WINDOW else ["--window", str(window)]
        if not pairs:
            images = network_input([1, 3, *size])
            pairs = [(images, export(model, "reference", size).run(None, {"input": images})[0])]
        for profile, opset, batch in itertools.product(profiles, OPSETS, BATCHES):
            session = export(model, profile, size, *windows, "--opset", opset, "--batch", batch)
            if session is None:
                continue
            files += 1
            # A free batch also runs three times the images.
            for (images, truth), repeat in itertools.product(pairs, (1, 3) if batch == "dynamic" else (1,)):
                if batch == "1" and len(images) > 1:
                    continue
                images, truth = np.tile(images, (repeat, 1, 1, 1)), np.tile(truth, (repeat, 1))
                (logits,) = session.run(["logits"], {"input": images})
                error = np.abs(logits - truth).max() / np.abs(truth).max()
                place = f"{model} {size} {profile} opset {opset} batch {batch}"
                assert np.isfinite(error) and error <= TOLERANCE, f"{place}: {error:.1e} of the largest"
                worst = max(worst, error)
                runs += 1
    print(f"{files} exports accepted by onnx, {runs} runs in ONNX Runtime within {TOLERANCE:.0e}: worst {worst:.1e}")


def half(export: Exporter, profiles: list) -> None:
    size = (224, 224)
    inputs = [network_input([1, 3, *size], seed) for seed in range(4)]
    files, lowest = 0, np.inf
    for model in (*MODELS, "emo2-1m", "mobilenetv2-100", "deit-tiny"):
        reference = export(model, "reference", size)
        truths = [reference.run(None, {"input": images})[0].astype(np.float64) for images in inputs]
        for profile in profiles:
            session = export(model, profile, size, "--dtype", "f16")
            if session is None:
                continue
            files += 1
            for images, truth in zip(inputs, truths):
                logits = session.run(None, {"input": images})[0]
                sqnr = 10 * np.log10((truth**2).sum() / ((logits - truth) ** 2).sum())
                assert sqnr > SQNR_DB, f"{model} {profile} f16: {sqnr:.1f} dB"
                assert logits.argmax() == truth.argmax(), f"{model} {profile} f16: another top-1"
                lowest = min(lowest, sqnr)
    print(f"{files} float16 files load and agree on top-1, SQNR from {lowest:.1f} dB")


def images(export: Exporter, profiles: list) -> None:
    size = (96, 160)
    bytes_ = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    bytes_[:, 0], bytes_[:, -1], bytes_[:, :, 0], bytes_[:, :, -1] = 0, 255, 255, 0
    normal = ((bytes_ / 255.0 - MEAN) / DEVIATION).transpose(0, 3, 1, 2).astype(np.float32)
    files, worst = 0, 0.0
    for model in (*MODELS, "emo2-1m", "mobilenetv2-100"):
        truth = export(model, "reference", size).run(None, {"input": normal})[0]
        for profile in profiles:
            session = export(model, profile, size, "--image-input")
            if session is None:
                continue
            files += 1
            error = np.abs(session.run(None, {"image": bytes_})[0] - truth).max() / np.abs(truth).max()
            assert error <= TOLERANCE, f"{model} {profile} of images: {error:.1e}"
            worst = max(worst, error)
    print(f"{files} files take images of bytes: worst {worst:.1e}")


def main(emo: str) -> None:
    listed = subprocess.run([emo, "profiles", "--format", "json"], check=True, capture_output=True, text=True)
    profiles = [profile["name"] for profile in json.loads(listed.stdout)]
    with tempfile.TemporaryDirectory() as folder:
        export = Exporter(emo, folder)
        grid(export, profiles)
        half(export, profiles)
        images(export, profiles)
        print(f"{export.refused} requests refused by their profiles")


if __name__ == "__main__":
    main(*sys.argv[1:])
