"""Writes a dense model as PyTorch's two exporters do, and both files through onnxslim.

    python peers.py MODEL SIDE FOLDER

MODEL is ours by name, `segformer-emo2-2m`; the definition is that of ../shared/torch with formula weights, the input
one image of SIDE pixels. Python is that of tests/peers/torch.txt.
"""

import contextlib
import io
import pathlib
import sys
import warnings

import onnx
import onnxslim
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4] / "shared" / "torch"))
import formula  # noqa: E402
import torch_emo  # noqa: E402

# Name, whether by dynamo, opset: those that we write.
EXPORTERS = (("torchscript", False, 17), ("dynamo", True, 20))


def main(name: str, side: str, folder: pathlib.Path) -> None:
    torch.set_num_threads(1)
    head, _, backbone = name.replace("-", "_").partition("_emo")
    model = formula.load(torch_emo.DENSE[head](f"emo{backbone}"), seed=0)[0]
    folder.mkdir(parents=True, exist_ok=True)
    for exporter, dynamo, opset in EXPORTERS:
        path = folder / f"{exporter}.onnx"
        options = {"input_names": ["input"], "opset_version": opset, "dynamo": dynamo, "verbose": False}
        options |= {"external_data": False} if dynamo else {}
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (torch.zeros(1, 3, int(side), int(side)),), path, **options)
        onnx.save(onnxslim.slim(onnx.load(path)), folder / f"{exporter}_onnxslim.onnx")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]))
