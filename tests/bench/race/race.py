"""Races our profiles against other toolchains' files in the runtimes that pip brings.

    python3 tests/bench/race/race.py EMO [--others FOLDER] [--runtime NAME]... [--variant NAME]... [--rounds N]
                                         [--forms PROGRAM --try "PROFILE LAYER=SPELLING ..."]...

EMO is the command; FOLDER holds the others' files and is ../shared/third_party unless given. The first run makes a
virtual environment of the pinned requirements in target/race and goes on in it. One thread on one core, float32,
batch 1, untrained weights on all sides, outputs compared before anything is timed. Processor time is taken; in a race
every file runs once in turn, so that a busy machine slows all alike; sessions are created in turn in the same way. Ratios are to the fastest
of the others' files, to `reference` where a variant has none: the median over five races of the ratio of medians, its
lowest and highest, and the ratio of the shortest runs of all. --try adds a file as PROGRAM (the example `forms`)
spells it.

The others' files of EMO-1M lie in FOLDER. Those of a detector or a segmenter (--variant segformer-emo2-2m) are written
here, by PyTorch of tests/peers/torch.txt from ../shared/torch with the same weights, into target/race/peers, where
tract's race finds them too: each exporter's file, and what onnxslim makes of it. All its outputs are compared, of the
size that the PyTorch model gives them.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
HOME = ROOT / "target" / "race"
RACES = 5
CREATIONS = 7
SIDE = 224
OTHERS = (
    "emo_1m_torchscript_op13", "emo_1m_torchscript_op17_dynamic", "emo_1m_dynamo_op18",
    "emo_1m_dynamo_op20_onnxslim", "emo_1m_einops_torchscript_op17",
)
TORCHSCRIPT, ONNXSLIM = OTHERS[1], OTHERS[3]
# Detectors and segmenters by what their names begin with: the side of their input; and how far they may be off.
DENSE = {"ssdlite": 320, "deeplabv3": 512, "pspnet": 512, "semantic-fpn": 512, "segformer": 512}
DEEP = 5e-6
PEERS = ("torchscript", "torchscript_onnxslim", "dynamo", "dynamo_onnxslim")


def environment() -> None:
    """Goes on in the environment of the pinned requirements; makes it where it is missing."""
    python = HOME / "bin" / "python"
    # pnnx's Python half wants PyTorch, its program does not.
    pins = (("requirements.txt", ()), ("programs.txt", ("--no-deps",)))
    wanted = "".join((HERE / name).read_text() for name, _ in pins)
    stamp = HOME / "pins.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(HOME, clear=True, with_pip=True)
        for name, options in pins:
            pip = [python, "-m", "pip", "install", "--quiet", *options, "--requirement", HERE / name]
            subprocess.run(pip, check=True)
        stamp.write_text(wanted)
    if pathlib.Path(sys.prefix) != HOME:
        os.execv(python, [str(python), *sys.argv])


def peers(variant: str, side: int) -> dict[str, pathlib.Path]:
    """PyTorch's files of a detector or a segmenter, by name; written where they are missing."""
    pins, home = ROOT / "tests" / "peers" / "torch.txt", ROOT / "target" / "torch"
    stamp = home / "pins.txt"
    if not stamp.exists() or stamp.read_text() != pins.read_text():
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", "--requirement", pins], check=True)
        shutil.copy(pins, stamp)
    folder = HOME / "peers" / variant
    files = {name: folder / f"{name}.onnx" for name in PEERS}
    if not all(path.exists() for path in files.values()):
        command = [home / "bin" / "python", HERE / "peers.py", variant, str(side), folder]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return files


