"""Runs the onnx package's node tests, and patterns that exporters, optimisers and quantisers write, in every engine.

ONNX Runtime decides, with its optimiser off. Our own evaluation (f64) must agree wherever both run; tract must agree, or
refuse (`verifier/src/run/runtime/faults.rs`). tract gets quantised graphs as the float graphs that they stand for, so it is
held to those: the same pattern with the integers' bounds alone. Exit code 1 on a difference, a line each. With
EMO_ENGINES_ALL set, what is refused is told, too.

    python tests/peers/engines.py target/release/emo [PART-OF-A-NAME]
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test.case.node as node_cases
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

F, U8, I8 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8

# Differences that are no fault of the engine that is judged, by engine and the start of the name: why.
EXCUSED = {
    ("ort", "node_test_ai_onnx_ml_tree_ensemble_single_tree"): "inputs are f32, and a branch of a tree of doubles is at one",
    ("tract", "node_test_nllloss_NCd1d2d3d4d5_mean_weight_expanded"): "a sum of 1,080 terms, one after the other",
    ("ort", "node_test_bitcast_uint32_to_int32"): "inputs are f32, which has not all integers of 32 bits",
}


def random(*shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


class Pattern:
    """A graph in the making: every method adds a node and gives the name of what it writes."""

    def __init__(self, opset=17, plain=False):
        self.opset, self.nodes, self.constants, self.inputs = opset, [], [], {}
        self.domains, self.plain = set(), plain

    def input(self, array):
        name = f"x{len(self.inputs)}"
        self.inputs[name] = array
        return name

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __call__(self, op, *operands, outputs=1, **attributes):
        domain, _, op = op.rpartition(":")
        if domain:
            self.domains.add(domain)
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        operands = [self.constant(o) if isinstance(o, (np.ndarray, np.generic)) else o for o in operands]
        self.nodes.append(helper.make_node(op, operands, names, name=f"n{len(self.nodes)}", domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def quantised(self, x, scale=0.02, zero=128, dtype=np.uint8):
        """A pair of QuantizeLinear and DequantizeLinear; plain, what it bounds its input to."""
        scale, zero = np.float32(scale), dtype(zero)
        if self.plain:
            range = np.iinfo(dtype)
            return self("Clip", x, *[np.float32((bound - float(zero)) * scale) for bound in (range.min, range.max)])
        return self("DequantizeLinear", self("QuantizeLinear", x, scale, zero), scale, zero)

    def model(self, *outputs, types=None):
        types = types or [None] * len(outputs)
        infos = [helper.make_empty_tensor_value_info(o) if t is None else helper.make_tensor_value_info(o, t, None)
                 for o, t in zip(outputs, types)]
        inputs = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                  for n, a in self.inputs.items()]
        graph = helper.make_graph(self.nodes, "pattern", inputs, infos, self.constants)
        sets = [helper.make_opsetid("", self.opset)] + [helper.make_opsetid(d, 1) for d in sorted(self.domains)]
        model = helper.make_model(graph, opset_imports=sets, ir_version=10)
        return model, self.inputs


def pattern(op, *operands, opset=17, outputs=1, types=None, **attributes):
    """A single node; arrays in a list are inputs, others constants."""
    p = Pattern(opset)
    made = [p.input(o[0]) if isinstance(o, list) else o for o in operands]
    named = p(op, *made, outputs=outputs, **attributes)
    return p.model(*([named] if outputs == 1 else named), types=types)


def windows():
    """Convolutions and pools in every way that their attributes can be set."""
    x = random(2, 6, 9, 8)
    pads, auto = [[0, 0, 0, 0], [1, 2, 0, 1], [2, 2, 2, 2]], ["SAME_UPPER", "SAME_LOWER", "VALID"]
    for strides, dilations, group in itertools.product([[1, 1], [2, 3]], [[1, 1], [2, 1]], [1, 2, 6]):
        # ONNX Runtime pads nothing by itself that is dilated.
        for padding in [{"pads": p} for p in pads] + [{"auto_pad": a} for a in auto if dilations == [1, 1]]:
            w = random(12, 6 // group, 3, 2, seed=1)
            yield f"conv_{strides}_{dilations}_{group}_{padding}", pattern(
                "Conv", [x], w, random(12, seed=2), strides=strides, dilations=dilations, group=group, **padding)
            w = random(6, 4, 3, 2, seed=1)
            yield f"convtranspose_{strides}_{dilations}_{group}_{padding}", pattern(
                "ConvTranspose", [x], w, strides=strides, dilations=dilations, group=group, **padding)
    for strides, ceil, padding in itertools.product([[1, 1], [2, 3]], [0, 1], pads[:2] + auto):
        padding = {"auto_pad": padding} if isinstance(padding, str) else {"pads": padding}
        common = dict(kernel_shape=[3, 2] if padding != {"pads": [1, 2, 0, 1]} else [3, 3], strides=strides, ceil_mode=ceil, **padding)
        yield f"maxpool_{common}", pattern("MaxPool", [x], **common)
        for include in [0, 1]:
            yield f"averagepool_{include}_{common}", pattern("AveragePool", [x], count_include_pad=include, **common, opset=19)
    yield "maxpool_indices", pattern("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2], outputs=2)
    for axes, op in itertools.product([1, 3], ["Conv", "MaxPool", "AveragePool"]):
        extra = {"kernel_shape": [2] * axes} if op != "Conv" else {}
        operands = [random(3, 4, *[2] * axes, seed=1)] if op == "Conv" else []
        yield f"{op}_{axes}d", pattern(op, [random(1, 4, *[5] * axes)], *operands, **extra)
    for shape, out in [([2, 2], [0, 1]), ([2, 3], [1, 0])]:
        yield f"convtranspose_output_padding_{shape}", pattern(
            "ConvTranspose", [x], random(6, 2, 3, 3, seed=1), strides=shape, output_padding=out)
    yield "convtranspose_output_shape", pattern(
        "ConvTranspose", [x], random(6, 2, 3, 3, seed=1), strides=[2, 2], output_shape=[20, 17])


def elementwise():
    """Numbers that operators treat in ways of their own."""
    special = np.array([[-3.5, -2.5, -1.0, -0.5, -0.0, 0.5, 1.5, 2.5, 3.0, 7.25]], np.float32)
    for op in ("Round Floor Ceil Sign Abs Neg Relu Sigmoid Tanh Erf Exp Softplus Softsign HardSigmoid HardSwish Mish Elu Selu "
               "Celu LeakyRelu ThresholdedRelu Sin Cos Tan Atan Sinh Cosh Asinh Reciprocal Shrink").split():
        yield f"unary_{op}", pattern(op, [special], opset=18)
    for op in "Sqrt Log Acosh".split():
        yield f"unary_{op}", pattern(op, [np.abs(special) + 1])
    for op in "Acos Asin Atanh".split():
        yield f"unary_{op}", pattern(op, [special / 10])
    for approximate in ["none", "tanh"]:
        yield f"gelu_{approximate}", pattern("Gelu", [special], approximate=approximate, opset=20)
    a, b = random(2, 1, 4), random(3, 1, seed=1, low=0.5)
    for op in "Add Sub Mul Div Max Min".split():
        yield f"binary_{op}", pattern(op, [a], [b])
        yield f"binary_{op}_empty", pattern(op, [a[:, :, :0]], [b])
    yield "pow", pattern("Pow", [np.abs(a)], [b])
    yield "pow_integer_exponent", pattern("Pow", [a], np.array(3, np.int64))
    ints, by = np.array([-7, 7, -8, 9], np.int64), np.array([2, -2, 3, 4], np.int64)
    yield "div_integers", pattern("Div", [ints], [by])
    yield "mod_integers", pattern("Mod", [ints], [by])
    for op, attributes in {"Celu": {"alpha": 2.0}, "Elu": {"alpha": 0.5}, "Selu": {"alpha": 2.0, "gamma": 0.5}, "LeakyRelu": {"alpha": 0.3}, "Shrink": {"bias": 0.2, "lambd": 1.2},
                           "ThresholdedRelu": {"alpha": 1.2}, "HardSigmoid": {"alpha": 0.3, "beta": 0.4}}.items():
        yield f"set_{op}", pattern(op, [special], **attributes)
    yield "set_Swish", pattern("Swish", [special], alpha=0.5, opset=24)
    yield "mod_fmod", pattern("Mod", [special], [special + 4.25], fmod=1)
    for to in "UINT8 INT8 INT32 INT64 BOOL FLOAT16 BFLOAT16 DOUBLE".split():
        values = np.abs(special) if to == "UINT8" else special
        p = Pattern(19)
        y = p("Cast", p("Cast", p.input(values * 1.2345), to=getattr(TensorProto, to)), to=F)
        yield f"cast_{to}", p.model(y)
    p = Pattern()
    y = p("Div", p("Cast", p("Cast", p("Mul", p.input(special), np.float32([1e6])), to=TensorProto.FLOAT16), to=F), np.float32([1e6]))
    yield "cast_overflow", p.model(y)
    for low, high in [(-1, 1), (None, 1), (0, None)]:
        bounds = ["" if v is None else np.array(v, np.float32) for v in (low, high)]
        yield f"clip_{low}_{high}", pattern("Clip", [special], *bounds)
    yield "where", pattern("Where", [a > 0], [a], [b])
    yield "where_nan", pattern("Where", np.array([True, False]), [random(2)], np.array([np.nan, 1], np.float32))
    for op in "Equal Greater GreaterOrEqual Less LessOrEqual".split():
        p = Pattern()
        yield f"compare_{op}", p.model(p("Cast", p(op, p.input(special), np.float32([0.5])), to=F))
    yield "prelu", pattern("PRelu", [random(2, 3, 4, 4)], random(3, 1, 1, seed=1))


def shaped():
    """What moves, gathers and reduces, with odd axes."""
    x = random(2, 3, 4, 5)
    for perm in [[3, 1, 0, 2], [0, 2, 3, 1]]:
        yield f"transpose_{perm}", pattern("Transpose", [x], perm=perm)
    i = lambda *v: np.array(v, np.int64)
    slices = [((-1,), (-100,), (2,), (-1,)), ((9,), (-100,), (3,), (-2,)), ((4,), (0,), (3,), (-2,)), ((-9,), (3,), (3,), (1,)), ((3, 1), (0, 100), (-1, 1), (-2, 1)), ((0,), (0,), (1,), (1,)), ((-3,), (-1,), (-2,), (1,)),
              ((2**62,), (-2**62,), (3,), (-2,))]
    for n, (starts, ends, axes, steps) in enumerate(slices):
        yield f"slice_{n}", pattern("Slice", [x], i(*starts), i(*ends), i(*axes), i(*steps))
    for mode, pads in itertools.product(["constant", "edge", "reflect", "wrap"], [[0, 0, 1, 2, 0, 0, 2, 1], [0, 0, 0, 3, 0, 0, 3, 0]]):
        yield f"pad_{mode}_{pads}", pattern("Pad", [x], i(*pads), opset=19, mode=mode)
    yield "pad_negative", pattern("Pad", [x], i(0, -1, 1, 0, 0, 0, -2, 0), np.float32(7))
    yield "pad_axes", pattern("Pad", [x], i(1, 2, 0, 1), "", i(-1, 1), opset=18)
    for axis in [0, 1, -1]:
        yield f"gather_{axis}", pattern("Gather", [x], i(0, -1, 1).reshape(3, 1), axis=axis)
        yield f"softmax_{axis}", pattern("Softmax", [x * 5], axis=axis)
        yield f"softmax_{axis}_old", pattern("Softmax", [x], axis=axis, opset=11)
        yield f"logsoftmax_{axis}", pattern("LogSoftmax", [x * 5], axis=axis)
        yield f"argmax_{axis}", pattern("ArgMax", [x], axis=axis, keepdims=0)
        yield f"cumsum_{axis}", pattern("CumSum", [x], np.array(axis, np.int64), reverse=1, exclusive=axis & 1)
        yield f"concat_{axis}", pattern("Concat", [x], [x], axis=axis)
        yield f"flatten_{axis}", pattern("Flatten", [x], axis=axis)
    for op in "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare".split():
        for keep in [0, 1]:
            yield f"{op}_{keep}", pattern(op, [x], i(1, -1), keepdims=keep, opset=18)
        yield f"{op}_all", pattern(op, [x], opset=18)
    for depth in ["DCR", "CRD"]:
        yield f"depthtospace_{depth}", pattern("DepthToSpace", [random(1, 12, 2, 3)], blocksize=2, mode=depth)
    yield "spacetodepth", pattern("SpaceToDepth", [random(1, 3, 4, 6)], blocksize=2)
    yield "split_uneven", pattern("Split", [x], axis=-1, num_outputs=2, outputs=2, opset=18)
    yield "tile", pattern("Tile", [x], i(1, 2, 1, 3))
    yield "expand", pattern("Expand", [random(3, 1)], i(2, 1, 4))
    yield "reshape_0_-1", pattern("Reshape", [x], i(0, -1, 5))
    yield "topk", pattern("TopK", [x], i(2), axis=1, outputs=2)
    yield "trilu", pattern("Trilu", [x], np.array(-1, np.int64), upper=0)
    yield "scatternd", pattern("ScatterND", [x], i(0, 1, 1, 2).reshape(2, 2), [random(2, 4, 5, seed=3)])
    yield "scatterelements", pattern("ScatterElements", [x], np.zeros((2, 3, 4, 5), np.int64), [x], axis=2, reduction="add", opset=18)
    yield "gathernd", pattern("GatherND", [x], i(0, -1).reshape(2, 1), batch_dims=1)
    yield "gatherelements", pattern("GatherElements", [x], np.full((2, 3, 4, 5), -1, np.int64), axis=1)
    for mode, how in itertools.product(["nearest", "linear", "cubic"], ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]):
        for scale in [2.0, 0.6]:
            yield f"resize_{mode}_{how}_{scale}", pattern(
                "Resize", [x], "", np.float32([1, 1, scale, scale]), mode=mode, coordinate_transformation_mode=how)
    for how in ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]:
        yield f"resize_to_one_{how}", pattern("Resize", [x], "", "", i(2, 3, 1, 1), mode="linear", coordinate_transformation_mode=how)
        yield f"resize_sizes_{how}", pattern("Resize", [x], "", "", i(2, 3, 7, 3), mode="linear", coordinate_transformation_mode=how)
    yield "resize_antialias", pattern("Resize", [x], "", np.float32([1, 1, 0.5, 0.6]), mode="linear", antialias=1, opset=18)
    for mode, padding, corners in itertools.product(["linear", "nearest", "cubic"], ["zeros", "border", "reflection"], [0, 1]):
        yield f"gridsample_{mode}_{padding}_{corners}", pattern(
            "GridSample", [x], [random(2, 3, 3, 2, seed=4, low=-1.3, high=1.3)], mode=mode, padding_mode=padding,
            align_corners=corners, opset=20)
    for equation, shapes in [("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]), ("...ij,...jk->...ik", [(2, 1, 3, 4), (1, 5, 4, 2)]),
                             ("ii->i", [(3, 3)]), ("ij->", [(2, 3)]), ("ijk->ki", [(2, 3, 4)]), ("ij->ji", [(2, 3)]), ("bc,cd,de->be", [(2, 3), (3, 4), (4, 5)]), ("ab,cb", [(2, 3), (4, 3)])]:
        yield f"einsum_{equation}", pattern("Einsum", *[[random(*s, seed=n)] for n, s in enumerate(shapes)], equation=equation)
    for a, b in [((2, 3), (3,)), ((3,), (3, 2)), ((2, 1, 3, 4), (5, 4, 2)), ((3,), (3,)), ((2, 0), (0, 3))]:
        yield f"matmul_{a}_{b}", pattern("MatMul", [random(*a)], [random(*b, seed=1)])
    yield "gemm", pattern("Gemm", [random(3, 2)], random(4, 3, seed=1), random(4, seed=2), transA=1, transB=1, alpha=0.5, beta=2.0)
    for op in ["LayerNormalization", "InstanceNormalization", "LpNormalization", "LRN", "MeanVarianceNormalization"]:
        extra = {"LayerNormalization": [random(5, seed=1), random(5, seed=2)], "InstanceNormalization": [random(3, seed=1), random(3, seed=2)]}
        more = {"LRN": {"size": 3}}
        yield op, pattern(op, [x], *extra.get(op, []), **more.get(op, {}))
    yield "layernorm_two_axes", pattern("LayerNormalization", [x], random(4, 5, seed=1), axis=-2)
    yield "batchnorm", pattern("BatchNormalization", [x], *[random(3, seed=s, low=0.5) for s in range(4)], epsilon=1e-3)
    yield "groupnorm", pattern("GroupNormalization", [random(2, 6, 3, 3)], random(6, seed=1), random(6, seed=2), num_groups=2, opset=21)


def quantised():
    """Every operator of networks between DequantizeLinear and QuantizeLinear, and in integers."""
    x, w = random(1, 4, 6, 6), np.random.default_rng(1).integers(-127, 127, (8, 4, 3, 3)).astype(np.int8)
    one = lambda op, **attributes: (lambda p, v: p(op, v, **attributes))
    body = {
        "softmax": one("Softmax"), "softmax_1": one("Softmax", axis=1), "sigmoid": one("Sigmoid"), "tanh": one("Tanh"), "erf": one("Erf"), "exp": one("Exp"),
        "relu": one("Relu"), "leakyrelu": one("LeakyRelu"), "hardswish": one("HardSwish"), "sqrt": lambda p, v: p("Sqrt", p("Abs", v)),
        "maxpool": one("MaxPool", kernel_shape=[2, 2]), "averagepool": one("AveragePool", kernel_shape=[2, 2]),
        "globalaveragepool": one("GlobalAveragePool"), "reducemean": one("ReduceMean", axes=[2, 3]), "transpose": one("Transpose", perm=[0, 2, 3, 1]),
        "reshape": lambda p, v: p("Reshape", v, np.array([1, -1], np.int64)), "neg": one("Neg"),
        "add_itself": lambda p, v: p("Add", v, v), "mul_itself": lambda p, v: p("Mul", v, v), "concat": lambda p, v: p("Concat", v, v, axis=1),
        "add": lambda p, v: p("Add", v, p.quantised(p.input(random(1, 4, 6, 6, seed=5)), 0.017, 120)),
        "sub": lambda p, v: p("Sub", v, p.quantised(p.input(random(1, 4, 6, 6, seed=5)), 0.017, 120)),
        "mul": lambda p, v: p("Mul", v, p.quantised(p.input(random(1, 4, 1, 1, seed=5)), 0.017, 120)),
        "div": lambda p, v: p("Div", v, np.float32([1.7])), "pad": lambda p, v: p("Pad", v, np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)),
        "slice": lambda p, v: p("Slice", v, np.array([1], np.int64), np.array([4], np.int64), np.array([2], np.int64)),
        "resize": lambda p, v: p("Resize", v, "", np.float32([1, 1, 2, 2]), mode="nearest"),
        "clip": lambda p, v: p("Clip", v, np.float32(0), np.float32(1)),
        "matmul": lambda p, v: p("MatMul", v, p("DequantizeLinear", random(6, 5, seed=6, low=-90, high=90).astype(np.int8), np.float32(0.01), np.int8(0))),
        "matmul_both": lambda p, v: p("MatMul", v, p.quantised(p.input(random(1, 4, 6, 3, seed=7)), 0.013, 117)),
        "conv": lambda p, v: p("Conv", v, p("DequantizeLinear", w, random(8, seed=8, low=0.001, high=0.02), np.zeros(8, np.int8), axis=0), pads=[1, 1, 1, 1]),
        "conv_bias": lambda p, v: p("Conv", v, p("DequantizeLinear", w, np.float32(0.01), np.int8(0)),
                                    p("DequantizeLinear", np.arange(8, dtype=np.int32) * 100, np.float32(0.0002), np.int32(0))),
        "instancenorm": lambda p, v: p("InstanceNormalization", v, random(4, seed=1), random(4, seed=2)),
        "layernorm": lambda p, v: p("LayerNormalization", v, random(6, seed=1), random(6, seed=2)),
        "gelu": lambda p, v: p("Mul", v, p("Add", p("Erf", p("Div", v, np.float32([1.41421]))), np.float32([1.0]))),
        "swish": lambda p, v: p("Mul", v, p("Sigmoid", v)), "gather": lambda p, v: p("Gather", v, np.array([1, 0], np.int64), axis=1),
        "argmax": lambda p, v: p("Cast", p("ArgMax", v, axis=1), to=F), "identity": lambda p, v: v,
        "reducemax": one("ReduceMax", axes=[3]), "where": lambda p, v: p("Where", np.array([True, False] * 3), v, np.float32([0.25])),
    }
    def pairs(add, dtype, zero, before, after, plain):
        p = Pattern(17, plain)
        y = p.input(x)
        y = add(p, p.quantised(y, 0.0157, zero, dtype) if before else y)
        return p.model(p.quantised(y, 0.021, zero, dtype) if after else y, types=[F])

    for (name, add), (dtype, zero) in itertools.product(body.items(), [(np.uint8, 128), (np.int8, 3)]):
        for where, before, after in [("", True, True), ("in_", True, False), ("out_", False, True)]:
            made = [pairs(add, dtype, zero, before, after, plain) for plain in (False, True)]
            yield f"qdq_{where}{name}_{dtype.__name__}", (*made[0], made[1][0])
        # Integers in, integers out: no pair anywhere.
        p = Pattern(17)
        info = np.iinfo(dtype)
        scale, zero = np.float32(0.0157), dtype(zero)
        units = p.input(np.random.default_rng(3).integers(info.min, info.max, x.shape).astype(dtype))
        y = add(p, p("DequantizeLinear", units, scale, zero))
        yield f"units_{name}_{dtype.__name__}", p.model(p("QuantizeLinear", y, np.float32(0.021), zero), types=[helper.np_dtype_to_tensor_dtype(np.dtype(dtype))])
    for axis in [0, 1, -1]:
        n = [1, 4, 6, 6][axis]
        p, s, z = Pattern(17), random(n, seed=1, low=0.01, high=0.03), np.arange(n, dtype=np.uint8) + 120
        yield f"qdq_axis_{axis}", p.model(p("DequantizeLinear", p("QuantizeLinear", p.input(x), s, z, axis=axis), s, z, axis=axis))
    p = Pattern(17)
    q, s, z = p("DynamicQuantizeLinear", p.input(x), outputs=3)
    yield "dynamic", p.model(p("DequantizeLinear", q, s, z), s, types=[F, F])
    for signed in [np.uint8, np.int8]:
        p = Pattern(17)
        q, s, z = p("DynamicQuantizeLinear", p.input(random(3, 6)), outputs=3)
        wq = random(6, 5, seed=2, low=0 if signed is np.uint8 else -90, high=90).astype(signed)
        y = p("Mul", p("Cast", p("MatMulInteger", q, wq, z, np.array(7, signed)), to=F), p("Mul", s, np.float32([0.01])))
        yield f"matmulinteger_{signed.__name__}", p.model(y)
        p = Pattern(17)
        q, s, z = p("DynamicQuantizeLinear", p.input(x), outputs=3)
        wq = random(8, 4, 3, 3, seed=2, low=0, high=90).astype(np.uint8)
        y = p("Mul", p("Cast", p("ConvInteger", q, wq, z, np.array(40, np.uint8), pads=[1, 0, 0, 1]), to=F), p("Mul", s, np.float32([0.01])))
        yield f"convinteger_{signed.__name__}", p.model(y)

    def q(p, array, scale=0.0157, zero=128):
        s, z = np.array(scale, np.float32), np.array(zero, np.uint8)
        return p("QuantizeLinear", p.input(array), s, z), s, z

    ms, out = "com.microsoft:", (np.array(0.03, np.float32), np.array(110, np.uint8))
    unary = {"QLinearSigmoid": {}, "QLinearLeakyRelu": {"alpha": 0.2}, "QLinearSoftmax": {"axis": -1, "opset": 13}, "QLinearGlobalAveragePool": {},
             "QLinearAveragePool": {"kernel_shape": [2, 2]}}
    for op, attributes in unary.items():
        p = Pattern()
        o = (np.array(1 / 256, np.float32), np.array(0, np.uint8)) if op in ("QLinearSigmoid", "QLinearSoftmax") else out
        yield op, p.model(p("DequantizeLinear", p(ms + op, *q(p, x), *o, **attributes), *o), types=[F])
    for op in ["QLinearAdd", "QLinearMul"]:
        p = Pattern()
        yield op, p.model(p("DequantizeLinear", p(ms + op, *q(p, x), *q(p, random(4, 1, 1, seed=3), 0.01, 100), *out), *out), types=[F])
    p = Pattern()
    yield "QLinearConcat", p.model(p("DequantizeLinear", p(ms + "QLinearConcat", *out, *q(p, x), *q(p, random(1, 2, 6, 6, seed=3), 0.01, 100), axis=1), *out), types=[F])
    for scales in [np.array(0.01, np.float32), random(8, seed=9, low=0.005, high=0.02)]:
        p, zeros = Pattern(), np.zeros(scales.shape, np.int8)
        y = p("QLinearConv", *q(p, x), w, scales, zeros, *out, np.arange(8, dtype=np.int32) * 50, pads=[1, 1, 1, 1], strides=[2, 1])
        yield f"QLinearConv_{scales.shape}", p.model(p("DequantizeLinear", y, *out), types=[F])
    p = Pattern()
    wq = random(6, 5, seed=2, low=-90, high=90).astype(np.int8)
    y = p("QLinearMatMul", *q(p, x), wq, np.array(0.01, np.float32), np.array(0, np.int8), *out)
    yield "QLinearMatMul", p.model(p("DequantizeLinear", y, *out), types=[F])
    p = Pattern()
    y = p(ms + "QGemm", *q(p, random(3, 6)), wq.T.copy(), random(5, seed=9, low=0.005, high=0.02), np.zeros(5, np.int8),
          np.arange(5, dtype=np.int32) * 50, *out, transB=1)
    yield "QGemm", p.model(p("DequantizeLinear", y, *out), types=[F])
    p = Pattern()
    a, s, z = p("DynamicQuantizeLinear", p.input(random(3, 6)), outputs=3)
    yield "MatMulIntegerToFloat", p.model(p(ms + "MatMulIntegerToFloat", a, wq, s, random(5, seed=9, low=0.005, high=0.02), z,
                                            np.zeros(5, np.int8), random(5, seed=3)), types=[F])
    yield "DynamicQuantizeMatMul", pattern(ms + "DynamicQuantizeMatMul", [random(3, 6)], wq, np.array(0.01, np.float32), np.array(0, np.int8),
                                           random(5, seed=3), types=[F])
    packed = np.random.default_rng(4).integers(0, 255, (5, 2, 8)).astype(np.uint8)
    for zeros in ["", np.random.default_rng(5).integers(0, 255, 5).astype(np.uint8)]:
        yield f"MatMulNBits_{len(zeros)}", pattern(ms + "MatMulNBits", [random(3, 32)], packed, random(10, seed=6), zeros, K=32, N=5, bits=4,
                                                   block_size=16, types=[F])


def fused():
    """What ONNX Runtime's optimiser writes."""
    ms = "com.microsoft:"
    x, y = random(2, 5, 8), random(2, 5, 8, seed=1)
    image = random(1, 4, 6, 6)
    activations = {"Relu": None, "Sigmoid": None, "Tanh": None, "LeakyRelu": [0.3], "Clip": [-0.5, 0.5], "HardSigmoid": [0.3, 0.4]}
    for activation, params in activations.items():
        extra = {"activation_params": params} if params else {}
        yield f"FusedConv_{activation}", pattern(ms + "FusedConv", [image], random(4, 2, 3, 3, seed=1), random(4, seed=2), pads=[1] * 4, group=2,
                                                 activation=activation, **extra, types=[F])
    yield "FusedConv_sum", pattern(ms + "FusedConv", [image], random(4, 4, 3, 3, seed=1), random(4, seed=2), [random(1, 4, 6, 6, seed=5)], pads=[1] * 4,
                                   activation="Relu", types=[F])
    for flags in [{}, {"transA": 1}, {"transB": 1, "alpha": 0.3}, {"transBatchA": 1, "transBatchB": 1}, {"transA": 1, "transBatchA": 1, "transB": 1, "transBatchB": 1}]:
        yield f"FusedMatMul_{flags}", pattern(ms + "FusedMatMul", [random(4, 4, 4)], [random(4, 4, 4, seed=1)], **flags, types=[F])
    yield "FusedGemm", pattern(ms + "FusedGemm", [random(3, 4)], random(4, 5, seed=1), random(5, seed=2), activation="LeakyRelu", activation_alpha=0.2,
                               alpha=0.5, beta=1.5, types=[F])
    yield "ms_Gelu", pattern(ms + "Gelu", [x], types=[F])
    yield "BiasGelu", pattern(ms + "BiasGelu", [x], random(8, seed=2), types=[F])
    yield "FastGelu", pattern(ms + "FastGelu", [x], types=[F])
    yield "FastGelu_bias", pattern(ms + "FastGelu", [x], random(8, seed=2), types=[F])
    yield "QuickGelu", pattern(ms + "QuickGelu", [x], alpha=1.3, types=[F])
    yield "SkipLayerNormalization", pattern(ms + "SkipLayerNormalization", [x], [y], random(8, seed=2), random(8, seed=3), random(8, seed=4), epsilon=1e-5, types=[F])
    p = Pattern()
    both = [p.input(x), p.input(y)]
    out, _, _, total = p(ms + "SkipLayerNormalization", *both, random(8, seed=2), outputs=4)
    yield "SkipLayerNormalization_sum", p.model(out, total, types=[F, F])
    yield "SkipSimplifiedLayerNormalization", pattern(ms + "SkipSimplifiedLayerNormalization", [x], [y], random(8, seed=2), types=[F])
    yield "SimplifiedLayerNormalization", pattern("SimplifiedLayerNormalization", [x], random(8, seed=2), axis=-1, epsilon=1e-5, types=[F])
    ids, seg = np.array([[1, 2, 3], [4, 0, 1]], np.int32), np.array([[0, 0, 1], [0, 1, 1]], np.int32)
    for segments in [True, False]:
        yield f"EmbedLayerNormalization_{segments}", pattern(
            ms + "EmbedLayerNormalization", [ids], [seg] if segments else "", random(6, 8), random(4, 8, seed=1), random(2, 8, seed=2) if segments else "",
            random(8, seed=3), random(8, seed=4), epsilon=1e-5, outputs=2, types=[F, TensorProto.INT32])
    wide, bias = random(8, 24, seed=2), random(24, seed=3)
    masks = {"none": "", "lengths": [np.array([3, 5], np.int32)], "keys": [np.array([[1, 1, 0, 1, 1], [1, 1, 1, 1, 0]], np.int32)]}
    for name, mask in masks.items():
        for causal in [0, 1]:
            yield f"ms_Attention_{name}_{causal}", pattern(ms + "Attention", [x], wide, bias, mask, num_heads=2, unidirectional=causal, types=[F])
    yield "ms_Attention_bias", pattern(ms + "Attention", [x], wide, bias, "", "", [random(2, 2, 5, 5, seed=7)], num_heads=2, types=[F])
    yield "ms_Attention_past", pattern(ms + "Attention", [x], wide, bias, "", [random(2, 2, 2, 3, 4, seed=7)], num_heads=2, unidirectional=1, outputs=2, types=[F, F])
    kv = random(2, 7, 8, seed=4)
    for causal, scale in [(0, 0.0), (0, 0.3)]:
        yield f"MultiHeadAttention_{causal}_{scale}", pattern(ms + "MultiHeadAttention", [x], [kv], [kv + 1], bias, num_heads=2, unidirectional=causal,
                                                              **({"scale": scale} if scale else {}), types=[F])
    yield "MultiHeadAttention_causal", pattern(ms + "MultiHeadAttention", [x], [y], [y + 1], num_heads=2, unidirectional=1, types=[F])
    yield "MultiHeadAttention_mask", pattern(ms + "MultiHeadAttention", [x], [kv], [kv + 1], "", [np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32)], num_heads=2, types=[F])
    yield "MultiHeadAttention_bias", pattern(ms + "MultiHeadAttention", [x], [kv], [kv + 1], "", "", [random(1, 2, 5, 7, seed=9)], num_heads=2, types=[F])
    q4 = np.random.default_rng(1).integers(0, 255, (2, 5, 8)).astype(np.uint8)
    yield "QAttention", pattern(ms + "QAttention", [q4], random(8, 24, seed=2, low=-90, high=90).astype(np.int8), bias, np.array(0.02, np.float32),
                                np.array(0.01, np.float32), "", np.array(128, np.uint8), np.array(0, np.int8), num_heads=2, types=[F])
    for interleaved in [0, 1]:
        yield f"ms_RotaryEmbedding_{interleaved}", pattern(
            ms + "RotaryEmbedding", [random(2, 5, 8)], [np.array([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]], np.int64)], random(9, 2, seed=1), random(9, 2, seed=2),
            interleaved=interleaved, types=[F])
    yield "NhwcMaxPool", pattern(ms + "NhwcMaxPool", [q4.reshape(1, 4, 5, 4)], kernel_shape=[2, 2], types=[U8])


