"""Right files made wrong at random, and right files that are coarse: what passes is what ONNX Runtime confirms.

    python mutants.py EMO [COUNT]

Eight right files (ours, PyTorch's, quantised by ONNX Runtime's static and dynamic quantiser in both formats, in
float16) are changed at random, COUNT times each (4 without, 40 with EMO_THOROUGH=1). Every mutant that ONNX Runtime
runs is judged beside the checkpoint's weights, in tract and in ONNX Runtime. None passes whose outputs in ONNX Runtime
are further from the right float file's than the tolerance that the verdict names. The right files themselves, and what
ONNX Runtime's optimiser makes of them at every level, pass or are open with a reason; none fails.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from verify import ENGINES

THIRD_PARTY = pathlib.Path(__file__).parent.parent.parent.parent / "shared" / "third_party"
SIDE = 64
LEVELS = ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def pictures(side, count, seed=0):
    """As normalised images have: within what quantised files are made for."""
    draw = numpy.random.default_rng(seed)
    smooth = draw.uniform(-2.1, 2.6, (count, 3, side // 8, side // 8)).repeat(8, 2).repeat(8, 3)
    return [(0.7 * s + 0.3 * draw.uniform(-2.1, 2.6, s.shape))[None].astype(numpy.float32) for s in smooth]


class Pictures(CalibrationDataReader):
    def __init__(self, name, side):
        noise = numpy.random.default_rng(1).uniform(-(3**0.5), 3**0.5, (4, 1, 3, side, side))
        inputs = pictures(side, 8) + list(noise.astype(numpy.float32))
        self.rows = iter([{name: picture} for picture in inputs])

    def get_next(self):
        return next(self.rows, None)


def export(emo, path, profile, side):
    size = f"{side}x{side}"
    arguments = [emo, "export", "emo-1m", "--target", profile, "--size", size, "--no-verify", "-o", str(path)]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def right_files(emo, folder):
    """Name, path, and the float file whose outputs are the right ones."""
    ours = {}
    for profile in ("portable", "reference", "ort-cpu"):
        ours[profile] = folder / f"{profile}.onnx"
        export(emo, ours[profile], profile, SIDE)
        yield profile, ours[profile], ours[profile]
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(ours["portable"]), str(prepared))
    for name, form in (("static QDQ", QuantFormat.QDQ), ("static QOperator", QuantFormat.QOperator)):
        path = folder / f"{name}.onnx"
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(str(prepared), str(path), Pictures("input", SIDE), quant_format=form, per_channel=True, **types)
        yield name, path, ours["portable"]
    for name, weights in (("dynamic", QuantType.QInt8), ("dynamic unsigned", QuantType.QUInt8)):
        path = folder / f"{name}.onnx"
        quantize_dynamic(str(prepared), str(path), weight_type=weights)
        yield name, path, ours["portable"]
    for name, keep in (("float16", True), ("float16 throughout", False)):
        path = folder / f"{name}.onnx"
        onnx.save(convert_float_to_float16(onnx.load(ours["reference"]), keep_io_types=keep), path)
        yield name, path, ours["reference"]
    for profile, path in list(ours.items()):
        for level in LEVELS:
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            options.log_severity_level = 4
            optimised = folder / f"{profile} {level}.onnx"
            options.optimized_model_filepath = str(optimised)
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            yield optimised.stem, optimised, path
    for name in ("emo_1m_torchscript_op13", "emo_1m_dynamo_op18", "emo_1m_fp16"):
        yield name, THIRD_PARTY / f"{name}.onnx", THIRD_PARTY / "emo_1m_torchscript_op13.onnx"


# What is mutated; the others are judged as they are.
SUBJECTS = (
    "portable",
    "reference",
    "static QDQ",
    "static QOperator",
    "dynamic",
    "float16",
    "emo_1m_torchscript_op13",
    "emo_1m_dynamo_op18",
)


def outputs(path, inputs):
    runner = session(path)
    port = runner.get_inputs()[0]
    dtype = numpy.float16 if "float16" in port.type else numpy.float32
    return [runner.run(None, {port.name: picture.astype(dtype)})[0].astype(numpy.float64) for picture in inputs]


def moved(found, truth):
    """The largest error as a share of the largest logit."""
    shares = [numpy.abs(f - t).max() / numpy.abs(t).max() for f, t in zip(found, truth)]
    return max(numpy.inf if numpy.isnan(share) else float(share) for share in shares)


# Mutations: each changes a model in place, or gives False where it finds nothing to change.


def initializer(graph, draw, keep):
    found = [t for t in graph.initializer if keep(t)]
    return draw.choice(found) if found else None


def is_float(tensor):
    return tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)


def put(tensor, array):
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def scaled_tensor(graph, draw):
    tensor = initializer(graph, draw, lambda t: is_float(t) and numpy.prod(t.dims) > 8)
    if tensor is None:
        return False
    array = numpy_helper.to_array(tensor)
    put(tensor, (array * draw.choice([0.5, 0.9, 1.02, 1.5, -1])).astype(array.dtype))
    return True


def changed_element(graph, draw):
    tensor = initializer(graph, draw, lambda t: is_float(t) and numpy.prod(t.dims) > 8)
    if tensor is None:
        return False
    array = numpy_helper.to_array(tensor).copy()
    array.flat[draw.randrange(array.size)] += numpy.float32(draw.choice([0.5, -1, 3]))
    put(tensor, array)
    return True


def changed_integers(graph, draw):
    eight = (TensorProto.INT8, TensorProto.UINT8)
    tensor = initializer(graph, draw, lambda t: t.data_type in eight and numpy.prod(t.dims) > 8)
    if tensor is None:
        return False
    array = numpy_helper.to_array(tensor)
    put(tensor, numpy.roll(array, 1, axis=draw.randrange(array.ndim)))
    return True


def changed_number(graph, draw):
    """A scale, an epsilon, a factor."""
    tensor = initializer(graph, draw, lambda t: is_float(t) and numpy.prod(t.dims) == 1)
    if tensor is None:
        return False
    array = numpy_helper.to_array(tensor)
    put(tensor, (array * draw.choice([0.25, 0.5, 1.01, 1.1, 2, 4])).astype(array.dtype).reshape(array.shape))
    return True


def changed_zero(graph, draw):
    eight = (TensorProto.INT8, TensorProto.UINT8)
    tensor = initializer(graph, draw, lambda t: t.data_type in eight and numpy.prod(t.dims) == 1)
    if tensor is None:
        return False
    array = numpy_helper.to_array(tensor)
    put(tensor, numpy.clip(array.astype(int) + draw.choice([-20, 7, 40]), 0, 127).astype(array.dtype).reshape(array.shape))
    return True


def node_of(graph, draw, operators):
    found = [n for n in graph.node if n.op_type in operators]
    return draw.choice(found) if found else None


EXCHANGES = {"Sigmoid": "Tanh", "Erf": "Tanh", "Add": "Sub", "Mul": "Add", "Sub": "Add", "ReduceMean": "ReduceMax"}


def another_operator(graph, draw):
    node = node_of(graph, draw, EXCHANGES)
    if node is None:
        return False
    node.op_type = EXCHANGES[node.op_type]
    return True


def exchanged_operands(graph, draw):
    node = node_of(graph, draw, ("Sub", "Div", "MatMul", "Pow"))
    if node is None or node.input[0] == node.input[1]:
        return False
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return True


def left_out(graph, draw):
    node = node_of(graph, draw, ("Sigmoid", "Add", "Mul", "Erf", "Softmax", "LayerNormalization", "BatchNormalization"))
    if node is None:
        return False
    node.op_type = "Identity"
    del node.input[1:], node.attribute[:]
    return True


def another_order(graph, draw):
    node = node_of(graph, draw, ("Transpose",))
    perm = [a for a in node.attribute if a.name == "perm"] if node else []
    if not perm:
        return False
    axes = list(perm[0].ints)
    i, j = draw.sample(range(len(axes)), 2)
    axes[i], axes[j] = axes[j], axes[i]
    perm[0].ints[:] = axes
    return True


def another_attribute(graph, draw):
    node = node_of(graph, draw, ("LayerNormalization", "BatchNormalization", "Softmax", "Conv", "QLinearConv"))
    if node is None:
        return False
    for attribute in node.attribute:
        if attribute.name == "epsilon":
            attribute.f = draw.choice([1e-5, 1e-3, 1e-12])
            return True
        if attribute.name == "axis":
            attribute.i = draw.choice([0, 1, 2])
            return True
        if attribute.name == "dilations" and len(attribute.ints) == 2 and node.op_type == "Conv":
            return False
    return False


def cast_between(graph, draw):
    """A value goes through a coarser type, large or small."""
    node = node_of(graph, draw, ("Conv", "Gemm", "MatMul", "Add", "Mul"))
    if node is None:
        return False
    dtype = draw.choice([TensorProto.FLOAT16, TensorProto.BFLOAT16])
    factor = draw.choice([1.0, 1e6, 1e-6, 1e3])
    name = node.output[0]
    if any(name == output.name for output in graph.output):
        return False
    node.output[0] = "mutant_in"
    graph.initializer.append(numpy_helper.from_array(numpy.float32(factor), "mutant_factor"))
    at = list(graph.node).index(node) + 1
    for i, new in enumerate((
        helper.make_node("Mul", ["mutant_in", "mutant_factor"], ["mutant_large"]),
        helper.make_node("Cast", ["mutant_large"], ["mutant_coarse"], to=dtype),
        helper.make_node("Cast", ["mutant_coarse"], ["mutant_wide"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["mutant_wide", "mutant_factor"], [name]),
    )):
        graph.node.insert(at + i, new)
    return True


def quantised_between(graph, draw):
    node = node_of(graph, draw, ("Conv", "Gemm", "MatMul", "Add", "Mul"))
    if node is None or any(node.output[0] == output.name for output in graph.output):
        return False
    name, node.output[0] = node.output[0], "mutant_in"
    graph.initializer.append(numpy_helper.from_array(numpy.float32(draw.choice([1e-3, 0.02, 0.1, 1.0])), "mutant_scale"))
    graph.initializer.append(numpy_helper.from_array(numpy.uint8(128), "mutant_zero"))
    at = list(graph.node).index(node) + 1
    pair = ["mutant_scale", "mutant_zero"]
    graph.node.insert(at, helper.make_node("QuantizeLinear", ["mutant_in", *pair], ["mutant_q"]))
    graph.node.insert(at + 1, helper.make_node("DequantizeLinear", ["mutant_q", *pair], [name]))
    return True


def unread(graph, draw, other):
    """Coarse tensors and pairs that nothing reads, beside another mutation."""
    kind = draw.choice(["uint8", "float16", "pair"])
    if kind == "pair":
        graph.initializer.append(numpy_helper.from_array(numpy.float32(0.1), "unread_scale"))
        port = graph.input[0].name
        graph.node.append(helper.make_node("QuantizeLinear", [port, "unread_scale"], ["unread_q"]))
        graph.node.append(helper.make_node("DequantizeLinear", ["unread_q", "unread_scale"], ["unread_dq"]))
    else:
        graph.initializer.append(numpy_helper.from_array(numpy.ones(2000, kind), "unread"))
    return other(graph, draw)


PLAIN = (
    scaled_tensor,
    changed_element,
    changed_integers,
    changed_number,
    changed_zero,
    another_operator,
    exchanged_operands,
    left_out,
    another_order,
    another_attribute,
    cast_between,
    quantised_between,
)


def mutate(model, draw):
    """The mutation's name, or None where it found nothing to change."""
    mutation = draw.choice(PLAIN)
    if draw.random() < 0.3:
        return f"{mutation.__name__}, unread" if unread(model.graph, draw, mutation) else None
    return mutation.__name__ if mutation(model.graph, draw) else None


