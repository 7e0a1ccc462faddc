"""Peers on `emo verify A --against B`: PyTorch's two exporters on small models of open shape.

    python against.py EMO

Ten models, each in every spelling: TorchScript and dynamo, open and fixed extents, through onnxsim and onnxslim.
Right pairs pass in tract and in ONNX Runtime, whatever is left open. Ten mistakes, made in PyTorch before the export,
fail, and the place that the report names lies in the module that was changed.
"""

import contextlib
import io
import json
import logging
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

import onnx
import onnxruntime
import onnxsim
import onnxslim
import torch
from torch import nn
from torch.nn import functional

WIDTH = 32
HEADS = 4


class Attention(nn.Module):
    """Multi-head attention with what can be wrong in it as attributes."""

    def __init__(self, width=WIDTH, heads=HEADS, causal=False):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.heads, self.causal = heads, causal
        self.axis, self.scale, self.exchanged = -1, (width // heads) ** -0.5, False

    def forward(self, x, context=None, mask=None):
        context = x if context is None else context
        q, k, v = self.q(x), self.k(context), self.v(context)
        if self.exchanged:
            q, k = k, q

        def split(t):
            return t.reshape(t.shape[0], t.shape[1], self.heads, t.shape[2] // self.heads).transpose(1, 2)

        scores = split(q) @ split(k).transpose(2, 3) * self.scale
        if self.causal:
            n = x.shape[1]
            later = torch.ones(n, n, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -1e4)
        if mask is not None:
            scores = scores + (1.0 - mask[:, None, None, :].to(scores.dtype)) * -1e4
        out = scores.softmax(self.axis) @ split(v)
        return self.o(out.transpose(1, 2).reshape(x.shape[0], x.shape[1], x.shape[2]))


class Mlp(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.up, self.down, self.approximate = nn.Linear(width, 2 * width), nn.Linear(2 * width, width), "none"

    def forward(self, x):
        return self.down(functional.gelu(self.up(x), approximate=self.approximate))


class Layer(nn.Module):
    """A transformer layer; `cross` attends to a context too."""

    def __init__(self, causal=False, cross=False):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.mlp = Attention(causal=causal), Mlp()
        self.cross = Attention() if cross else None
        self.residual = True

    def forward(self, x, mask=None, context=None):
        x = x + self.attention(self.norm1(x), mask=mask)
        if self.cross is not None:
            x = x + self.cross(x, context=context)
        y = self.mlp(self.norm2(x))
        return x + y if self.residual else y


class Encoder(nn.Module):
    """BERT: ids in a table, types in another, a mask."""

    def __init__(self):
        super().__init__()
        self.words, self.types = nn.Embedding(97, WIDTH), nn.Embedding(2, WIDTH)
        self.places = nn.Embedding(64, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, ids, mask, types):
        places = torch.arange(ids.shape[1])
        x = self.words(ids) + self.types(types) + self.places(places)
        for layer in self.layers:
            x = layer(x, mask=mask)
        return self.head(x)


class Decoder(nn.Module):
    """GPT: causal, logits of every word but the last."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(89, WIDTH), nn.Embedding(64, WIDTH)
        self.layers = nn.ModuleList(Layer(causal=True) for _ in range(2))
        self.norm, self.start, self.end = nn.LayerNorm(WIDTH), 0, -1

    def forward(self, ids):
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.cut(self.norm(x)) @ self.words.weight.t()

    def cut(self, x):
        return x[:, self.start : x.shape[1] + self.end]


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.head = nn.Linear(WIDTH, 7)

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


def conv(inputs, outputs, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Join(nn.Module):
    exchanged = False

    def forward(self, a, b):
        return torch.cat([b, a] if self.exchanged else [a, b], 1)


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.bottom = conv(3, 8), conv(8, 8, 2), conv(8, 8, 2)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.join1, self.join2 = Join(), Join()
        self.third, self.fourth = conv(16, 8), conv(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, image):
        a = self.first(image)
        b = self.second(a)
        x = self.third(self.join1(self.up(self.bottom(b)), b))
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.fourth(self.join2(x, a)))


class Pyramid(nn.Module):
    """A detector: a feature pyramid, a head on each level, boxes and scores of all levels."""

    def __init__(self):
        super().__init__()
        self.stem, self.c3, self.c4 = conv(3, 8, 2), conv(8, 8, 2), conv(8, 8, 2)
        self.side3, self.side4 = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.smooth = conv(8, 8)
        self.boxes, self.scores = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 6, 3, 1, 1)

    def forward(self, image):
        c3 = self.c3(self.stem(image))
        c4 = self.c4(c3)
        p4 = self.side4(c4)
        p3 = self.smooth(self.side3(c3) + functional.interpolate(p4, size=c3.shape[2:], mode="nearest"))
        boxes, scores = [], []
        for level in (p3, p4):
            boxes.append(self.boxes(level).permute(0, 2, 3, 1).reshape(level.shape[0], -1, 4))
            scores.append(self.scores(level).permute(0, 2, 3, 1).reshape(level.shape[0], -1, 3))
        return torch.cat(boxes, 1), torch.cat(scores, 1).sigmoid()


class ConvNext(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 4, 4)
        self.local = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 7, 1, 3, groups=WIDTH) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, 1e-6) for _ in range(2))
        self.mlps = nn.ModuleList(Mlp() for _ in range(2))
        self.gamma = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.head = nn.Linear(WIDTH, 7)

    def forward(self, image):
        x = self.stem(image)
        for local, norm, mlp in zip(self.local, self.norms, self.mlps):
            x = x + (self.gamma * mlp(norm(local(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """MobileNet's block with a squeeze-excite."""

    def __init__(self, width, stride):
        super().__init__()
        self.expand, self.project = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(3 * width, width, 1)
        self.norm = nn.BatchNorm2d(3 * width)
        self.depthwise = nn.Conv2d(3 * width, 3 * width, 3, stride, 1, groups=3 * width)
        self.squeeze, self.excite = nn.Conv2d(3 * width, 8, 1), nn.Conv2d(8, 3 * width, 1)
        self.shortcut = stride == 1

    def forward(self, x):
        y = functional.hardswish(self.norm(self.depthwise(functional.hardswish(self.expand(x)))))
        y = y * functional.hardsigmoid(self.excite(functional.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        y = self.project(y)
        return x + y if self.shortcut else y


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8, 2)
        self.blocks = nn.Sequential(Inverted(8, 1), Inverted(8, 2), Inverted(8, 1))
        self.head = nn.Linear(8, 7)

    def forward(self, image):
        return self.head(functional.adaptive_avg_pool2d(self.blocks(self.stem(image)), 1).flatten(1))


class Translator(nn.Module):
    """Encoder and decoder with cross attention; two sequences of two lengths."""

    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Embedding(61, WIDTH), nn.Embedding(53, WIDTH)
        self.encoder, self.decoder = Layer(), Layer(causal=True, cross=True)
        self.head = nn.Linear(WIDTH, 53)

    def forward(self, source, target, mask):
        context = self.encoder(self.source(source), mask=mask)
        return self.head(self.decoder(self.target(target), context=context))


class Towers(nn.Module):
    """CLIP: an image and a text, and how well they fit."""

    def __init__(self):
        super().__init__()
        self.patches, self.words = nn.Conv2d(3, WIDTH, 16, 16), nn.Embedding(71, WIDTH)
        self.vision, self.text = Layer(), Layer(causal=True)
        self.image_head, self.text_head = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 16)

    def forward(self, image, ids):
        x = self.vision(self.patches(image).flatten(2).transpose(1, 2)).mean(1)
        y = self.text(self.words(ids))[:, -1]
        x, y = self.image_head(x), self.text_head(y)
        return 4.0 * (x / x.norm(dim=-1, keepdim=True)) @ (y / y.norm(dim=-1, keepdim=True)).t()


class Windows(nn.Module):
    """Swin: attention within windows of 4 by 4, which are shifted in the second layer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.head, self.shift = nn.Linear(WIDTH, 7), 2

    def windows(self, layer, x):
        b, h, w, c = x.shape
        x = x.reshape(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        x = layer(x).reshape(b, h // 4, w // 4, 4, 4, c)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)

    def forward(self, image):
        x = self.patches(image).permute(0, 2, 3, 1)
        x = self.windows(self.layers[0], x)
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = self.windows(self.layers[1], x)
        return self.head(x.mean((1, 2)))


def ids(rows, *shape):
    return torch.randint(0, rows, shape)


def ones(*shape):
    return torch.ones(shape, dtype=torch.int64)


PIXELS = {0: "batch", 2: "height", 3: "width"}
TEXT = {0: "batch", 1: "words"}
# Name, model, inputs, the open axes of each.
MODELS = (
    ("encoder", Encoder, {"ids": ids(97, 2, 12), "mask": ones(2, 12), "types": ids(2, 2, 12)}, (TEXT, TEXT, TEXT)),
    ("decoder", Decoder, {"ids": ids(89, 2, 12)}, (TEXT,)),
    ("vit", Vit, {"image": torch.randn(2, 3, 64, 128)}, (PIXELS,)),
    ("unet", Unet, {"image": torch.randn(2, 3, 64, 128)}, (PIXELS,)),
    ("pyramid", Pyramid, {"image": torch.randn(2, 3, 64, 128)}, (PIXELS,)),
    ("convnext", ConvNext, {"image": torch.randn(2, 3, 64, 128)}, (PIXELS,)),
    ("mobilenet", MobileNet, {"image": torch.randn(2, 3, 64, 128)}, (PIXELS,)),
    (
        "translator",
        Translator,
        {"source": ids(61, 2, 12), "target": ids(53, 2, 9), "mask": ones(2, 12)},
        (TEXT, {0: "batch", 1: "target_words"}, TEXT),
    ),
    (
        "towers",
        Towers,
        {"image": torch.randn(2, 3, 64, 128), "ids": ids(71, 5, 12)},
        (PIXELS, {0: "texts", 1: "words"}),
    ),
    ("windows", Windows, {"image": torch.randn(2, 3, 64, 128)}, ({0: "batch"},)),
)


def mistake(path: str, change):
    """A change of the module at `path`."""

    def apply(model: nn.Module) -> None:
        change(model.get_submodule(path))

    return apply


def put(**attributes):
    def change(module) -> None:
        for name, value in attributes.items():
            assert hasattr(module, name), name
            setattr(module, name, value)

    return change


def transposed(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight.t().clone())


def masked_wrongly(model: Encoder) -> None:
    forward = model.layers[1].forward
    model.layers[1].forward = lambda x, mask=None: forward(x, mask=1 - mask)


# What is wrong, in which model, how it is made, and the module or the operators that must be named.
MISTAKES = (
    ("transposed projection", "encoder", mistake("layers.1.attention.o", transposed), ("layers.1.attention.o",)),
    ("softmax over the wrong axis", "encoder", mistake("layers.0.attention", put(axis=-2)), ("layers.0.attention",)),
    ("another epsilon", "convnext", mistake("norms.1", put(eps=1e-3)), ("norms.1",)),
    ("exchanged q and k", "vit", mistake("layers.1.attention", put(exchanged=True)), ("layers.1.attention",)),
    ("dropped residual", "decoder", mistake("layers.0", put(residual=False)), ("layers.0", "layers.1.norm1")),
    ("wrong slice", "decoder", put(start=1, end=0), ("Slice",)),
    ("GELU by tanh", "convnext", mistake("mlps.0", put(approximate="tanh")), ("mlps.0",)),
    ("scale left out", "translator", mistake("decoder.cross", put(scale=1.0)), ("decoder.cross",)),
    ("exchanged branches", "unet", mistake("join2", put(exchanged=True)), ("join2",)),
    ("another dilation", "mobilenet", mistake("blocks.2.depthwise", put(dilation=(2, 2), padding=(2, 2))), ("blocks.2",)),
    ("reflected padding", "pyramid", mistake("boxes", put(padding_mode="reflect")), ("boxes",)),
    ("another shift", "windows", put(shift=1), ("Slice", "Concat")),
    ("mask the other way", "encoder", masked_wrongly, ("layers.1",)),
    ("words by another table", "towers", mistake("words", lambda m: nn.init.normal_(m.weight)), ("words",)),
)


def built(name: str) -> nn.Module:
    torch.manual_seed(len(name))
    return next(model for own, model, *_ in MODELS if own == name)().eval()


def export(model: nn.Module, name: str, path: pathlib.Path, dynamo: bool, is_open: bool = True) -> pathlib.Path:
    """The model as one of PyTorch's exporters writes it, with open axes or fixed ones."""
    _, _, inputs, axes = next(row for row in MODELS if row[0] == name)
    if dynamo:
        shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis in each} for each in axes)
        options = {"opset_version": 18, "dynamic_shapes": shapes if is_open else None, "external_data": False}
    else:
        options = {"opset_version": 17, "dynamic_axes": dict(zip(inputs, axes)) if is_open else None}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, tuple(inputs.values()), path, dynamo=dynamo, input_names=list(inputs), verbose=False, **options
        )
    return path


