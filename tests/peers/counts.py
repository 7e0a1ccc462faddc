"""Compares `emo audit`'s counts with PyTorch's own, with ONNX Runtime's profile and with the modules' parameters.

Models with random weights, none of them downloaded: torchvision's six detectors, a ViT, CLIP, DETR, Mamba and RAFT, each
through the TorchScript exporter and some through the dynamo one, classifiers with folded norms; estimators of scikit-learn
and LightGBM. What is held:

- multiply-adds equal half of `torch.utils.flop_counter.FlopCounterMode`, and those of a run in ONNX Runtime (`macs.py`);
- parameters equal the module's, or the report's notes make up the difference to the digit;
- the report's account adds up: float initializers, less what is left out, and what is added;
- nothing is uncounted but what is behind the choice of boxes in Faster and Mask R-CNN.

    python tests/peers/counts.py PATH/TO/emo [NAME…]
"""

import contextlib
import io
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
import torchvision
import transformers
from torch.utils.flop_counter import FlopCounterMode

import macs

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
# The fused kernel of PyTorch's attention has no ONNX form.
torch.backends.mha.set_fastpath_enabled(False)

SHARED = "more if each reader of a shared tensor had its own"
FOLDED = "more if each bias of a convolution is a folded norm's"
TIED = "less if a table that ids look up and a product of its extents are one"
BATCH = "less if each tensor that is joined to a batch is one row written out"
FROZEN = "less if each product and sum after a convolution is a frozen norm"
LONE = "lone numbers"

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


class Named(torch.nn.Module):
    """A module of transformers as a function of tensors, its outputs a tuple of tensors."""

    def __init__(self, module, *names, **options):
        super().__init__()
        self.module, self.names, self.options = module, names, options

    def forward(self, *tensors):
        output = self.module(**dict(zip(self.names, tensors)), **self.options)
        return tuple(value for value in output.to_tuple() if isinstance(value, torch.Tensor))


def detector(name, **sizes):
    return lambda: torchvision.models.get_model(name, weights=None, weights_backbone=None, **sizes)


def image(*size, batch=1):
    return lambda: (torch.randn(batch, 3, *size),)


def photograph(size):
    return lambda: ([torch.rand(3, size, size)],)


def vit():
    return torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10
    )


