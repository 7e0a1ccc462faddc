"""Compares the shapes and types that `emo dump` infers with those of `onnx.shape_inference`.

The suite is the pinned `onnx` package: its light models, the models in its test data, and every operator
and model case that `onnx.backend.test.case` generates. Declared types of inner values and outputs are taken
away, so that both sides infer. Every value is compared, those of bodies too: kind, element type, rank, each
extent. A value that onnx resolves and ours does not is a difference, and so is another answer. A difference
stands only where a run of the model gives what ours says (ONNX Runtime, or `onnx.reference` where that lacks
the operator), and only in a case that ALLOWED lists with its cause. Where a case comes with outputs, ours
must also agree with them, on every output.

    python tests/peers/shapes.py PATH/TO/emo
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, shape_inference
from onnx.reference import ReferenceEvaluator

DATA = Path(onnx.__file__).parent / "backend/test/data"

# Where onnx is wrong, and a run shows it: case, value, cause.
ALLOWED = {
    ("test_loop13_seq", "seq_res"): "the items are declared as scalars; the body inserts vectors",
}

DTYPES = {number: name for name, number in TensorProto.DataType.items()}


def cases():
    """Name, model, and lists of expected outputs by name."""
    for path in sorted(DATA.glob("light/*.onnx")):
        yield path.stem, onnx.load(path, load_external_data=False), []
    for path in sorted(DATA.glob("*/*/model.onnx")):
        yield f"{path.parts[-3]}/{path.parts[-2]}", onnx.load(path, load_external_data=False), []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import model, node

        for case in node.collect_testcases(None) + model.collect_testcases():
            if case.model is not None:
                yield case.name, case.model, case.data_sets


def graphs(graph, path=""):
    """The graph and the bodies in it, each with its path, as `emo dump` calls them."""
    yield path, graph
    for n in graph.node:
        label = n.name or f"{n.op_type}({n.output[0] if n.output else ''})"
        for attribute in n.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g, f"{path}{label}/{attribute.name}/")


def stripped(model):
    """The model without what it says of inner values and outputs."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for path, graph in graphs(bare.graph):
        del graph.value_info[:]
        for value in [*graph.output, *(graph.input if path else [])]:
            value.ClearField("type")
    return bare


def of_type(proto):
    """A type as `emo dump` has it."""
    kind = proto.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(proto, kind)
        shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim]
        # A name that onnx makes up for what it does not know.
        shape = [None if str(d).startswith("unk__") else d for d in shape]
        return {
            "dtype": DTYPES[tensor.elem_type] if tensor.elem_type else None,
            "shape": shape if tensor.HasField("shape") else None,
            "sparse": kind == "sparse_tensor_type",
        }
    if kind == "sequence_type":
        return {"sequence": of_type(proto.sequence_type.elem_type)}
    if kind == "optional_type":
        return {"optional": of_type(proto.optional_type.elem_type)}
    if kind == "map_type":
        return {"map": [DTYPES[proto.map_type.key_type], of_type(proto.map_type.value_type)]}
    return {"dtype": None, "shape": None, "sparse": False}


def theirs(model):
    """onnx's answers by path and value; none where it refuses the model."""
    try:
        inferred = shape_inference.infer_shapes(model, check_type=False, strict_mode=True, data_prop=True)
    except Exception:
        inferred = shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)
    answers = {}
    for path, graph in graphs(inferred.graph):
        for value in [*graph.value_info, *graph.output]:
            if value.HasField("type"):
                answers[path, value.name] = of_type(value.type)
    return answers


def tensor(value):
    """The innermost tensor of a type."""
    for key in ("sequence", "optional"):
        if key in value:
            return tensor(value[key])
    return tensor(value["map"][1]) if "map" in value else value


def resolved(value):
    """Whether the type and every extent are known, as a number or a name."""
    inner = tensor(value)
    return bool(inner.get("dtype")) and inner["shape"] is not None and None not in inner["shape"]


def difference(ours, other):
    """What `other` says and `ours` says otherwise, or does not say."""
    for key in ("sequence", "optional"):
        if (key in ours) != (key in other):
            if key in other and ours.get("dtype") is None and not {"sequence", "optional", "map"} & set(ours):
                return f"not resolved: {other}"
            return f"{ours} for {other}"
        if key in ours:
            return difference(ours[key], other[key])
    if "map" in ours or "map" in other:
        same = "map" in ours and "map" in other and ours["map"][0] == other["map"][0]
        return difference(ours["map"][1], other["map"][1]) if same else f"{ours} for {other}"
    if other["dtype"] and ours.get("dtype") != other["dtype"]:
        return f"{'not resolved' if not ours.get('dtype') else ours['dtype']} for {other['dtype']}"
    if other["shape"] is None:
        return None
    if ours["shape"] is None:
        return f"not resolved: {other['shape']}"
    if len(ours["shape"]) != len(other["shape"]):
        return f"{ours['shape']} for {other['shape']}"
    for mine, their in zip(ours["shape"], other["shape"]):
        if isinstance(their, int) and mine != their:
            return f"{ours['shape']} for {other['shape']}"
        if isinstance(their, str) and mine is None:
            return f"not resolved: {ours['shape']} for {other['shape']}"
    return None


