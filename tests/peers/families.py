"""Peers on the families of models: EMOv2, MobileNetV2, DeiT, detectors and segmenters as PyTorch's exporters and other
tools write them.

    python families.py EMO

Models are the definitions of ../shared/torch and timm's, with formula weights. Each in every spelling (TorchScript and
dynamo, fixed and free batch, through onnxsim and onnxslim) is recognised, its counts close, its weights are the formula's
and come back. Near relatives are departures with their place. Mistakes, made in PyTorch before the export, fail with
their block and cause.
"""

import concurrent.futures
import contextlib
import functools
import io
import json
import logging
import pathlib
import subprocess
import sys
import tempfile
import time
import types
import unittest.mock
import warnings

import onnx
import onnxsim
import onnxslim
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional

# Before the peers' own formula.py.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent.parent / "shared" / "torch"))
import formula  # noqa: E402
import torch_emo  # noqa: E402


def vit(**changes):
    row = {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}
    return lambda: VisionTransformer(**(row | changes))


def emo2(**changes):
    """EMOv2-1M with other columns."""

    def make():
        torch_emo.CONFIGS2["changed"] = torch_emo.CONFIGS2["emo2_1m"] | changes
        return torch_emo.EMO2("changed")

    return make


def published(name: str):
    return functools.partial(timm.create_model, name)


def dense(head: str, backbone: str):
    return functools.partial(torch_emo.DENSE[head], backbone)


# Name as reports spell it, what makes it, side of its input.
MODELS = {
    "emo-1m": (functools.partial(torch_emo.EMO, "emo_1m"), 128),
    "emo2-1m": (functools.partial(torch_emo.EMO2, "emo2_1m"), 128),
    "emo2-5m": (functools.partial(torch_emo.EMO2, "emo2_5m"), 64),
    "emo2-5m, window 8": (functools.partial(torch_emo.EMO2, "emo2_5m", window=8), 128),
    "mobilenetv2-100": (published("mobilenetv2_100"), 64),
    "mobilenetv2-140": (published("mobilenetv2_140"), 64),
    "deit-tiny": (published("deit_tiny_patch16_224"), 224),
    "deit-small": (published("deit_small_patch16_224"), 224),
    "ssdlite-emo-1m": (dense("ssdlite", "emo_1m"), 128),
    # Of sides 17, 9, 5, 3 and 2: no level is half of the one before.
    "retinanet-emo-1m": (dense("retinanet", "emo_1m"), 136),
    "deeplabv3-emo-1m": (dense("deeplabv3", "emo_1m"), 128),
    "pspnet-emo-1m": (dense("pspnet", "emo_1m"), 192),
    "semantic-fpn-emo2-1m": (dense("semantic_fpn", "emo2_1m"), 128),
    "segformer-emo2-2m": (dense("segformer", "emo2_2m"), 128),
}

# Name, exporter, opset, whether the batch is free.
EXPORTS = {
    "script": (False, 17, False),
    "script, free": (False, 17, True),
    "script, 20": (False, 20, False),
    "dynamo, free": (True, 18, True),
    "dynamo, 20": (True, 20, False),
}
TOOLS = {"": lambda m: m, "onnxsim": lambda m: onnxsim.simplify(m)[0], "onnxslim": onnxslim.slim}
EVERY = (
    ("script", ""),
    ("script", "onnxsim"),
    ("script, free", ""),
    ("script, free", "onnxsim"),
    ("script, 20", "onnxslim"),
    ("dynamo, free", ""),
    ("dynamo, 20", "onnxslim"),
)
ONE = EVERY[:1]
# A dynamo export of a dense model takes a minute. TorchScript exports no pooling to bins that differ in size.
FEW = EVERY[1:3] + EVERY[6:]
FILES = {
    "emo2-1m": EVERY,
    "emo2-5m": ONE,
    "emo2-5m, window 8": EVERY[2:3],
    "mobilenetv2-100": EVERY,
    "mobilenetv2-140": ONE,
    "deit-tiny": EVERY,
    "deit-small": ONE,
    "emo-1m": ONE,
    "ssdlite-emo-1m": FEW,
    "retinanet-emo-1m": EVERY[2:4],
    "deeplabv3-emo-1m": EVERY[:2],
    "pspnet-emo-1m": EVERY[6:],
    "semantic-fpn-emo2-1m": EVERY[2:4],
    "segformer-emo2-2m": FEW,
}

