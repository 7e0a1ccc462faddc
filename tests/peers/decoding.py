"""Detectors' boxes against mmdetection's own anchors and coder, and the boxes that are kept against its rules.

    python decoding.py EMO [TARGET…]

From what `--output raw` gives in ONNX Runtime, mmdetection 3.3.0's anchor generators and coder, set up as the published
configurations have them, make boxes and scores, to which those of `--output decoded` must be equal. Of these, by
mmdetection's rules written here in numpy, follow those of `--output nms`, in their order: by level the 1000 best pairs
of a box and a class above the threshold, without boxes that have no width or height, then class by class the best that
overlap no better one, then the best of all; of equal ones the earlier. Weights are the formula's, and changed ones that
make scores of all cells and levels equal, and boxes larger than the coder allows, beyond the input, and flat.
"""

import functools
import importlib
import importlib.util
import pathlib
import sys
import tempfile
import types
import unittest.mock

import numpy as np
import onnx
import torch
from dense import export, run, targets
from safetensors.numpy import save_file

# mmdetection's folders as bare packages: a plain import wants mmcv, which its anchors and its coder do not need.
FOLDERS = ("", "models", "models/task_modules", "models/task_modules/prior_generators", "models/task_modules/coders")
FOLDERS += ("structures", "structures/mask")
STUBBED = ("mmcv", "cv2", "mmdet.structures.mask.structures")
TOLERANCE = 2e-6
CANDIDATES = 1000
# A model, its input, and whether its weights are changed; sides that few strides divide, for every target.
CASES = (
    ("ssdlite-emo-1m", (320, 320), False),
    ("ssdlite-emo2-5m", (161, 227), False),
    ("ssdlite-emo-1m", (161, 227), True),
    ("retinanet-emo-1m", (320, 448), False),
    ("retinanet-emo2-1m", (97, 64), False),
    ("retinanet-emo2-1m", (97, 64), True),
)
# For the first of the targets alone.
LARGE = (
    ("ssdlite-emo2-1m", (512, 512), False),
    ("ssdlite-emo-5m", (320, 320), True),
    ("retinanet-emo-2m", (800, 1344), False),
)


@functools.cache
def mmdet():
    """mmdetection's anchor generators and its coder."""
    root = pathlib.Path(importlib.util.find_spec("mmdet").submodule_search_locations[0])
    for folder in FOLDERS:
        name = ".".join(filter(None, ("mmdet", *folder.split("/"))))
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(root / folder)]
    sys.modules |= {name: unittest.mock.MagicMock() for name in STUBBED}
    tasks = "mmdet.models.task_modules"
    generators = importlib.import_module(f"{tasks}.prior_generators.anchor_generator")
    return generators, importlib.import_module(f"{tasks}.coders.delta_xywh_bbox_coder").DeltaXYWHBBoxCoder


@functools.cache
def published(head: str):
    """The generator of anchors, the coder, whether scores are shares of all classes, the thresholds of scores and
    overlap, and the number of boxes, as in the configurations of EMO's detectors."""
    generators, coder = mmdet()
    if head == "ssdlite":
        generator = generators.SSDAnchorGenerator(
            scale_major=False,
            strides=[16, 32, 64, 107, 160, 320],
            ratios=[[2, 3]] * 6,
            min_sizes=[48, 100, 150, 202, 253, 304],
            max_sizes=[100, 150, 202, 253, 304, 320],
        )
        return generator, coder(target_stds=(0.1, 0.1, 0.2, 0.2)), True, (0.02, 0.45, 200)
    generator = generators.AnchorGenerator(
        octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128]
    )
    return generator, coder(), False, (0.05, 0.5, 100)


def changed(emo: str, model: str, folder: pathlib.Path) -> pathlib.Path:
    """The formula's weights, but for the last layers: every cell of every level scores alike, some classes of a cell
    too; of each cell the anchors move by nothing, beyond the input, or grow beyond what the coder allows, or shrink to
    nothing."""
    path, weights = folder / "reference.onnx", folder / f"{model}.safetensors"
    if weights.exists():
        return weights
    if why := export(emo, path, model, "reference", (64, 64)):
        raise SystemExit(f"{model}: {why}")
    tensors = {t.name: onnx.numpy_helper.to_array(t).copy() for t in onnx.load(path).graph.initializer}
    ssd = model.startswith("ssdlite")
    names = [f"bbox_head.{kind}_convs.{i}.1" for kind in ("cls", "reg") for i in range(6)]
    for name in names if ssd else ["bbox_head.retina_cls", "bbox_head.retina_reg"]:
        scores = "cls" in name
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        width = (81 if ssd else 80) if scores else 4
        anchors = bias.reshape(-1, width)
        if scores:
            weight[:] = 0
            anchors[:] = -6
            for anchor, row in enumerate(anchors):
                row[[anchor + 3, anchor + 17]] = 0.25 * anchor
            # Of one anchor the background, or the last class, is the best.
            anchors[2, -1] = 3
        else:
            for anchor, row in enumerate(anchors):
                row[:] = [[0, 0, 0, 0], [0, 0, 40, 40], [60, 0, 0, 0], [0, 0, -40, 0], [0, -60, 0, 1]][anchor % 5]
    save_file(tensors, weights)
    return weights