def backend():
    """The onnx package's own tests of nodes, as far as their values are numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = node_cases.collect_testcases(None)
    for case in cases:
        model = case.model
        if model is None or "_expanded" in case.name and len(model.graph.node) > 40:
            continue
        tensors = [v.type.WhichOneof("value") == "tensor_type" and v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]]
        if not all(t and t not in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128) for t in tensors):
            continue
        inputs, _ = case.data_sets[0]
        if any(not isinstance(i, np.ndarray) for i in inputs):
            continue
        model.ir_version = min(model.ir_version, 11)
        yield f"node_{case.name}", (model, dict(zip([v.name for v in model.graph.input if v.name], inputs)))


def in_onnx_runtime(model, inputs):
    """The outputs as f32, with nothing optimised: what the file says."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, inputs)


def differs(found, expected, share, absolute):
    """How far the outputs are from those expected, if beyond a share of the largest and beyond so much."""
    if len(found) != len(expected):
        return "another number of outputs"
    for ours, theirs in zip(found, expected):
        theirs = np.asarray(theirs).astype(np.float32)
        if list(ours.shape) != list(theirs.shape):
            return f"shape {list(ours.shape)}, expected {list(theirs.shape)}"
        if not ours.size:
            continue
        finite = np.isfinite(theirs)
        if not (np.isnan(ours) == np.isnan(theirs)).all() or not (np.isfinite(ours) == finite).all():
            return "infinite or no number in other places"
        infinite = np.isinf(theirs)
        if (np.sign(ours[infinite]) != np.sign(theirs[infinite])).any():
            return "infinities of another sign"
        if finite.any():
            off = np.abs(ours[finite].astype(np.float64) - theirs[finite]).max()
            most = max(np.abs(theirs[finite]).max(), 1e-6)
            if off > max(share * most, absolute):
                return f"off by {off:.2g}, {off / most:.2g} of the largest"
    return None