def program(*command) -> None:
    """Runs a converter; its own account is the error where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])


# How each runtime makes a file ready (untimed), and a session of it: a function from image to outputs.


def as_it_is(path: pathlib.Path, _folder: pathlib.Path) -> pathlib.Path:
    return path


def onnxruntime_session(path: pathlib.Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"input": image})


def openvino_session(path: pathlib.Path):
    import openvino

    options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    model = core.read_model(path)
    if model.is_dynamic():
        model.reshape([1, 3, SIDE, SIDE])
    request = core.compile_model(model, "CPU", options).create_infer_request()
    # Without copies, which take as long for any file.
    return lambda image: list(request.infer([image], share_inputs=True, share_outputs=True).values())


def mnn_file(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    made = folder / f"{path.stem}.mnn"
    convert = HOME / "bin" / "mnnconvert"
    program(convert, "-f", "ONNX", "--modelFile", path, "--MNNModel", made, "--bizCode", "emo")
    return made


def mnn_session(path: pathlib.Path):
    import MNN
    import numpy as np

    network = MNN.Interpreter(str(path))
    session = network.createSession({"numThread": 1, "precision": "high", "backend": "CPU"})
    shape, planes, floats = (1, 3, SIDE, SIDE), MNN.Tensor_DimensionType_Caffe, MNN.Halide_Type_Float
    entry = network.getSessionInput(session)
    network.resizeTensor(entry, shape)
    network.resizeSession(session)
    exit_ = network.getSessionOutput(session)
    host = MNN.Tensor(exit_.getShape(), floats, np.zeros(exit_.getShape(), np.float32), planes)

    def run(image):
        entry.copyFrom(MNN.Tensor(shape, floats, image, planes))
        network.runSession(session)
        exit_.copyToHostTensor(host)
        return [host.getNumpyData().reshape(1, -1)]

    return run


def ncnn_file(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    # Beside a copy, which it names as a Python module.
    copy = folder / f"{path.stem.replace('-', '_')}.onnx"
    copy.write_bytes(path.read_bytes())
    pnnx = next(HOME.glob("lib/python*/site-packages/pnnx/pnnx"))
    program(pnnx, copy, f"inputshape=[1,3,{SIDE},{SIDE}]", "fp16=0")
    return copy.with_suffix(".ncnn.param")


def ncnn_session(path: pathlib.Path):
    import ncnn
    import numpy as np

    network = ncnn.Net()
    network.opt.num_threads = 1
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(network.opt, f"use_{option}", False)
    if network.load_param(str(path)) or network.load_model(str(path.with_suffix(".bin"))):
        raise RuntimeError("ncnn lacks a layer that pnnx wrote")

    def run(image):
        extractor = network.create_extractor()
        extractor.input(network.input_names()[0], ncnn.Mat(image[0]))
        return [np.array(extractor.extract(network.output_names()[0])[1]).reshape(1, -1)]

    return run


# Prepare, open, our profiles beside `reference`, and how far logits may be off, of the largest. MNN computes a GELU
# that it has recognised by a formula of its own.
RUNTIMES = {
    "onnxruntime": (as_it_is, onnxruntime_session, ("portable", "ort-cpu"), 2e-6),
    "openvino": (as_it_is, openvino_session, ("portable", "openvino"), 2e-6),
    "mnn": (mnn_file, mnn_session, ("portable", "ort-cpu"), 1e-3),
    "ncnn": (ncnn_file, ncnn_session, ("portable", "ncnn"), 2e-6),
}


def difference(outputs, truths) -> float:
    """The largest error of any output, as a share of its largest value."""
    import numpy as np

    pairs = zip(outputs, truths, strict=True)
    return max(float(np.abs(output - truth).max() / np.abs(truth).max()) for output, truth in pairs)


def quiet(run, *arguments):
    """Calls with what C libraries print thrown away."""
    kept = [os.dup(1), os.dup(2)]
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
        try:
            return run(*arguments)
        finally:
            for descriptor, copy in zip((1, 2), kept):
                os.dup2(copy, descriptor)
                os.close(copy)


def in_turn(rounds: int, calls: dict) -> dict:
    """Seconds of processor time of each call, round by round; every round begins one further.

    On a shared machine a run of a few milliseconds waits for a neighbour's turn as often as not; that wait is no
    file's doing and would hide what is.
    """
    times, names = {name: [] for name in calls}, list(calls)
    for i in range(rounds):
        for name in names[i % len(names):] + names[:i % len(names)]:
            start = time.process_time()
            calls[name]()
            times[name].append(time.process_time() - start)
    return times


def race(runtime: str, variant: str, files: dict, others: dict, truth, image, tolerance, rounds, folder) -> None:
    prepare, open_, *_ = RUNTIMES[runtime]
    made, runs, errors = {}, {}, {}
    print(f"\n{runtime}, {variant}, {RACES} races of {rounds} rounds", flush=True)
    for name, path in files.items():
        try:
            made[name] = prepare(path, folder)
            runs[name] = quiet(open_, made[name])
            errors[name] = difference(quiet(runs[name], image), truth)
        except (RuntimeError, StopIteration) as error:
            print(f"{name}: no session: {error}")
            continue
        if not errors[name] <= tolerance:
            sys.exit(f"{name} in {runtime}: off by {errors[name]:.1e} of the largest value")
    created = quiet(in_turn, CREATIONS, {name: lambda p=made[name]: open_(p) for name in runs})
    races = [in_turn(rounds, {name: lambda r=run: r(image) for name, run in runs.items()}) for _ in range(RACES)]

    field = [name for name in runs if name in others] or ["reference"]
    medians = {name: [statistics.median(times[name]) for times in races] for name in runs}
    shortest = {name: min(min(times[name]) for times in races) for name in runs}
    fastest = [min(medians[name][i] for name in field) for i in range(RACES)]
    least = min(shortest[name] for name in field)
    bases = [name for name in (TORCHSCRIPT, ONNXSLIM) if name in runs]
    print(f"ratios to {'the fastest other' if others else field[0]}; error of the largest value; "
          f"creation in ms{''.join(f', × {base}' for base in bases)}")
    print(f"{'file':34}{'ms':>8}{'ratio':>8}{'spread':>13}{'by min':>8}{'error':>10}{'creation':>{9 + 7 * len(bases)}}")
    for name in runs:
        ratios = [best / median for best, median in zip(fastest, medians[name])]
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
        creation = min(created[name])
        beside = "".join(f"{min(created[base]) / creation:7.2f}" for base in bases)
        print(
            f"{name:34}{statistics.median(medians[name]) * 1e3:8.2f}{statistics.median(ratios):8.2f}{spread:>13}"
            f"{least / shortest[name]:8.2f}{errors[name]:10.1e}{creation * 1e3:8.0f}{beside}",
            flush=True,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("emo", type=pathlib.Path)
    parser.add_argument("--others", type=pathlib.Path, default=ROOT.parent / "shared" / "third_party")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--variant", action="append")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--forms", type=pathlib.Path, default=ROOT / "target" / "release" / "examples" / "forms")
    parser.add_argument("--try", action="append", default=[], dest="tries", metavar="PROFILE LAYER=SPELLING")
    return parser.parse_args()


def main(options: argparse.Namespace) -> None:
    import numpy as np

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for variant in options.variant or ["emo-1m"]:
        side = next((side for head, side in DENSE.items() if variant.startswith(f"{head}-")), None)
        shape = (1, 3, side or SIDE, side or SIDE)
        image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)

            def export(profile: str) -> pathlib.Path:
                path = folder / f"{profile}.onnx"
                command = [options.emo, "export", variant, "--target", profile, "--no-verify", "-o", path]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                return path

            others = {name: options.others / f"{name}.onnx" for name in OTHERS if variant == "emo-1m"}
            others = peers(variant, side) if side else others
            truth = onnxruntime_session(next(iter(others.values()), None) or export("reference"))(image)
            # The sessions of the last two give one output.
            for runtime in options.runtime or list(RUNTIMES)[: 2 if side else None]:
                tolerance = DEEP if side else RUNTIMES[runtime][3]
                files = others | {p: export(p) for p in ("reference", *RUNTIMES[runtime][2])}
                for number, spelling in enumerate(options.tries):
                    files[spelling] = folder / f"try{number}.onnx"
                    profile, *forms = spelling.split()
                    subprocess.run([options.forms, variant, profile, files[spelling], *forms], check=True)
                race(runtime, variant, files, others, truth, image, tolerance, options.rounds, folder)


if __name__ == "__main__":
    chosen = arguments()
    environment()
    main(chosen)