def expected_boxes(head: str, raw: list, size):
    """Boxes and scores of all anchors by mmdetection, as many as each level has."""
    generator, coder, softmax, _ = published(head)
    levels = len(raw) // 2
    maps = [torch.from_numpy(values[0]) for values in raw]
    scores, deltas = maps[:levels], maps[levels:]
    priors = generator.grid_priors([tuple(m.shape[1:]) for m in deltas], device="cpu")
    rows = lambda m, width: m.permute(1, 2, 0).reshape(-1, width)
    all_deltas = torch.cat([rows(m, 4) for m in deltas])
    boxes = coder.decode(torch.cat(priors), all_deltas, max_shape=size)
    all_scores = torch.cat([rows(m, 81 if softmax else 80) for m in scores])
    all_scores = all_scores.softmax(-1)[:, :-1] if softmax else all_scores.sigmoid()
    return boxes.numpy(), all_scores.numpy(), [len(level) for level in priors]


def overlap(box, others):
    """Intersection over union."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = np.prod(np.clip(sides, 0, None), axis=1)
    area = lambda boxes: np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
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
    solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    flat = int((~solid).sum())
    boxes, scores, labels = boxes[solid], scores[solid], labels[solid]
    kept, wide = [], boxes.astype(np.float64)
    for label in range(classes):
        left = np.flatnonzero(labels == label)
        left = left[np.argsort(-scores[left], kind="stable")]
        while len(left):
            first, left = left[0], left[1:]
            kept.append(first)
            left = left[~(overlap(wide[first], wide[left]) > iou_threshold)]
    kept = np.sort(np.array(kept, dtype=int))
    kept = kept[np.argsort(-scores[kept], kind="stable")][:most]
    return boxes[kept], scores[kept], labels[kept], flat


def off(found, expected, size) -> float:
    """The largest error: of boxes as a share of the input's longer side, of scores as it is."""
    boxes, scores = (np.abs(ours.astype(np.float64) - theirs) for ours, theirs in zip(found, expected))
    return max(boxes.max(initial=0) / max(size), scores.max(initial=0))


def check(emo: str, folder: pathlib.Path, target: str, case) -> list[str]:
    model, size, change = case
    head, path = model.split("-")[0], folder / "model.onnx"
    name = f"{model} {size[0]}x{size[1]} {target}{' changed' if change else ''}"
    weights = ("--weights", str(changed(emo, model, folder))) if change else ()
    files = {}
    for output in ("raw", "decoded", "nms"):
        why = export(emo, path, model, target, size, "--output", output, *weights)
        if not why:
            files[output] = run(path, size)
        elif output != "nms" or "which nms needs" not in why:
            return [f"{name} {output}: {why}"]
    boxes, scores, levels = expected_boxes(head, files["raw"], size)
    found_boxes, found_scores = files["decoded"]
    if found_boxes.shape[1:] != boxes.shape or found_scores.shape[1:] != scores.shape:
        return [f"{name}: {found_boxes.shape} {found_scores.shape}, mmdetection {boxes.shape} {scores.shape}"]
    error = off((found_boxes[0], found_scores[0]), (boxes, scores), size)
    failures = [] if error <= TOLERANCE else ["decoded"]
    told = "not written"
    if "nms" in files:
        *expected, flat = suppressed(boxes, scores, levels, *published(head)[3])
        kept_boxes, kept_scores, labels, count = files["nms"]
        n = int(count[0])
        same = n == len(expected[1]) and np.array_equal(labels[0, :n], expected[2])
        same = same and off((kept_boxes[0, :n], kept_scores[0, :n]), expected[:2], size) <= TOLERANCE
        empty = not kept_boxes[0, n:].any() and not kept_scores[0, n:].any() and (labels[0, n:] == -1).all()
        failures += [] if same and empty else ["nms"]
        ties = n - len(np.unique(kept_scores[0, :n]))
        told = f"{n} kept, {ties} of a score that another has, {flat} flat ones left out"
        failures += ["no ties, or nothing flat"] if change and not (ties and flat) else []
    print(f"{name}: decoded {error:.1e}; nms {told}{': OTHERS: ' if failures else ''}{', '.join(failures)}")
    return [f"{name}: {failure}" for failure in failures]


def main(emo: str, *names: str) -> int:
    chosen = names or targets(emo)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for target in chosen:
            for case in CASES + (LARGE if target == chosen[0] else ()):
                failures += check(emo, pathlib.Path(folder), target, case)
    print("\n".join(failures) or "mmdetection's boxes, and its rules")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
