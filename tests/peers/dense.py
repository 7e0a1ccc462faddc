"""Detectors and segmenters in ONNX Runtime, against PyTorch's goldens and an independent suppression.

    python dense.py EMO [TARGET…]

Every golden of `../shared/goldens`, raw and decoded, for every target (or those that are named), each output to 5e-6 of
its largest value, each file through onnx.checker's full check. What `--output nms` gives equals, to the bit and in its
order, what mmdetection's rules make of the same target's `--output decoded`: by level the 1000 best pairs of a box and
a class above the threshold, then class by class the best that overlap no better one, then the best of all.
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
# A model, its input, its thresholds of scores and overlap, its number of boxes; two sizes that few strides divide.
SUPPRESSED = (
    ("ssdlite-emo-1m", (320, 320), (0.02, 0.45, 200)),
    ("ssdlite-emo2-5m", (161, 227), (0.02, 0.45, 200)),
    ("retinanet-emo-1m", (320, 448), (0.05, 0.5, 100)),
    ("retinanet-emo2-1m", (97, 64), (0.05, 0.5, 100)),
)
CANDIDATES = 1000


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


def overlap(box, others):
    """Intersection over union."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = np.prod(np.clip(sides, 0, None), axis=1)
    area = lambda boxes: np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return both / (area(box) + area(others) - both)


def suppressed(boxes, scores, levels, score_threshold, iou_threshold, most):
    """Boxes, scores and labels that are kept of all anchors', `levels` telling how many each level has."""
    classes, start, parts = scores.shape[1], 0, []
    for anchors in levels:
        pairs = scores[start : start + anchors].reshape(-1)
        order = np.argsort(-pairs, kind="stable")
        order = order[pairs[order] > np.float32(score_threshold)][:CANDIDATES]
        parts.append((boxes[start : start + anchors][order // classes], pairs[order], order % classes))
        start += anchors
    boxes, scores, labels = (np.concatenate(part) for part in zip(*parts))
    kept = []
    for label in range(classes):
        left = np.flatnonzero(labels == label)
        left = left[np.argsort(-scores[left], kind="stable")]
        while len(left):
            first, left = left[0], left[1:]
            kept.append(first)
            wide = boxes.astype(np.float64)
            left = left[~(overlap(wide[first], wide[left]) > iou_threshold)]
    kept = np.sort(np.array(kept, dtype=int))
    kept = kept[np.argsort(-scores[kept], kind="stable")][:most]
    return boxes[kept], scores[kept], labels[kept]


def check_suppression(emo: str, folder: pathlib.Path, target: str) -> list[str]:
    failures = []
    for model, size, thresholds in SUPPRESSED:
        path, name = folder / "model.onnx", f"{model} {target} nms"
        if why := export(emo, path, model, target, size, "--output", "nms"):
            print(f"{name}: {why}")
            if "which nms needs" not in why:
                failures.append(name)
            continue
        boxes, scores, labels, count = run(path, size)
        files = {}
        for output in ("raw", "decoded"):
            if why := export(emo, path, model, target, size, "--output", output):
                return [f"{model} {target} {output}: {why}"]
            files[output] = run(path, size)
        deltas = files["raw"][len(files["raw"]) // 2 :]
        levels = [np.prod(delta.shape) // 4 for delta in deltas]
        all_boxes, all_scores = files["decoded"]
        expected = suppressed(all_boxes[0], all_scores[0], levels, *thresholds)
        n = int(count[0])
        found = boxes[0, :n], scores[0, :n], labels[0, :n]
        same = n == len(expected[1]) and all(map(np.array_equal, found, expected))
        empty = not boxes[0, n:].any() and not scores[0, n:].any() and (labels[0, n:] == -1).all()
        print(f"{name}: {n} boxes, {'equal' if same and empty else 'OTHERS'}")
        if not (same and empty):
            failures.append(name)
    return failures


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
            failures += check_suppression(emo, pathlib.Path(folder), target)
    print(f"failures: {failures}" if failures else "every golden holds")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