def tolerance(name, model):
    """What one rounding that falls the other way may do: of the coarsest type in the model, or one unit of a scale."""
    if name.startswith("units_"):
        return 0, 1
    if name.startswith(("qdq_", "QLinear", "QGemm")):
        return 1e-5, 0.0301 if name[0] == "Q" else 0 if name.startswith("qdq_in_") else 0.0211
    types = {v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output, *model.graph.value_info]}
    types |= {a.i for n in model.graph.node for a in n.attribute if a.name in ("to", "dtype", "output_dtype")}
    if any("Quantize" in n.op_type or n.op_type.startswith("Q") for n in model.graph.node):
        return 1.5e-2, 0
    if types & {TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2FNUZ}:
        return 1e-2, 0
    return 2e-3 if TensorProto.FLOAT16 in types else 2e-5, 0


def main():
    part = sys.argv[2] if len(sys.argv) > 2 else ""
    runner = Path(sys.argv[1]).resolve().parent / "examples" / "engines"
    cases, listed, refused = {}, [], Counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sources = itertools.chain(windows(), elementwise(), shaped(), quantised(), fused(), backend())
        for number, (name, (model, inputs, *plain)) in enumerate(sources):
            if part not in name:
                continue
            try:
                expected = in_onnx_runtime(model, inputs)
                real = in_onnx_runtime(plain[0], inputs) if plain else expected
            except Exception as error:  # ONNX Runtime has no kernel for many types: nothing to compare with.
                refused[name.split("_")[0]] += 1
                if not name.startswith("node_"):
                    print(f"ONNX Runtime refuses {name}: {str(error)[:300]}")
                continue
            if any(not isinstance(e, np.ndarray) or e.dtype.kind not in "fiub" for e in expected):
                continue
            onnx.save(model, folder / f"{number}.onnx")
            files = []
            for i, (given, array) in enumerate(inputs.items()):
                np.asarray(array).astype("<f4").tofile(folder / f"{number}.{i}")
                files.append([given, list(np.shape(array)), f"{number}.{i}"])
            listed.append({"model": f"{number}.onnx", "inputs": files})
            # What each engine should give, and how exactly; tract computes the plain graph.
            bounds = tolerance(name, model)
            cases[f"{number}.onnx"] = (name, {
                "ort": (expected, *bounds), "f64": (expected, *bounds), "tract": (real, 2e-5, 0) if plain else (expected, *bounds)})
        (folder / "cases.json").write_text(json.dumps(listed))
        run = subprocess.run([runner, folder], capture_output=True, text=True, env=os.environ, check=True)
    tally, wrong = Counter(), 0
    for line in run.stdout.splitlines():
        line = json.loads(line)
        (name, wanted), engine, result = cases[line["model"]], line["engine"], line["result"]
        if "why" in result:
            tally[engine, result["kind"]] += 1
            if os.environ.get("EMO_ENGINES_ALL"):
                print(f"{engine:6} {result['kind']:8} {name}: {result['why'][:200]}")
            continue
        found = [np.frombuffer(bytes.fromhex(hexed), "<f4").reshape(shape) for shape, hexed in result["outputs"]]
        difference = differs(found, *wanted[engine])
        excuse = next((why for (who, start), why in EXCUSED.items() if who == engine and name.startswith(start)), None)
        if difference and engine == "tract" and line["unrounded"] and not name.startswith("qdq_"):
            # The file rounds to 16 bits there, and the plain form says that it does not.
            tally[engine, "unrounded"] += 1
            continue
        tally[engine, "excused" if difference and excuse else "wrong" if difference else "equal"] += 1
        if difference and not excuse:
            wrong += 1
            print(f"{engine:6} differs  {name}: {difference}")
    for (engine, outcome), count in sorted(tally.items()):
        print(f"{engine:6} {outcome:9} {count}")
    print(f"{len(cases)} models; ONNX Runtime refuses {sum(refused.values())} more")
    sys.exit(1 if wrong or not cases else 0)


if __name__ == "__main__":
    main()
