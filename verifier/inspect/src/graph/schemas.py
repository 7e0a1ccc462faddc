"""Writes schemas.txt: the operator schemas of the `onnx` package (1.23.2), a line an operator and version.

    python schemas.py            writes the file
    python schemas.py --check    exit code 1 where the file differs from what the package says

The lines, in this order:

    domain NAME VERSION          a domain and its newest operator set
    type NUMBER NAME             a type; sets of types are hexadecimal masks over these numbers
    set NUMBER MASK              a set of types that type variables range over
    op DOMAIN NAME SINCE FLAGS | INPUTS | OUTPUTS | VARIABLES | ATTRIBUTES

FLAGS: `-` or any of d (deprecated), u (takes attributes that it does not declare).
INPUTS, OUTPUTS: the allowed counts (`2`, `1-2`, `1,5`, `1-` without bound), then `MARK NAME:TYPE`,
MARK out of nothing (required), `?` (optional), `*` (variadic), `+` (variadic of several types);
TYPE is a variable or a type. VARIABLES: `T=SET`. ATTRIBUTES: `NAME:TYPE`, `!` after those that are required.
"""

import sys
from pathlib import Path

import onnx
from onnx import NodeProto, checker, defs, helper

HERE = Path(__file__).parent / "schemas.txt"
UNBOUNDED = 2**31 - 1
Option = defs.OpSchema.FormalParameterOption


def refusal(schema, inputs, outputs, attribute=None):
    """What onnx.checker says of a node with so many inputs and outputs; its arity check comes first."""
    node = NodeProto(op_type=schema.name, domain=schema.domain)
    node.input.extend(f"i{n}" for n in range(inputs))
    node.output.extend(f"o{n}" for n in range(outputs))
    if attribute:
        node.attribute.append(helper.make_attribute(attribute, 1))
    context = checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {schema.domain: schema.since_version}
    try:
        checker.check_node(node, context)
    except checker.ValidationError as error:
        return str(error)
    return ""


def counts(schema, low, high, says, arity):
    """The counts that are allowed; the package tells of gaps in the range only through its checker."""
    if high >= UNBOUNDED:
        return f"{low}-"
    allowed = [n for n in range(low, high + 1) if says not in refusal(schema, *arity(n))]
    if allowed != list(range(low, high + 1)):
        return ",".join(map(str, allowed))
    return str(low) if low == high else f"{low}-{high}"


def parameter(formal):
    mark = {Option.Single: "", Option.Optional: "?", Option.Variadic: "*" if formal.is_homogeneous else "+"}
    return f"{mark[formal.option]}{formal.name}:{formal.type_str.replace(' ', '')}"


def lines():
    schemas = sorted(
        defs.get_all_schemas_with_history(), key=lambda s: (s.domain, s.name, s.since_version)
    )
    yield f"# Operator schemas of the onnx package, {onnx.__version__}; written by schemas.py"
    newest = {}
    for schema in schemas:
        newest[schema.domain] = max(newest.get(schema.domain, 0), schema.since_version)
    newest[""] = defs.onnx_opset_version()
    for domain, version in sorted(newest.items()):
        yield f"domain {domain or 'ai.onnx'} {version}"

    names = {t.replace(" ", "") for s in schemas for c in s.type_constraints for t in c.allowed_type_strs}
    for schema in schemas:
        variables = {c.type_param_str for c in schema.type_constraints}
        used = {p.type_str.replace(" ", "") for p in [*schema.inputs, *schema.outputs]}
        names |= used - variables
    numbers = {name: number for number, name in enumerate(sorted(names, key=lambda n: (n.count("("), n)))}
    assert len(numbers) <= 128, "a mask has 128 bits"
    for name, number in numbers.items():
        yield f"type {number} {name}"

    sets = {}
    for schema in schemas:
        for constraint in schema.type_constraints:
            mask = sum({1 << numbers[t.replace(" ", "")] for t in constraint.allowed_type_strs})
            sets.setdefault(mask, len(sets))
    for mask, number in sets.items():
        yield f"set {number} {mask:x}"

    for schema in schemas:
        legal = (schema.min_input, schema.min_output)
        # The two counts are probed one by one, the other held at one that is allowed.
        outputs = counts(
            schema, schema.min_output, schema.max_output, "not in allowed output sizes", lambda n: (legal[0], n)
        )
        inputs = counts(
            schema, schema.min_input, schema.max_input, "not in allowed input sizes", lambda n: (n, legal[1])
        )
        unrecognized = "Unrecognized attribute" in refusal(schema, *legal, attribute="no_such_attribute")
        flags = [
            "d" * schema.deprecated,
            "u" * (not unrecognized and not schema.deprecated and legal != (0, 0)),
        ]
        attributes = [
            f"{name}:{attribute.type.name}{'!' * attribute.required}"
            for name, attribute in sorted(schema.attributes.items())
        ]
        variables = [
            f"{c.type_param_str}={sets[sum({1 << numbers[t.replace(' ', '')] for t in c.allowed_type_strs})]}"
            for c in schema.type_constraints
        ]
        head = ["op", schema.domain or "ai.onnx", schema.name, str(schema.since_version), "".join(flags) or "-"]
        parts = [
            head,
            [inputs, *map(parameter, schema.inputs)],
            [outputs, *map(parameter, schema.outputs)],
            variables,
            attributes,
        ]
        yield " | ".join(" ".join(part) for part in parts).rstrip()


def main():
    text = "\n".join(lines()) + "\n"
    if "--check" not in sys.argv:
        HERE.write_text(text, encoding="utf-8")
        return 0
    found = HERE.read_text(encoding="utf-8")
    if found == text:
        print(f"schemas.txt is what onnx {onnx.__version__} says, {text.count(chr(10))} lines")
        return 0
    print(f"schemas.txt is not what onnx {onnx.__version__} says; run verifier/inspect/src/graph/schemas.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