def through(tool, source: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    onnx.save(tool(onnx.load(source)), path)
    return path


def library() -> str:
    folder = pathlib.Path(onnxruntime.__file__).parent / "capi"
    return str(next(iter(sorted(folder.glob("libonnxruntime*")))))


ENGINES = {"tract": (), "ort": ("--runtime", "ort", "--ort-library", library())}


def against(emo: str, file: pathlib.Path, truth: pathlib.Path, *arguments: str) -> dict:
    command = [emo, "verify", str(file), "--against", str(truth), "--test-inputs", "2", "--format", "json", *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    if not run.stdout:
        return {"verdict": f"exit {run.returncode}: {run.stderr.strip()}", "reason": None}
    return json.loads(run.stdout)


def named(verdict: dict, places: tuple[str, ...]) -> bool:
    """Whether the place, or its counterpart, lies in one of the modules or is one of the operators."""
    place = verdict.get("first_divergence")
    nodes = [node for node in (place, (place or {}).get("counterpart")) if node]
    return any(
        node["operator"] == at or node["scope"] == at or node["scope"].startswith(f"{at}.")
        for node in nodes
        for at in places
    )


def reproduces(piece: pathlib.Path) -> bool:
    """Whether ONNX Runtime computes something else of the piece than it should give."""
    folder = piece.with_name(f"{piece.stem}_data") / "test_data_set_0"

    def recorded(what: str) -> list:
        paths = sorted(folder.glob(f"{what}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
        return [onnx.numpy_helper.to_array(onnx.load_tensor(path)) for path in paths]

    onnx.checker.check_model(onnx.load(piece))
    session = onnxruntime.InferenceSession(piece, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, dict(zip((port.name for port in session.get_inputs()), recorded("input"))))
    (expected,) = recorded("output")
    return found.shape == expected.shape and abs(found - expected).max() > 1e-5 * abs(expected).max()


def main(emo: str) -> None:
    logging.disable(logging.WARNING)
    start = time.monotonic()
    differences, runs, worst, pieces = [], 0, 0.0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name, *_ in MODELS:
            model = built(name)
            script = export(model, name, folder / f"{name}.ts.onnx", dynamo=False)
            dynamo = export(model, name, folder / f"{name}.dynamo.onnx", dynamo=True)
            fixed = export(model, name, folder / f"{name}.fixed.onnx", dynamo=False, is_open=False)
            simplified = through(lambda m: onnxsim.simplify(m)[0], script, folder / f"{name}.sim.onnx")
            slim = through(onnxslim.slim, dynamo, folder / f"{name}.slim.onnx")
            pairs = [(script, dynamo), (dynamo, script), (fixed, dynamo), (dynamo, fixed), (simplified, slim)]
            for engine, arguments in ENGINES.items():
                for file, truth in pairs:
                    verdict = against(emo, file, truth, *arguments)
                    runs += 1
                    lacks = "tract has no com.microsoft."
                    if engine == "tract" and (verdict["reason"] or "").startswith(lacks):
                        # onnxslim writes ONNX Runtime's own attention.
                        continue
                    if verdict["verdict"] != "pass":
                        differences.append(
                            f"{file.name} against {truth.name} in {engine}: {verdict['verdict']}, {verdict['reason']}"
                        )
                        continue
                    shares = [row["max_abs"] / row["peak"] for row in verdict["outputs"]]
                    worst = max(worst, *shares)
        for i, (what, name, change, places) in enumerate(MISTAKES):
            model = built(name)
            change(model)
            dynamo = i % 2 == 1
            wrong = export(model, name, folder / f"wrong-{i}.onnx", dynamo=dynamo)
            truths = [folder / f"{name}.{form}.onnx" for form in ("ts", "dynamo")]
            for truth in truths:
                for engine, arguments in ENGINES.items():
                    piece = folder / f"piece-{i}-{truth.stem}-{engine}.onnx"
                    verdict = against(emo, wrong, truth, "--save-node", str(piece), *arguments)
                    runs += 1
                    found = f"{what} in {name} against {truth.name} in {engine}"
                    if verdict["verdict"] != "fail":
                        differences.append(f"{found}: {verdict['verdict']}, {verdict['reason']}")
                    elif not named(verdict, places):
                        differences.append(f"{found}: expected a place in {places}, found {verdict['reason']}")
                    elif not piece.exists() or not reproduces(piece):
                        differences.append(f"{found}: the piece shows nothing")
                    else:
                        pieces += 1
    for difference in differences:
        print(difference)
    print(f"right files are off by {worst:.1e} of the largest value at most; {pieces} pieces show their mistakes")
    print(f"{runs} verdicts in {time.monotonic() - start:.0f} s, {len(differences)} not as they should be")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main(sys.argv[1])