# What it is, what makes it, side of its input, the model that it follows furthest, and what its place must name.
RELATIVES = (
    ("MobileNetV2 of half the width", published("mobilenetv2_050"), 64, "mobilenetv2-", "conv_stem"),
    ("a deeper MobileNetV2", published("mobilenetv2_110d"), 64, "mobilenetv2-100", "blocks.1.2"),
    ("DeiT of 11 blocks", vit(depth=11), 224, "deit-tiny", "blocks.11"),
    ("DeiT of 13 blocks", vit(depth=13), 224, "deit-tiny", "blocks.12"),
    ("DeiT of a narrower feed-forward", vit(mlp_ratio=3), 224, "deit-tiny", "blocks.0.mlp.fc1"),
    ("DeiT with a distillation token", published("deit_tiny_distilled_patch16_224"), 224, "deit-tiny", "head"),
    ("EMOv2 with a block less", emo2(depths=(2, 2, 7, 3)), 64, "emo2-1m", "stage3.7"),
    ("EMOv2 with a wider stage", emo2(dims=(32, 48, 80, 200)), 64, "emo2-1m", "stage4.0.proj"),
    ("EMOv2 of another expansion", emo2(ratios=(2.0, 2.5, 4.0, 3.5)), 64, "emo2-1m", "stage3.0.eops.0"),
)


