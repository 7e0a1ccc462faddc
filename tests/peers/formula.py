"""The formula of the golden vectors, in numpy: tensors computed from their names."""

import numpy as np

MASK = (1 << 64) - 1


def uniform(name: str, count: int, seed: int = 0) -> np.ndarray:
    """`count` numbers in [0, 1): splitmix64 over the FNV-1a hash of `name`."""
    digest = 0xCBF29CE484222325
    for byte in name.encode():
        digest = ((digest ^ byte) * 0x100000001B3) & MASK
    index = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(digest ^ seed) + index * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-24


def network_input(shape, seed: int = 0) -> np.ndarray:
    """The input that the goldens were computed on, float32."""
    values = (2 * uniform("input", int(np.prod(shape)), seed) - 1) * np.sqrt(3)
    return values.astype(np.float32).reshape(shape)