def of_value(value):
    """The type of a value that a run gave; of a type that numpy lacks it comes as a message."""
    if value is None or isinstance(value, dict):
        return None
    if isinstance(value, TensorProto):
        return {"dtype": DTYPES[value.data_type], "shape": list(value.dims)}
    if isinstance(value, (list, tuple)):
        return {"sequence": of_value(value[0]) if value else {"dtype": None, "shape": None}}
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
    return {"dtype": DTYPES[dtype], "shape": list(np.shape(value))}


def contradicts(ours, run):
    """Whether a run gave something else. Names and gaps may be anything, an optional what it holds."""
    if run is None:
        return False
    ours = ours.get("optional", ours)
    if "sequence" in ours or "sequence" in run:
        return not ("sequence" in ours and "sequence" in run) or contradicts(ours["sequence"], run["sequence"])
    if "map" in ours or run["shape"] is None:
        return False
    if run["dtype"] and ours["dtype"] not in (None, run["dtype"]):
        return True
    if ours["shape"] is None:
        return False
    return len(ours["shape"]) != len(run["shape"]) or any(
        isinstance(a, int) and a != b for a, b in zip(ours["shape"], run["shape"])
    )


def run(model, value, inputs):
    """The value of a run: of ONNX Runtime, else of onnx.reference."""
    bare = stripped(model)
    if value not in [o.name for o in bare.graph.output]:
        bare.graph.output.append(onnx.ValueInfoProto(name=value))
    names = [i.name for i in bare.graph.input]
    feeds = dict(zip(names, inputs))
    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(bare.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return "ONNX Runtime", session.run([value], feeds)[0]
    except Exception:
        return "onnx.reference", ReferenceEvaluator(model).run([value], feeds)[0]


def main():
    emo = sys.argv[1]
    suite = list(cases())
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, (_, model, _) in enumerate(suite):
            path = Path(folder) / f"{i}.onnx"
            onnx.save(stripped(model), path)
            paths.append(str(path))
        out = subprocess.run([emo, "dump", "--format", "json", *paths], check=True, stdout=subprocess.PIPE).stdout
    files = json.loads(out)["files"]

    failures, allowed = [], set()
    counts = dict(values=0, agree=0, ours=0, theirs=0, outputs=0, problems=0)
    for (name, model, data), file in zip(suite, files, strict=True):
        ours = {(v["path"], v["name"]): v["type"] for v in file["values"]}
        initial = {i["name"] for i in file["initializers"]} | {i.name for i in model.graph.input}
        answers = theirs(stripped(model))
        # A branch that a constant rules out never runs; it may hold any nonsense.
        idle = {n["path"] for n in file["nodes"] if n["multiplicity"] == 0}
        problems = [f"{n['path']}{n['name'] or n['operator']}: {n['problem']}" for n in file["nodes"] if n["problem"]]
        for key in sorted(set(ours) | set(answers)):
            path, value = key
            if path == "" and value in initial:
                continue
            mine, other = ours.get(key), answers.get(key)
            if path in idle:
                continue
            counts["values"] += 1
            counts["ours"] += mine is not None and resolved(mine)
            counts["theirs"] += other is not None and resolved(other)
            if other is None:
                continue
            why = "no such value" if mine is None else difference(mine, other)
            if why is None:
                counts["agree"] += 1
            elif (name, value) in ALLOWED:
                engine, result = run(model, value, data[0][0])
                if mine is None or contradicts(mine, of_value(result)) or not contradicts(other, of_value(result)):
                    failures.append(f"{name} {value}: {why}, and {engine} gives {of_value(result)}")
                allowed.add((name, value))
            else:
                failures.append(f"{name} {path}{value}: {why}  {problems[:2]}")
        for _, outputs in data:
            for output, value in zip(model.graph.output, outputs):
                counts["outputs"] += 1
                mine = ours.get(("", output.name))
                if mine is None or contradicts(mine, of_value(value)):
                    failures.append(f"{name} {output.name}: {mine}, but its output is {of_value(value)} {problems[:2]}")
        counts["problems"] += len(problems)

    print(f"{len(suite)} models, {counts['values']} values: ours resolves {counts['ours']}, onnx {counts['theirs']}")
    print(f"{counts['agree']} answers of onnx agree; {len(allowed)} where a run shows onnx wrong")
    for (name, value), cause in ALLOWED.items():
        print(f"  {name} {value}: {cause}")
    failures += [f"{key}: allowed, but agrees" for key in ALLOWED if key not in allowed]
    print(f"{counts['outputs']} outputs of runs agree" if not failures else f"{len(failures)} differences")
    print("\n".join(failures))
    sys.exit(bool(failures) or counts["ours"] < counts["theirs"])


if __name__ == "__main__":
    main()
