"""Writes elements.onnx and elements.bin with the `onnx` package (1.23.2): what `../elements.rs` reads.

Each element type comes three times: `NAME/typed`, `NAME/raw` and, in elements.bin, `NAME/external`.

    python elements.py
"""

from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, external_data_helper, helper

VALUES = {
    "FLOAT": [0.0, -0.0, 1.5, -2.25, 3.4028234663852886e38],
    "DOUBLE": [0.0, -0.0, 0.1, -1e300, 16777217.0],
    "FLOAT16": [0.0, -0.0, 1.5, -65504.0, 5.960464477539063e-08],
    "BFLOAT16": [0.0, -0.0, 1.5, -128.0, 1.0078125],
    "INT8": [0, 1, -1, 127, -128],
    "INT16": [0, 1, -1, 32767, -32768],
    "INT32": [0, 1, -1, 2147483647, -2147483648],
    "INT64": [0, 1, -1, 9223372036854775807, -9223372036854775808],
    "UINT8": [0, 1, 2, 254, 255],
    "UINT16": [0, 1, 2, 65534, 65535],
    "UINT32": [0, 1, 2, 4294967294, 4294967295],
    "UINT64": [0, 1, 2, 4294967296, 9223372036854775807],
    "BOOL": [True, False, False, True, True],
    "COMPLEX64": [0, 1.5 - 2.25j, 1j, -1, 3],
    "COMPLEX128": [0, 1.5 - 2.25j, 1j, -1, 3],
    "FLOAT8E4M3FN": [0.0, 1.0, -1.5, 448.0, -0.0],
    "FLOAT8E4M3FNUZ": [0.0, 1.0, -1.5, 240.0, 2.0],
    "FLOAT8E5M2": [0.0, 1.0, -1.5, 57344.0, -0.0],
    "FLOAT8E5M2FNUZ": [0.0, 1.0, -1.5, 57344.0, 2.0],
    "FLOAT8E8M0": [1.0, 2.0, 0.5, 4.0, 1024.0],
    "UINT4": [0, 1, 2, 14, 15],
    "INT4": [0, 1, -1, 7, -8],
    "FLOAT4E2M1": [0.0, 1.0, -1.5, 6.0, 0.5],
    "UINT2": [0, 1, 2, 3, 1],
    "INT2": [0, 1, -1, -2, 1],
    "FLOAT6E2M3": [0.0, 1.0, -1.5, 7.5, 0.125],
    "FLOAT6E3M2": [0.0, 1.0, -1.5, 28.0, 0.0625],
}

here = Path(__file__).parent
tensors, external = [], b""
for name, values in VALUES.items():
    dtype = TensorProto.DataType.Value(name)
    typed = helper.make_tensor(f"{name}/typed", dtype, [1, 5], values)
    array = numpy.array(values).astype(helper.tensor_dtype_to_np_dtype(dtype))
    raw = onnx.numpy_helper.from_array(array.reshape(1, 5), f"{name}/raw")
    outside = TensorProto()
    outside.CopyFrom(raw)
    outside.name = f"{name}/external"
    external_data_helper.set_external_data(outside, "elements.bin", len(external), len(raw.raw_data))
    outside.ClearField("raw_data")
    external += raw.raw_data + b"\xff"  # nothing is aligned
    tensors += [typed, raw, outside]

graph = helper.make_graph([], "elements", [], [], tensors)
(here / "elements.bin").write_bytes(external)
(here / "elements.onnx").write_bytes(helper.make_model(graph).SerializeToString())