def spanning(kind: str):
    """EMOv2's attention with one thing wrong."""

    def forward(self, y):
        b, c, h, w = y.shape
        side, heads, m = self.window, self.heads, self.v.conv.out_channels
        pad = (0, -w % side, 0, -h % side)
        padded = functional.pad(y, pad)
        height, width = padded.shape[2:]
        nh, nw = height // side, width // side
        qk = functional.pad(self.qk(y), pad) if kind == "late" else self.qk(padded)
        v = functional.pad(self.v(y), pad) if kind in ("zero", "late") else self.v(padded)
        v = padded if kind == "after" else v
        inside = functional.pad(torch.ones(1, 1, h, w), pad)
        orders = {
            "remote": ((side, nh, side, nw), (0, 3, 5, 1, 2, 4), (0, 3, 4, 1, 5, 2)),
            "close": ((nh, side, nw, side), (0, 2, 4, 1, 3, 5), (0, 3, 1, 4, 2, 5)),
        }
        patterns = []
        for cuts, there, back in ([orders[kind]] if kind in orders else orders.values()):

            def cut(t):
                t = t.reshape(t.shape[0], t.shape[1], *cuts).permute(there)
                return t.reshape(-1, t.shape[3], side * side)

            q, k = cut(qk).reshape(-1, 2, heads, self.head, side * side).unbind(1)
            u = cut(v).reshape(-1, heads, v.shape[1] // heads, side * side)
            scores = q.transpose(-2, -1) @ k * self.head**-0.5
            if kind == "masked":
                scores = scores + (cut(inside)[:, None] - 1) * 1e9
            out = (scores.softmax(-1) @ u.transpose(-2, -1)).transpose(-2, -1)
            out = out.reshape(b, nh, nw, v.shape[1], side, side).permute(back)
            patterns.append(out.reshape(b, v.shape[1], height, width))
        if kind == "concatenated":
            out = torch.cat([patterns[0][:, : m // 2], patterns[1][:, m // 2 :]], 1)
        else:
            out = sum(patterns)
        return (self.v(out) if kind == "after" else out)[:, :, :h, :w]

    return lambda attention: setattr(attention, "forward", types.MethodType(forward, attention))


def v_first(block: torch_emo.IRMB) -> None:
    """EMO's attention over values that are expanded before it."""

    def forward(self, x):
        y = self.norm(x)
        (b, c, h, w), side = y.shape, self.window
        y = functional.pad(y, (0, -w % side, 0, -h % side))
        height, width = y.shape[2:]
        nh, nw = height // side, width // side

        def cut(t):
            t = t.reshape(b, t.shape[1], side, nh, side, nw).permute(0, 3, 5, 1, 2, 4)
            return t.reshape(-1, t.shape[3], side * side)

        heads, values = c // self.head, self.v(y)
        q, k = cut(self.qk(y)).reshape(-1, 2, heads, self.head, side * side).unbind(1)
        u = cut(values).reshape(-1, heads, values.shape[1] // heads, side * side)
        out = (q.transpose(-2, -1) @ k * self.head**-0.5).softmax(-1) @ u.transpose(-2, -1)
        out = out.transpose(-2, -1).reshape(b, nh, nw, -1, side, side).permute(0, 3, 4, 1, 5, 2)
        y = out.reshape(b, -1, height, width)[:, :, :h, :w]
        return x + self.proj(y + self.conv_local(y))

    block.forward = types.MethodType(forward, block)


def unscaled(block: torch_emo.IIRMB) -> None:
    def forward(self, x):
        y = self.eops[0](self.norm(x))
        return x + self.proj(y + self.conv_local(y))

    block.forward = types.MethodType(forward, block)


def unbounded(norm) -> None:
    norm.act = nn.ReLU()


def placeless(model: VisionTransformer) -> None:
    model._pos_embed = lambda x: torch.cat([model.cls_token.expand(x.shape[0], -1, -1), x], 1)


def put(**attributes):
    def change(module) -> None:
        for name, value in attributes.items():
            assert hasattr(module, name), name
            setattr(module, name, value)

    return change


def resized(**changes):
    """Every resize of the kind that a mode names, with other options."""

    def change(model) -> None:
        interpolate, forward = functional.interpolate, model.forward

        def other(*arguments, **options):
            same = options["mode"] == changes.get("of", "bilinear")
            options |= {name: value for name, value in changes.items() if same and name != "of"}
            return interpolate(*arguments, **options)

        def wrong(x):
            with unittest.mock.patch.object(functional, "interpolate", other):
                return forward(x)

        model.forward = wrong

    return change


def joined(order):
    """Maps that are joined, in another order."""

    def change(model) -> None:
        cat, forward = torch.cat, model.forward

        def other(maps, dim=0):
            return cat(list(order(list(maps))), dim)

        def wrong(x):
            with unittest.mock.patch.object(torch, "cat", other):
                return forward(x)

        model.forward = wrong

    return change


def rotated(maps):
    return maps[1:] + maps[:1]


def reversed_channels(model) -> None:
    forward = model.forward
    model.forward = lambda x: forward(x.flip(1))


CORNERS = resized(align_corners=True)
CENTRES = resized(of="nearest", mode="nearest-exact")
ASPP = "decode_head.aspp_modules.2.conv"
UNDILATED = put(dilation=(1, 1), padding=(1, 1))
EXTRA = "neck.extra_layers.1.0.bn"

# What is wrong, in which model, in which module, how it is made, the block and the cause that must be named, and whether
# the weights have to be known for it: what an exporter may fold is told by them alone.
MISTAKES = (
    ("close windows only", "emo2-1m", "stage3.1.eops.0", spanning("close"), "stage3.1", "close-only", False),
    ("remote windows only", "emo2-1m", "stage3.2.eops.0", spanning("remote"), "stage3.2", "remote-only", False),
    ("concatenated", "emo2-1m", "stage3.1.eops.0", spanning("concatenated"), "stage3.1", "concatenated-windows", False),
    ("zeros for padding", "emo2-1m", "stage3.1.eops.0", spanning("zero"), "stage3.1", "zero-padded-values", False),
    ("padding masked", "emo2-1m", "stage4.1.eops.0", spanning("masked"), "stage4.1", "masked-padding", False),
    ("padded late", "emo2-1m", "stage3.1.eops.0", spanning("late"), "stage3.1", "late-padding", False),
    ("v after attention", "emo2-1m", "stage3.3.eops.0", spanning("after"), "stage3.3", "value-after-attention", False),
    ("no LayerScale", "emo2-1m", "stage3.4", unscaled, "stage3.4", "no-layer-scale", True),
    ("another epsilon", "emo2-1m", "stage3.1.norm.norm", put(eps=1e-5), "stage3.1", "norm-epsilon", False),
    ("v before attention", "emo-1m", "stage3.1", v_first, "stage3.1", "value-before-attention", False),
    ("ReLU", "mobilenetv2-100", "blocks.2.1.bn2", unbounded, "blocks.2.1", "relu", False),
    ("another epsilon", "mobilenetv2-100", "blocks.3.1.bn2", put(eps=1e-2), "blocks.3.1", "norm-epsilon", True),
    ("no position embedding", "deit-tiny", "", placeless, "patch_embed", "no-position-embedding", True),
    ("mean of all but the class token", "deit-tiny", "", put(global_pool="avg"), "head", "mean-pooled", False),
    ("another epsilon", "deit-tiny", "blocks.5.norm2", put(eps=1e-3), "blocks.5", "norm-epsilon", False),
    ("no scale", "deit-tiny", "blocks.2.attn", put(scale=1.0, fused_attn=False), "blocks.2", "attention-scale", True),
    ("GELU by tanh", "deit-tiny", "blocks.4.mlp", put(act=nn.GELU("tanh")), "blocks.4", "tanh-gelu", False),
    ("corners", "segformer-emo2-2m", "", CORNERS, "decode_head.convs.1", "corner-aligned", False),
    ("corners", "deeplabv3-emo-1m", "", CORNERS, "logits", "corner-aligned", False),
    ("corners", "pspnet-emo-1m", "", CORNERS, "decode_head.psp_modules.1", "corner-aligned", False),
    ("centres", "retinanet-emo-1m", "", CENTRES, "neck.lateral_convs.1", "nearest-rounding", False),
    ("reversed", "segformer-emo2-2m", "", joined(reversed), "decode_head.fusion_conv", "exchanged-levels", False),
    ("pool last", "deeplabv3-emo-1m", "", joined(rotated), "decode_head.bottleneck", "exchanged-levels", False),
    ("undilated", "deeplabv3-emo-1m", ASPP, UNDILATED, "decode_head.aspp_modules.2", "dilation", False),
    ("RGB", "ssdlite-emo-1m", "", reversed_channels, "backbone.stage0.0", "exchanged-channels", False),
    ("RGB", "semantic-fpn-emo2-1m", "", reversed_channels, "backbone.stage0.0", "exchanged-channels", False),
    ("another epsilon", "ssdlite-emo-1m", EXTRA, put(eps=1e-5), "neck.extra_layers.1.0", "norm-epsilon", True),
)


def built(make) -> nn.Module:
    return formula.load(make(), seed=0)[0]


def export(model: nn.Module, side: int, form: str, path: pathlib.Path) -> None:
    dynamo, opset, free = EXPORTS[form]
    options = {"input_names": ["images"], "opset_version": opset, "dynamo": dynamo, "verbose": False}
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},) if free else None
        options |= {"dynamic_shapes": shapes, "external_data": False}
    elif free:
        options["dynamic_axes"] = {"images": {0: "batch"}}
    # Of one image dynamo would write a batch that is one.
    images = torch.zeros(2 if dynamo and free else 1, 3, side, side)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), path, **options)


def verdict(emo: str, path: pathlib.Path, *arguments: str) -> dict:
    command = [emo, "verify", str(path), "--test-inputs", "1", "--format", "json", *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout, f"{path.name}: exit {run.returncode}, {run.stderr}"
    return json.loads(run.stdout)


WEIGHTS = ("--weights", "formula:0")


def judge_file(emo: str, path: pathlib.Path, name: str, parameters: int) -> list[str]:
    """What is not as it should be of a right file."""
    _, side = MODELS[name]
    found = []
    for weights in ((), WEIGHTS):
        judged = verdict(emo, path, *weights)
        if (judged["verdict"], judged["model"]) != ("pass", name):
            found.append(f"{judged['verdict']} as {judged['model']} {weights}: {judged['reason']}")
            continue
        claim = judged["claim"]
        if not claim["holds"] or claim["params"] != parameters:
            found.append(f"expected {parameters} parameters, found {claim['params']}: {claim['reason']}")
        if judged["weights"]["differing"]:
            found.append(f"{len(judged['weights']['differing'])} tensors are not the formula's")
    again = path.with_suffix(".again.onnx")
    published_name, _, window = name.partition(", window ")
    command = [emo, "export", published_name, "--weights", str(path), "--size", str(side), "-o", str(again)]
    run = subprocess.run(command + (["--window", window] if window else []), capture_output=True, text=True)
    if run.returncode:
        found.append(f"not exported again: {run.stderr.strip()}")
    else:
        judged = verdict(emo, again, *WEIGHTS)
        if (judged["verdict"], judged["model"]) != ("pass", name):
            found.append(f"exported again: {judged['verdict']} as {judged['model']}: {judged['reason']}")
    return found


def judge_relative(emo: str, path: pathlib.Path, model: str, place: str) -> list[str]:
    judged = verdict(emo, path)
    departure = judged["departure"]
    if (judged["verdict"], judged["cause"], judged["model"]) != ("fail", "not-emo", None):
        return [f"expected a departure, found {judged['verdict']} as {judged['model']}: {judged['reason']}"]
    if not departure["variant"].startswith(model) or place not in departure["reason"]:
        return [f"expected {model} to be left at {place}, found {judged['reason']}"]
    return []


def judge_mistake(emo: str, path: pathlib.Path, block: str, cause: str, by_weights: bool) -> list[str]:
    found = []
    for weights in ((WEIGHTS,) if by_weights else ((), WEIGHTS)):
        judged = verdict(emo, path, *weights)
        if (judged["verdict"], judged["first_divergence"], judged["cause"]) != ("fail", block, cause):
            place = f"{judged['cause']} in {judged['first_divergence']}"
            found.append(f"expected {cause} in {block} {weights}, found {judged['verdict']}, {place}: {judged['reason']}")
    return found


def files(folder: pathlib.Path):
    """Right files: what it is, its path, what judges it."""
    for name, forms in FILES.items():
        make, side = MODELS[name]
        model = built(make)
        names = dict(model.named_parameters())
        parameters = sum(names[name].numel() for name in names if not name.startswith("auxiliary_head."))
        for form in dict.fromkeys(form for form, _ in forms):
            whole = folder / f"{name} by {form}.onnx"
            export(model, side, form, whole)
            for tool in (tool for own, tool in forms if own == form):
                path = folder / f"{name} by {form} {tool}.onnx"
                onnx.save(TOOLS[tool](onnx.load(whole)), path)
                yield path.stem, path, functools.partial(judge_file, name=name, parameters=parameters)


def relatives(folder: pathlib.Path):
    for what, make, side, model, place in RELATIVES:
        path = folder / f"{what}.onnx"
        export(built(make), side, "script", path)
        yield what, path, functools.partial(judge_relative, model=model, place=place)


def mistakes(folder: pathlib.Path):
    for what, name, module, change, block, cause, by_weights in MISTAKES:
        make, side = MODELS[name]
        model = built(make)
        change(model.get_submodule(module))
        path = folder / f"{what} in {name}.onnx"
        # TorchScript exports neither pooling to bins nor resizing between centres.
        form = "dynamo, 20" if name.startswith("pspnet") or change is CENTRES else "script"
        export(model, side, form, path)
        yield path.stem, path, functools.partial(judge_mistake, block=block, cause=cause, by_weights=by_weights)


def main(emo: str, *only: str) -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    start = time.monotonic()
    tables = {"files": files, "relatives": relatives, "mistakes": mistakes}
    judged, differences = [], 0
    with tempfile.TemporaryDirectory() as temporary, concurrent.futures.ThreadPoolExecutor(2) as workers:
        for table in only or tables:
            for what, path, judge in tables[table](pathlib.Path(temporary)):
                judged.append((what, workers.submit(judge, emo, path)))
        for what, verdicts in judged:
            for difference in verdicts.result():
                differences += 1
                print(f"{what}: {difference}", flush=True)
    seconds = time.monotonic() - start
    print(f"{len(judged)} files in {seconds:.0f} s, {differences} verdicts not as they should be")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main(*sys.argv[1:])
