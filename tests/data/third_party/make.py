"""Writes the ONNX files of this folder: emo-tiny with formula:0, as PyTorch's exporters and others write it.

    ../../../target/torch/bin/python make.py ../../../../shared/torch

Right files, and wrong ones that differ from a right one in the mistake that their name says. They are committed: a
test that judges third-party files needs nothing else.
"""

import sys

import onnx
import onnxslim
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16

sys.path.insert(0, sys.argv[1])
import formula  # noqa: E402
import torch_emo  # noqa: E402

TINY = {"stem": 8, "depths": [1, 2, 2, 2], "dims": [8, 16, 24, 32], "ratios": [2.0] * 4, "heads": [8] * 4}
IMAGE = torch.zeros(1, 3, 224, 224)


def tiny():
    return formula.load(torch_emo.EMO(TINY, classes=10), seed=0)[0].eval()


def export(model, name, **options):
    torch.onnx.export(model, (IMAGE,), name, input_names=["input"], output_names=["logits"], **options)


def tiles(y, window):
    """Contiguous windows in place of strided ones: the two factors of each side change places."""
    b, c, h, w = y.shape
    y = y.reshape(b, c, h // window, window, w // window, window)
    return y.permute(0, 2, 4, 1, 3, 5).reshape(-1, c, window, window)


class Tiled(torch_emo.IRMB):
    def forward(self, x):
        if not self.head:
            return super().forward(x)
        y = self.norm(x)
        (b, c, h, w), n = y.shape, self.window**2
        heads = c // self.head
        y = tiles(y, self.window)
        q, k = self.qk(y).reshape(-1, 2, heads, self.head, n).unbind(1)
        a = (q.transpose(-2, -1) @ k * self.head**-0.5).softmax(-1)
        t = y.reshape(-1, heads, self.head, n).transpose(-2, -1)
        y = self.v((a @ t).transpose(-2, -1).reshape(-1, c, self.window, self.window))
        m, down, across = y.shape[1], h // self.window, w // self.window
        y = y.reshape(b, down, across, m, self.window, self.window).permute(0, 3, 1, 4, 2, 5).reshape(b, m, h, w)
        z = self.se(self.conv_local(y))
        y = self.proj(y + z if self.skip else z)
        return x + y if self.skip else y


def wrong_tiles():
    model = tiny()
    for module in model.modules():
        if isinstance(module, torch_emo.IRMB):
            module.__class__ = Tiled
    return model


def wrong_epsilon():
    model = tiny()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3
    return model


def strip(name):
    """Takes out where each node was traced: paths of the machine that it was traced on."""
    model = onnx.load(name)
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
    onnx.save(model, name)


def main():
    export(tiny(), "torchscript_op13.onnx", opset_version=13, dynamo=False)
    export(tiny(), "torchscript_op17_dynamic.onnx", opset_version=17, dynamo=False, dynamic_axes={"input": {0: "batch"}})
    export(tiny(), "dynamo_op18.onnx", opset_version=18, dynamo=True, external_data=False)
    strip("dynamo_op18.onnx")
    onnx.save(onnxslim.slim("torchscript_op17_dynamic.onnx"), "onnxslim_op17.onnx")
    onnx.save(convert_float_to_float16(onnx.load("onnxslim_op17.onnx"), keep_io_types=True), "fp16_op17.onnx")
    export(wrong_tiles(), "wrong_tiles.onnx", opset_version=17, dynamo=False)
    export(wrong_epsilon(), "wrong_bn_eps.onnx", opset_version=17, dynamo=False)


if __name__ == "__main__":
    main()
