"""Peers on the verdict: files that other people's tools rewrote, models that are no EMO, two engines.

    python verify.py EMO

Our reference exports of every variant through onnxsim, onnxslim and ONNX Runtime's float16 converter, and the
right third-party files, all pass with and without the weights, in tract and in ONNX Runtime; the wrong ones fail
with the same block and cause in both; models out of Python packages are told apart.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import onnx
import onnxruntime
import onnxsim
import onnxslim
from onnxruntime.transformers.float16 import convert_float_to_float16

THIRD_PARTY = pathlib.Path(__file__).parent.parent.parent.parent / "shared" / "third_party"
MODELS = ("emo-1m", "emo-2m", "emo-5m", "emo-6m")
WEIGHTS = ("--weights", "formula:0")
# Package, path in it, what it is.
PACKAGES = (
    ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", "MobileNetV3"),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", "MobileNet with a feature pyramid"),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", "convolutions and transformer blocks"),
    ("magika", "models/standard_v3_3/model.onnx", "a classifier of bytes"),
    ("nudenet", "320n.onnx", "a detector"),
    ("silero_vad", "data/silero_vad.onnx", "recurrent, with branches"),
)


def library() -> str:
    folder = pathlib.Path(onnxruntime.__file__).parent / "capi"
    return str(next(iter(sorted(folder.glob("libonnxruntime*")))))


ENGINES = {"tract": (), "ort": ("--runtime", "ort", "--ort-library", library())}


def verify(emo: str, path: pathlib.Path, *arguments: str) -> dict:
    run = subprocess.run([emo, "verify", str(path), "--format", "json", *arguments], capture_output=True, text=True)
    assert run.stdout, f"{path.name} {arguments}: exit {run.returncode}, {run.stderr}"
    verdict = json.loads(run.stdout)
    expected = {"pass": 0, "fail": 1, "undecided": 3}[verdict["verdict"]]
    assert run.returncode == expected, f"{path.name}: {verdict['verdict']} with exit {run.returncode}"
    return verdict


def rewritten(emo: str, folder: pathlib.Path):
    """Name, file and its type, one at a time."""
    for model in MODELS:
        path = folder / f"{model}.onnx"
        export = [emo, "export", model, "--target", "reference", "--no-verify", "-o", str(path)]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        original = onnx.load(path)
        simplified, _ = onnxsim.simplify(original)
        forms = {
            "onnxsim": (simplified, "f32"),
            "onnxslim": (onnxslim.slim(onnx.load(path)), "f32"),
            "float16": (convert_float_to_float16(onnx.load(path), keep_io_types=True), "f16"),
            "float16 throughout": (convert_float_to_float16(onnx.load(path), keep_io_types=False), "f16"),
        }
        for form, (rewritten_model, dtype) in forms.items():
            onnx.save(rewritten_model, path)
            yield f"{model} through {form}", path, model, dtype


def main(emo: str) -> None:
    differences = []
    runs = 0
    worst = {}

    def expect(name: str, path: pathlib.Path, fields: dict, *arguments: str) -> None:
        nonlocal runs
        for engine, engine_arguments in ENGINES.items():
            verdict = verify(emo, path, *arguments, *engine_arguments)
            runs += 1
            found = {field: verdict[field] for field in fields}
            if found != fields:
                differences.append(f"{name} in {engine}: expected {fields}, found {found}: {verdict['reason']}")
            if verdict["verdict"] == "pass":
                key = engine, verdict["tolerance"]
                worst[key] = max(worst.get(key, 0.0), verdict["max_relative"])

    right = {"verdict": "pass", "cause": None, "first_divergence": None}
    with tempfile.TemporaryDirectory() as folder:
        for name, path, model, dtype in rewritten(emo, pathlib.Path(folder)):
            # A coarse file is evaluated many times an input.
            fewer = ("--test-inputs", "2") if dtype == "f16" else ()
            for weights in ((), WEIGHTS):
                expect(name, path, right | {"model": model, "tolerance": dtype}, *weights, *fewer)

    files = sorted(THIRD_PARTY.glob("emo_1m_*.onnx"))
    assert files, f"{THIRD_PARTY}: no files"
    for path in files:
        for weights in ((), WEIGHTS):
            expect(path.name, path, right | {"model": "emo-1m"}, *weights)
    for name, cause, block in (("wrong_tiles", "tiles", "stage3.1"), ("wrong_bn_eps", "norm-epsilon", "stage1.1")):
        fields = {"verdict": "fail", "cause": cause, "first_divergence": block}
        for weights in ((), WEIGHTS):
            expect(name, THIRD_PARTY / f"{name}.onnx", fields, *weights)
    demanded = {"verdict": "fail", "cause": "precision"}
    expect("float16 for float32", THIRD_PARTY / "emo_1m_fp16.onnx", demanded, "--tolerance", "f32")

    packages = pathlib.Path(onnx.__file__).parent.parent
    for package, relative, _ in PACKAGES:
        path = packages / package / relative
        expect(path.name, path, {"verdict": "fail", "cause": "not-emo", "model": None})

    for (engine, dtype), error in sorted(worst.items()):
        print(f"{engine}, {dtype}: largest error {error:.2e} of the largest logit")
    for difference in differences:
        print(difference)
    print(f"{runs} verdicts, {len(differences)} not as they should be")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main(sys.argv[1])
