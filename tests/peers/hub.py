"""Readers of other zoos on ours: ONNX Hub's of the manifest, Hugging Face's of a model card.

    python hub.py EMO

In a venv of its own (hub.txt): onnx 1.17 is the last that has the hub.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import onnx
import onnx.hub
from huggingface_hub import ModelCard

OURS = pathlib.Path(__file__).parents[2] / "zoo" / "manifest.json"
THIRD_PARTY = pathlib.Path(__file__).parents[3] / "shared" / "third_party"


def run(*arguments: str) -> None:
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


def read(entry: dict) -> onnx.hub.ModelInfo:
    """What ONNX Hub's reader makes of an entry is what the entry says."""
    info = onnx.hub.ModelInfo(entry)
    assert (info.model, info.model_path, info.opset) == (entry["model"], entry["model_path"], entry["opset_version"])
    assert info.model_sha == entry["metadata"]["model_sha"]
    assert info.tags == set(entry["metadata"]["tags"]) and info.tags
    assert info.metadata["io_ports"]["inputs"] and info.metadata["io_ports"]["outputs"]
    releases = {opset: release for release, _, opset, *_ in reversed(onnx.helper.VERSION_TABLE)}
    assert entry["onnx_version"] == releases[info.opset], (entry["onnx_version"], info.opset)
    return info


def ports(values: list) -> list[dict]:
    """Ports of a graph as ONNX Hub's manifest has them."""
    found = []
    for value in values:
        tensor = value.type.tensor_type
        shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        found.append({"name": value.name, "shape": shape, "type": f"tensor({dtype})"})
    return found


def hold(info: onnx.hub.ModelInfo, zoo: pathlib.Path) -> None:
    """The digest is the file's, and so are the ports; an extent that the file leaves open may be known to us."""
    content = (zoo / info.model_path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == info.model_sha
    graph = onnx.load_from_string(content).graph
    found = info.metadata["io_ports"]
    assert found["inputs"] == ports(graph.input), found
    for told, declared in zip(found["outputs"], ports(graph.output), strict=True):
        assert told.pop("meaning", True), told
        assert len(told["shape"]) == len(declared["shape"]), (told, declared)
        pairs = zip(told["shape"], declared["shape"])
        declared["shape"] = [ours if isinstance(theirs, str) else theirs for ours, theirs in pairs]
        assert told == declared, (told, declared)


def card(path: pathlib.Path, task: str) -> None:
    """Hugging Face's reader finds the front matter; the example for Python compiles."""
    loaded = ModelCard.load(path)
    data = loaded.data.to_dict()
    assert data["license"] == "other" and data["license_name"] == "not-stated", data
    assert data["library_name"] == "onnx" and data["pipeline_tag"] == task, data
    assert {"onnx", "emo", "vision", "untrained"} <= set(data["tags"]), data
    example = loaded.text.split("```python\n")[1].split("```")[0]
    compile(example, str(path), "exec")


def main(emo: str) -> None:
    emo = str(pathlib.Path(emo).resolve())
    with tempfile.TemporaryDirectory() as folder:
        zoo = pathlib.Path(folder)
        run(emo, "zoo", "build", "--out", folder, "--models", "emo-1m,ssdlite-emo-1m", "--targets", "portable,qnn")
        if THIRD_PARTY.exists():
            for name in ("emo_1m_torchscript_op13", "emo_1m_torchscript_op17_dynamic", "emo_1m_dynamo_op18"):
                run(emo, "zoo", "add", folder, str(THIRD_PARTY / f"{name}.onnx"))
        run(emo, "zoo", "card", folder, "--all")
        entries = json.loads((zoo / "manifest.json").read_text())
        for entry in entries:
            hold(read(entry), zoo)
        card(zoo / "emo-1m" / "README.md", "image-classification")
        card(zoo / "ssdlite-emo-1m" / "README.md", "object-detection")
    ours = json.loads(OURS.read_text())
    assert len({read(entry).model_path for entry in ours}) == len(ours)
    print(f"ONNX Hub's reader: {len(entries)} files and {len(ours)} entries; Hugging Face's: the cards")


if __name__ == "__main__":
    main(*sys.argv[1:])
