"""The examples of model cards, run as their readers would run them.

    python cards.py EMO

A card of each kind of model is written from the project's own manifest; the file that its Python example names is
written by the command that the card gives, and has the recorded digest. The example then runs in ONNX Runtime on a
picture that is neither square nor of the input's size, and what it prints is held to the entry.
"""

import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

OURS = pathlib.Path(__file__).parents[2] / "zoo" / "manifest.json"
MODELS = (
    "emo-1m",
    "emo-1m-backbone",
    "ssdlite-emo-1m",
    "retinanet-emo-1m",
    "deeplabv3-emo-1m",
    "segformer-emo2-1m",
)


def run(*arguments: str) -> None:
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


def hold(entry: dict, printed: str) -> None:
    """What an example printed is what the entry promises."""
    outputs, lines = entry["metadata"]["io_ports"]["outputs"], printed.splitlines()
    match entry["task"]:
        case "image-classification":
            best = [int(number) for number in re.findall(r"\d+", printed)]
            assert len(set(best)) == 5 and max(best) < entry["classes"]["count"], printed
        case "image-feature-extraction":
            expected = [f"{port['name']} {tuple(port['shape'])}" for port in outputs]
            assert lines == expected, (printed, expected)
        case "object-detection":
            assert len(lines) == len(outputs) // 2, printed
            for level, line in enumerate(lines):
                found = re.fullmatch(rf"level {level}: \D+ ([01]\.\d\d) at row (\d+), column (\d+)", line)
                assert found and float(found[1]) <= 1, line
                height, width = outputs[level]["shape"][2:]
                assert int(found[2]) < height and int(found[3]) < width, line
        case "image-segmentation":
            shares = [float(line.rsplit(" ", 4)[1].rstrip("%")) for line in lines]
            assert abs(sum(shares) - 100) < 0.1 * len(shares), printed


def main(emo: str) -> None:
    emo = str(pathlib.Path(emo).resolve())
    entries = {entry["model_path"]: entry for entry in json.loads(OURS.read_text())}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(OURS, pathlib.Path(folder) / "manifest.json")
        for model in MODELS:
            run(emo, "zoo", "card", folder, model)
            place = pathlib.Path(folder) / model
            card = (place / "README.md").read_text()
            example = card.split("```python\n")[1].split("```")[0]
            name = re.search(r'InferenceSession\("(.+)"\)', example)[1]
            entry = entries[f"{model}/{name}"]
            assert entry["command"] in card, entry["command"]
            run(emo, *entry["command"].split()[1:], "--no-verify", "-o", str(place / name))
            assert hashlib.sha256((place / name).read_bytes()).hexdigest() == entry["metadata"]["model_sha"]
            noise = np.random.default_rng(0).integers(0, 256, (300, 427, 3), np.uint8)
            Image.fromarray(noise).save(place / "picture.jpg")
            done = subprocess.run([sys.executable, "-c", example], cwd=place, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            hold(entry, done.stdout)
            print(f"{model}: {len(done.stdout.splitlines())} lines, as its entry has it")


if __name__ == "__main__":
    main(*sys.argv[1:])
