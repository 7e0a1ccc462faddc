"""Compares proto/onnx.proto with the descriptors of the `onnx` package, both ways.

Every message, field (number, label, type, oneof, packing), reserved range and enum value that one side
has and the other has not, or has otherwise, is listed. Run with the pinned `onnx`; exit code 1 on a difference.

    python tests/peers/schema.py
"""

import re
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2
from onnx import onnx_ml_pb2

OURS = Path(__file__).parents[2] / "proto" / "onnx.proto"
TYPES = {number: name[5:].lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()}
LABELS = {number: name[6:].lower() for name, number in descriptor_pb2.FieldDescriptorProto.Label.items()}


def theirs(file):
    """The package's facts: one entry a message, field, reservation, enum and enum value."""
    facts = {("package", file.package): file.syntax or "proto2"}

    def enum(item, scope):
        facts["enum", scope + item.name] = ""
        facts.update({("value", f"{scope}{item.name}.{value.name}"): value.number for value in item.value})

    def message(item, scope):
        name = scope + item.name
        facts["message", name] = ""
        for field in item.field:
            kind = field.type_name.removeprefix(f".{file.package}.") or TYPES[field.type]
            oneof = item.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
            packed = " packed" if field.options.packed else ""
            label = f"oneof {oneof}" if oneof else LABELS[field.label]
            facts["field", f"{name}.{field.name}"] = f"{label} {kind} = {field.number}{packed}"
        for span in item.reserved_range:
            facts.update({("reserved", f"{name}.{number}"): "" for number in range(span.start, span.end)})
        facts.update({("reserved", f"{name}.{word}"): "" for word in item.reserved_name})
        for inner in item.nested_type:
            message(inner, name + ".")
        for inner in item.enum_type:
            enum(inner, name + ".")

    for item in file.message_type:
        message(item, "")
    for item in file.enum_type:
        enum(item, "")
    return facts


def ours(text):
    """The same facts, read from our file: a statement ends with `;`, `{` or `}`."""
    facts, scopes, fields = {}, [], {}
    statements = re.findall(r"\s*([^;{}]*)([;{}])", re.sub(r"//.*", "", text))
    for words, end in ((statement.split(), end) for statement, end in statements):
        scope = ".".join(name for kind, name in scopes if kind != "oneof")
        within = scopes[-1] if scopes else ("file", "")
        if end == "}":
            scopes.pop()
        elif end == "{":
            scopes.append((words[0], words[1]))
            if words[0] != "oneof":
                facts[words[0], ".".join(filter(None, [scope, words[1]]))] = ""
        elif words[:1] == ["syntax"]:
            syntax = words[2].strip('"')
        elif words[:1] == ["package"]:
            facts["package", words[1]] = syntax
        elif words[:1] == ["reserved"]:
            for part in " ".join(words[1:]).split(", "):
                first, _, last = part.partition(" to ")
                numbers = range(int(first), int(last or first) + 1) if first.isdigit() else [part.strip('"')]
                facts.update({("reserved", f"{scope}.{number}"): "" for number in numbers})
        elif words and within[0] == "enum":
            facts["value", f"{scope}.{words[0]}"] = int(words[2])
        elif words:
            label = f"oneof {within[1]}" if within[0] == "oneof" else words.pop(0)
            fields[f"{scope}.{words[1]}"] = label, words
    for name, (label, (kind, _, _, number, *options)) in fields.items():
        # A type is looked up in the innermost scope first.
        outer = name.split(".")[:-1]
        places = [".".join([*outer[:depth], kind]) for depth in range(len(outer), -1, -1)]
        full = next((place for place in places if ("message", place) in facts or ("enum", place) in facts), kind)
        facts["field", name] = f"{label} {full} = {number}{' packed' if options else ''}"
    return facts


def main():
    descriptor = descriptor_pb2.FileDescriptorProto()
    onnx_ml_pb2.DESCRIPTOR.CopyToProto(descriptor)
    expected, found = theirs(descriptor), ours(OURS.read_text(encoding="utf-8"))
    differences = [
        f"{kind} {name}: onnx has {expected.get((kind, name), 'none')!r}, ours has {found.get((kind, name), 'none')!r}"
        for kind, name in sorted(expected.keys() | found.keys())
        if expected.get((kind, name)) != found.get((kind, name))
    ]
    print("\n".join(differences) or f"{len(expected)} facts agree")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
