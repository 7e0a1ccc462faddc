"""Races our profiles against other people's EMO-1M in ONNX Runtime and OpenVINO.

    python tests/bench/race/race.py EMO THIRD_PARTY_FOLDER [ROUNDS]

The first run makes a virtual environment of the pinned requirements beside the build (`target/race`) and goes on in
it. One thread, float32, batch 1, formula:0 on all sides. In a race every file runs once in turn, so that a busy
machine slows all alike. A race's time of a file is its median, its ratio that of the fastest of the others' files;
printed are the median, lowest and highest of five races, and the time to create a session beside the TorchScript
file's.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import venv

HERE = pathlib.Path(__file__).resolve().parent
HOME = HERE.parents[2] / "target" / "race"
RACES = 5
TOLERANCE = 2e-6
OTHERS = (
    "emo_1m_torchscript_op13", "emo_1m_torchscript_op17_dynamic", "emo_1m_dynamo_op18",
    "emo_1m_dynamo_op20_onnxslim", "emo_1m_einops_torchscript_op17",
)
PROFILES = {
    "ONNX Runtime": ("reference", "portable", "ort-cpu"),
    "OpenVINO": ("reference", "portable", "openvino"),
}


def inside() -> bool:
    """Whether this is the environment of the pinned requirements; makes it where it is missing."""
    python = HOME / "bin" / "python"
    pins = HERE / "requirements.txt"
    stamp = HOME / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != pins.read_text():
        venv.create(HOME, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", pins], check=True)
        stamp.write_text(pins.read_text())
    if pathlib.Path(sys.prefix) == HOME:
        return True
    os.execv(python, [str(python), *sys.argv])


def onnxruntime_session(path: pathlib.Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"input": image})[0]


def openvino_session(path: pathlib.Path):
    import openvino

    options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([1, 3, 224, 224])
    request = core.compile_model(model, "CPU", options).create_infer_request()
    return lambda image: request.infer({0: image})[0]


SESSIONS = {"ONNX Runtime": onnxruntime_session, "OpenVINO": openvino_session}


def race(runtime: str, files: dict, image, rounds: int) -> None:
    import numpy as np

    created, runs = {}, {}
    for name, path in files.items():
        times = []
        for _ in range(3):
            start = time.perf_counter()
            runs[name] = SESSIONS[runtime](path)
            times.append(time.perf_counter() - start)
        created[name] = min(times)
    truth = runs[OTHERS[0]](image).copy()
    for name, run in runs.items():
        error = np.abs(run(image) - truth).max() / np.abs(truth).max()
        assert error <= TOLERANCE, f"{name} in {runtime}: off by {error:.1e} of the largest logit"
    medians = {name: [] for name in files}
    for _ in range(RACES):
        times = {name: [] for name in files}
        for _ in range(rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run(image)
                times[name].append(time.perf_counter() - start)
        for name, values in times.items():
            medians[name].append(statistics.median(values))
    fastest = [min(medians[name][i] for name in files if name in OTHERS) for i in range(RACES)]
    print(f"\n{runtime}, EMO-1M, one thread, {RACES} races of {rounds} rounds")
    print(f"{'file':34}{'ms':>8}{'× fastest other':>18}{'spread':>16}{'session ms':>12}{'× TorchScript':>15}")
    for name in files:
        ratios = [best / median for best, median in zip(fastest, medians[name])]
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
        print(
            f"{name:34}{statistics.median(medians[name]) * 1e3:8.2f}{statistics.median(ratios):18.2f}{spread:>16}"
            f"{created[name] * 1e3:12.1f}{created['emo_1m_torchscript_op17_dynamic'] / created[name]:15.2f}"
        )


def main(emo: str, others: str, rounds: str = "60") -> None:
    import numpy as np

    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for runtime, profiles in PROFILES.items():
            files = {name: pathlib.Path(others) / f"{name}.onnx" for name in OTHERS}
            for profile in profiles:
                files[profile] = pathlib.Path(folder) / f"{profile}.onnx"
                command = [emo, "export", "emo-1m", "--profile", profile, "--no-verify", "-o", files[profile]]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            race(runtime, files, image, int(rounds))


if __name__ == "__main__" and inside():
    main(*sys.argv[1:])