def clip():
    config = transformers.CLIPConfig(
        text_config={**SMALL, "vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 99},
        vision_config={**SMALL, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    module = transformers.CLIPModel._from_config(config, attn_implementation="eager")
    return Named(module, "input_ids", "pixel_values")


def detr():
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=64,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
        decoder_ffn_dim=128, num_queries=10, num_labels=5,
    )  # fmt: skip
    module = transformers.DetrForObjectDetection._from_config(config, attn_implementation="eager")
    return Named(module, "pixel_values")


def mamba():
    config = transformers.MambaConfig(vocab_size=100, hidden_size=64, num_hidden_layers=2, state_size=8)
    return Named(transformers.MambaForCausalLM(config), "input_ids", use_cache=False)


def ids(length, batch=1):
    return torch.randint(0, 99, (batch, length))


SMALLER = {"min_size": 128, "max_size": 160}
# Name, module, its inputs, exporter, notes that make up the difference of the parameters with the sign of what the module
# has beyond the file's, and whether the norms are folded.
MODELS = [
    ("ssdlite320", detector("ssdlite320_mobilenet_v3_large"), photograph(320), "torchscript", {}),
    ("ssd300", detector("ssd300_vgg16"), photograph(300), "torchscript", {}),
    ("retinanet", detector("retinanet_resnet50_fpn", **SMALLER), photograph(128), "torchscript", {}),
    ("fcos", detector("fcos_resnet50_fpn", **SMALLER), photograph(128), "torchscript", {}),
    ("fasterrcnn", detector("fasterrcnn_mobilenet_v3_large_320_fpn"), photograph(320), "torchscript", {}),
    ("maskrcnn", detector("maskrcnn_resnet50_fpn", **SMALLER), photograph(128), "torchscript", {}),
    ("vit", vit, image(64, 64), "torchscript", {}),
    ("vit", vit, image(64, 64), "dynamo", {}),
    ("clip", clip, lambda: (ids(16, 2), torch.randn(2, 3, 64, 64)), "torchscript", {}),
    ("clip", clip, lambda: (ids(16, 2), torch.randn(2, 3, 64, 64)), "dynamo", {BATCH: -1, LONE: 1}),
    ("detr", detr, image(128, 128), "torchscript", {FROZEN: -1}),
    ("mamba", mamba, lambda: (ids(16),), "torchscript", {TIED: -1}),
    ("raft", lambda: torchvision.models.optical_flow.raft_small(), lambda: (torch.randn(1, 3, 128, 128),) * 2,
     "torchscript", {}),
    ("resnet18", lambda: torchvision.models.resnet18(), image(64, 64), "torchscript", {}),
    ("resnet18", lambda: torchvision.models.resnet18(), image(64, 64), "folded", {FOLDED: 1}),
]  # fmt: skip
# Where boxes are chosen by their scores, what is behind is known only when the graph runs: the modules before it are
# counted.
CHOOSING = {"fasterrcnn": ("backbone", "rpn"), "maskrcnn": ("backbone", "rpn")}


def random_weights(module):
    """No two tensors alike: exporters write those that are as one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-3)
        for buffer in module.buffers():
            if buffer.is_floating_point() and buffer.dim() == 1 and buffer.numel() > 1:
                buffer.add_(torch.rand_like(buffer) * 1e-3)


def flops(module, inputs, parts):
    """Multiply-adds of the whole module, or of the parts named."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    if not parts:
        return counter.get_total_flops() // 2
    counts = counter.get_flop_counts()
    top = type(module).__name__
    return sum(sum(counts[f"{top}.{part}"].values()) for part in parts) // 2


def export(module, inputs, exporter, path):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        if exporter == "dynamo":
            torch.onnx.export(module, inputs, str(path), dynamo=True, external_data=False, verbose=False)
            return
        mode = torch.onnx.TrainingMode.EVAL if exporter == "folded" else torch.onnx.TrainingMode.PRESERVE
        torch.onnx.export(module, inputs, str(path), dynamo=False, opset_version=17, training=mode)


def audit(emo, path, *options):
    done = subprocess.run([emo, "audit", str(path), "--format", "json", *options], capture_output=True, text=True)
    if not done.stdout:
        sys.exit(f"{path}: emo audit ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def account(found):
    """What the report's account says of the parameters must add up."""
    entries = found["account"]
    total = lambda name: sum(entry["elements"] for entry in entries[name])
    made = entries["float_initializers"] - total("left_out") + total("added")
    if not made == entries["parameters"] == found["totals"]["params"]:
        yield f"the account makes {made}, the parameters are {found['totals']['params']}"


def parameters(found, module, notes):
    """The module's parameters, or the difference made up by the notes that the case names."""
    entries = found["account"]
    said = {entry["what"]: entry["elements"] for entry in entries["notes"] + entries["left_out"]}
    expected = sum(parameter.numel() for parameter in module.parameters())
    made = found["totals"]["params"] + sum(sign * said.get(what, 0) for what, sign in notes.items())
    if missing := [what for what in notes if what not in said]:
        yield f"the report does not say {missing}"
    if made != expected:
        yield f"the module has {expected:,} parameters, the report makes {made:,} of {found['totals']['params']:,}"


def compare(emo, case, folder):
    name, make, inputs, exporter, notes = case
    torch.manual_seed(0)
    module, path = make().eval(), folder / f"{name}_{exporter}.onnx"
    random_weights(module)
    inputs = inputs()
    parts = CHOOSING.get(name, ())
    expected = flops(module, inputs, parts)
    export(module, inputs, exporter, path)
    found = audit(emo, path)
    counted = found["totals"]["macs"]
    print(f"{name:12} {exporter:12} {found['totals']['params']:>12,} parameters {counted:>18,} multiply-adds", flush=True)
    yield from account(found)
    yield from parameters(found, module, notes)
    if counted != expected:
        yield f"PyTorch counts {expected:,} multiply-adds, emo {counted:,}"
    # The loop pastes a mask for each box.
    nodes = [item["node"] for item in found["uncounted"]]
    behind = [node for node in nodes if parts and ("/roi_heads/" in node or node.startswith("Loop_"))]
    if len(behind) < len(nodes):
        yield f"not counted: {nodes}"
    if not parts:
        ran = sum(macs.run(str(path), {}, folder).values())
        if ran != counted:
            yield f"ONNX Runtime runs {ran:,} multiply-adds, emo counts {counted:,}"
    path.unlink()


def estimators(folder):
    """Files of skl2onnx and onnxmltools: name, path, parameters, multiply-adds of one row."""
    from lightgbm import LGBMClassifier
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType as FloatsOfTools
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    rows = random.normal(size=(120, 7)).astype(np.float32)
    labels = random.integers(0, 3, 120)
    network = MLPClassifier((11, 5), max_iter=5).fit(rows, labels)
    layers = [*network.coefs_, *network.intercepts_]
    files = {
        "perceptron": (network, sum(layer.size for layer in layers), sum(layer.size for layer in network.coefs_)),
        "logistic": (make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels), None, None),
        "forest": (RandomForestClassifier(5, max_depth=4).fit(rows, labels), 0, 0),
    }
    for name, (estimator, params, multiply_adds) in files.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(to_onnx(estimator, rows[:1], options={"zipmap": False}).SerializeToString())
        yield name, path, params, multiply_adds
    path = folder / "lightgbm.onnx"
    trees = LGBMClassifier(n_estimators=5, num_leaves=7, verbose=-1).fit(rows, labels)
    path.write_bytes(convert_lightgbm(trees, initial_types=[("x", FloatsOfTools([None, 7]))]).SerializeToString())
    yield "lightgbm", path, 0, 0


def estimator(emo, name, path, params, multiply_adds):
    (given,) = [node.name for node in onnx.load(path).graph.input]
    found = audit(emo, path, "--input", f"{given}=1,7")
    print(f"{name:12} {'':12} {found['totals']['params']:>12,} parameters {found['totals']['macs']:>18,} multiply-adds")
    yield from account(found)
    if found["uncounted"]:
        yield f"not counted: {found['uncounted']}"
    if params is not None and found["totals"]["params"] != params:
        yield f"the estimator has {params} parameters, emo counts {found['totals']['params']}"
    if multiply_adds is not None and found["totals"]["macs"] != multiply_adds:
        yield f"the estimator multiplies {multiply_adds} times, emo counts {found['totals']['macs']}"
    checked = subprocess.run([emo, "check", str(path), "--format", "json"], capture_output=True, text=True)
    errors = [finding for finding in json.loads(checked.stdout)["findings"] if finding["severity"] == "error"]
    if errors:
        yield f"emo check refuses it: {errors}"


def main():
    emo, only, wrong, start = sys.argv[1], sys.argv[2:], [], time.monotonic()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for case in [case for case in MODELS if not only or case[0] in only]:
            wrong += [f"{case[0]}, {case[3]}: {what}" for what in compare(emo, case, folder)]
        for name, path, *expected in estimators(folder) if not only else ():
            wrong += [f"{name}: {what}" for what in estimator(emo, name, path, *expected)]
    print(f"{len(wrong)} differences in {time.monotonic() - start:.0f} s")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