def verify(emo, path, engine, *arguments):
    command = [emo, "verify", str(path), "--format", "json", "--test-inputs", "3", *arguments, *ENGINES[engine]]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode in (0, 1, 2, 3) and run.stderr.count("panicked") == 0, f"{path}: {run.stderr}"
    return json.loads(run.stdout) if run.stdout else {"verdict": "unreadable", "bound": None, "reason": run.stderr}


def main(emo, count):
    wrong, apart, verdicts, reasons = [], [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        files = list(right_files(emo, folder))
        for name, path, _ in files:
            for engine in ENGINES:
                verdict = verify(emo, path, engine, "--weights", "formula:0")
                key = "right", engine, verdict["verdict"]
                verdicts[key] = verdicts.get(key, 0) + 1
                if verdict["verdict"] == "undecided":
                    reasons[f"{name}, {engine}"] = verdict["reason"]
                elif verdict["verdict"] != "pass":
                    wrong.append(f"right {name} in {engine}: {verdict['verdict']}, {verdict['reason']}")
        truths = {}
        for name, path, original in files:
            if name not in SUBJECTS:
                continue
            side = session(path).get_inputs()[0].shape[2]
            if not isinstance(side, int):
                side = 224
            inputs = pictures(side, 3, seed=2)
            truth = truths.setdefault(original, outputs(original, inputs))
            made, seed = 0, 0
            while made < count:
                seed += 1
                draw = random.Random(f"{name} {seed}")
                model = onnx.load(path)
                mutation = mutate(model, draw)
                if mutation is None:
                    continue
                mutant = folder / "mutant.onnx"
                onnx.save(model, mutant)
                try:
                    error = moved(outputs(mutant, inputs), truth)
                except Exception:
                    # ONNX Runtime runs it not at all.
                    continue
                made += 1
                found = {}
                for engine in ENGINES:
                    verdict = verify(emo, mutant, engine, "--weights", "formula:0")
                    found[engine] = verdict["verdict"]
                    key = "mutant", engine, verdict["verdict"]
                    verdicts[key] = verdicts.get(key, 0) + 1
                    if verdict["verdict"] == "pass" and not error <= verdict["bound"]:
                        place = f"{name}, seed {seed}, {mutation}, in {engine}"
                        wrong.append(f"{place}: passes within {verdict['bound']:.1e}, and is off by {error:.1e}")
                if len(set(found.values())) > 1:
                    apart.append(f"{name}, seed {seed}, {mutation}: {found}, off by {error:.1e}")
    for (kind, engine, verdict), n in sorted(verdicts.items()):
        print(f"{kind} files in {engine}: {n} {verdict}")
    for name, reason in reasons.items():
        print(f"open: {name}: {reason}")
    for line in apart:
        print(f"engines differ: {line}")
    for line in wrong:
        print(f"wrong: {line}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    default = 40 if os.environ.get("EMO_THOROUGH") == "1" else 4
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else default)
