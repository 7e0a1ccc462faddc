"""Writes codes.txt: what each code of each float type of 8 bits or less is worth, from ml_dtypes (0.6.0).

A line a type, its codes in ascending order, each value as the hexadecimal bits of a 32-bit float.

    python codes.py
"""

from pathlib import Path

import ml_dtypes
import numpy

TYPES = {
    "FLOAT4E2M1": ("float4_e2m1fn", 4),
    "FLOAT6E2M3": ("float6_e2m3fn", 6),
    "FLOAT6E3M2": ("float6_e3m2fn", 6),
    "FLOAT8E4M3FN": ("float8_e4m3fn", 8),
    "FLOAT8E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "FLOAT8E5M2": ("float8_e5m2", 8),
    "FLOAT8E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "FLOAT8E8M0": ("float8_e8m0fnu", 8),
}

lines = [f"# ml_dtypes {ml_dtypes.__version__}; written by codes.py"]
for name, (dtype, width) in TYPES.items():
    codes = numpy.arange(2**width, dtype=numpy.uint8).view(getattr(ml_dtypes, dtype))
    values = codes.astype(numpy.float32).view(numpy.uint32)
    lines.append(" ".join([name, *(f"{value:x}" for value in values)]))
Path(__file__).with_name("codes.txt").write_text("\n".join(lines) + "\n")
