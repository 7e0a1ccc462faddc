"""Writes bicubic.txt: what Pillow 12.0.0 makes of pictures that a rule draws.

    python bicubic.py > bicubic.txt
"""

import numpy as np
from PIL import Image

SIDES = [(5, 7, 3, 4), (5, 7, 9, 11), (8, 8, 8, 3), (8, 8, 3, 8), (1, 1, 4, 4), (40, 3, 2, 5), (17, 16, 5, 6), (6, 33, 7, 2)]

print("# Height, width, resized height and width, levels. Written by bicubic.py.")
for tall, wide, height, width in SIDES:
    i = np.arange(tall * wide * 3, dtype=np.uint64)
    levels = ((i * 7919 + i * i * 31 + 17) >> 3).astype(np.uint8).reshape(tall, wide, 3)
    resized = np.asarray(Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC))
    print(tall, wide, height, width, *resized.flatten())
