"""Pillow and NumPy on the pictures that `emo verify --data PICTURE` feeds a network.

    python images.py EMO

The published test transform (Resize 256 bicubic, CenterCrop 224, ImageNet's mean and deviation), as torchvision
does it on Pillow's pictures, of PNGs that a rule draws: wide, tall, smaller than the crop, larger, grey, with a
palette, with transparency. Every level must be Pillow's; the normalised values differ by rounding at most.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
CROP, WHOLE = 224, 256

# Height, width, Pillow's mode.
PICTURES = [
    (256, 256, "RGB"), (375, 500, "RGB"), (500, 333, "RGB"), (1000, 997, "RGB"), (64, 48, "RGB"), (31, 200, "RGB"),
    (300, 300, "L"), (240, 320, "P"), (320, 240, "RGBA"),
]


def draw(height: int, width: int, mode: str) -> Image.Image:
    """Noise over waves: sharp and smooth parts, all levels."""
    y, x, channel = np.meshgrid(np.arange(height), np.arange(width), np.arange(4), indexing="ij")
    noise = np.random.default_rng(height * 7919 + width).integers(-40, 41, (height, width, 4))
    waves = 127.5 + 110 * np.sin(x / 9 + channel) * np.cos(y / 13 - channel)
    picture = Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8))
    return picture if mode == "RGBA" else picture.convert("RGB").convert(mode)


def levels(picture: Image.Image) -> np.ndarray:
    """The middle of the resized picture, as torchvision takes it."""
    width, height = picture.size
    short = min(width, height)
    size = (WHOLE, int(WHOLE * height / width)) if width <= height else (int(WHOLE * width / height), WHOLE)
    assert min(size) == WHOLE and short > 0
    resized = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    left, top = (round((side - CROP) / 2) for side in resized.size)
    return np.asarray(resized.crop((left, top, left + CROP, top + CROP)))


def main(emo: str) -> None:
    values = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model = folder / "model.onnx"
        subprocess.run([emo, "export", "emo-1m", "--weights", "formula:0", "--no-verify", "-o", model], check=True, stdout=subprocess.DEVNULL)
        for i, (height, width, mode) in enumerate(PICTURES):
            picture = draw(height, width, mode)
            path, saved = folder / f"{i}.png", folder / str(i)
            picture.save(path)
            command = [emo, "verify", model, "--data", path, "--save-data", saved]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            tensor = onnx.load_tensor(saved / "test_data_set_0" / "input_0.pb")
            found = numpy_helper.to_array(tensor)[0].transpose(1, 2, 0)
            expected = levels(Image.open(path))
            place = f"{height}x{width} {mode}"
            differing = int((np.rint((found * DEVIATION + MEAN) * 255) != expected).sum())
            assert differing == 0, f"{place}: {differing} levels are not Pillow's"
            off = float(np.abs(found - (expected.astype(np.float32) / 255 - MEAN) / DEVIATION).max())
            assert off < 1e-6, f"{place}: off by {off}"
            values += found.size
    print(f"{len(PICTURES)} pictures, {values:,} levels equal to Pillow's")


if __name__ == "__main__":
    main(sys.argv[1])
