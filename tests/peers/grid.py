"""Every model in every form of its interface: through onnx.checker's full check, and run in ONNX Runtime.

    python grid.py EMO [--all]

The full grid (`--all`) is every model × one image or a free batch × the published size or an odd one × every output
that it has. By default it is thinned: the models of a kind (a head, the backbones, the classifiers) and the kind's forms
are both gone through in order, the shorter list as often as the longer asks for it, so that each model and each form
stands once at least. Targets are gone through in the same way, one a file, of those that take what is asked for. A free
batch runs two equal images. Outputs must be of the declared shapes, finite, and equal for equal images.
"""

import collections
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from formula import network_input

OUTPUTS = {
    "classifier": (None,),
    "backbone": ("raw",),
    "ssdlite": ("raw", "decoded", "nms"),
    "retinanet": ("raw", "decoded", "nms"),
    **dict.fromkeys(("deeplabv3", "pspnet", "semantic-fpn", "segformer"), ("logits", "logits-small", "labels")),
}
ODD = (97, 131)
# DeiT's positions are those of one size; boxes are kept of one image.
ONE_SIZE = "deit"
ONE_IMAGE = "nms"
# Equal images differ by what sums in another order do.
TOLERANCE = 1e-5


def told(emo: str, command: str):
    run = subprocess.run([emo, command, "--format", "json"], check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def kinds(emo: str) -> dict[str, list[str]]:
    """The names of all models, by kind."""
    listed, found = told(emo, "list"), collections.defaultdict(list)
    found["classifier"] = [row["model"] for row in listed["models"]]
    for row in listed["dense"]:
        name = row["model"]
        found[next(kind for kind in OUTPUTS if name.startswith(kind) or name.endswith(kind))].append(name)
    return found


def cells(emo: str, thinned: bool):
    """Model, output, whether the batch is free, and the size where it is not the published one."""
    for kind, models in kinds(emo).items():
        forms = [
            form
            for form in itertools.product(OUTPUTS[kind], (False, True), (None, ODD))
            if not (form[0] == ONE_IMAGE and form[1])
        ]
        every = itertools.product(models, forms)
        if thinned:
            count = max(len(models), len(forms))
            every = itertools.islice(zip(itertools.cycle(models), itertools.cycle(forms)), count)
        for model, (output, free, size) in every:
            yield model, output, free, None if model.startswith(ONE_SIZE) else size


def run(path: pathlib.Path, free: bool) -> str:
    """What is wrong with the file; nothing where all is well."""
    onnx.checker.check_model(onnx.load(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    batch, *extents = session.get_inputs()[0].shape
    if isinstance(batch, str) != free:
        return f"the batch is {batch}"
    image = network_input((1, *extents))
    outputs = session.run(None, {session.get_inputs()[0].name: np.repeat(image, 2 if free else 1, axis=0)})
    for declared, value in zip(session.get_outputs(), outputs, strict=True):
        shape = [2 if isinstance(extent, str) and i == 0 else extent for i, extent in enumerate(declared.shape)]
        if list(value.shape) != shape:
            return f"{declared.name} is {list(value.shape)}, declared {declared.shape}"
        if not np.isfinite(value).all():
            return f"{declared.name} is not finite"
        if free and value.dtype.kind == "f" and np.abs(value[0] - value[1]).max() > TOLERANCE * np.abs(value).max():
            return f"{declared.name} differs between equal images"
        if free and value.dtype.kind != "f" and np.mean(value[0] != value[1]) > 1e-3:
            return f"{declared.name} differs between equal images"
    return ""


def main(emo: str, *options: str) -> int:
    targets = [(row["name"], row["free_batch"]["allowed"]) for row in told(emo, "targets")]
    failures, turn, count = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        for model, output, free, size in cells(emo, thinned="--all" not in options):
            command = [emo, "export", model, "--no-verify", "-o", str(path)]
            command += ["--output", output] if output else []
            command += ["--batch", "dynamic"] if free else []
            command += ["--size", f"{size[0]}x{size[1]}"] if size else []
            row = [target for target, takes_free in targets if takes_free or not free]
            for target in row[turn % len(row) :] + row[: turn % len(row)]:
                start = time.monotonic()
                export = subprocess.run([*command, "--target", target], capture_output=True, text=True)
                # A target may lack an operator of the labels or the suppression.
                if f"which {output} needs" not in export.stderr:
                    break
            name = f"{model} {output or 'logits'} {target}{' free batch' if free else ''}{f' {size}' if size else ''}"
            why = export.stderr.strip() or run(path, free)
            print(f"{name}: {why or 'holds'} ({time.monotonic() - start:.1f} s)", flush=True)
            failures += [name] if why else []
            turn, count = turn + 1, count + 1
    print(f"failures: {failures}" if failures else f"all {count} files hold")
    return 1 if failures or not count else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
