"""A zoo of ten thousand entries: how fast it is listed and checked, beside `sha256sum` over the same files.

    cargo build --release
    python3 tests/bench/zoo.py target/release/emo [ENTRIES [MODEL.onnx]]

One file is added to a zoo, and its entry is written as often as asked for; the files are hard links to it. Without a
file it is EMO-1M, which is exported here. Whole processes, in turn, medians.
"""

import json
import os
import pathlib
import sys
import tempfile

from counters import measure, medians

ROUNDS = 3
FOLDER = 100


def fill(emo: str, model: str, zoo: pathlib.Path, entries: int) -> int:
    """Makes the zoo; the bytes of all its files."""
    first = zoo.parent / "one"
    measure([emo, "zoo", "add", str(first), model])
    entry, *_ = json.loads((first / "manifest.json").read_text())
    # Under another model's name nothing is published of it.
    entry |= {"claim": None, "paper": None, "metadata": entry["metadata"] | {"tags": []}}
    listed = []
    for index in range(entries):
        folder = f"m{index // FOLDER:05}"
        path = f"{folder}/f{index:06}.onnx"
        (zoo / folder).mkdir(parents=True, exist_ok=True)
        os.link(first / entry["model_path"], zoo / path)
        listed.append(entry | {"model": folder, "model_path": path})
    (zoo / "manifest.json").write_text(json.dumps(listed, indent=2, sort_keys=True))
    return entries * entry["metadata"]["model_bytes"]


def main(emo: str, entries: str = "10000", model: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        if model is None:
            model = str(place / "third-party.onnx")
            measure([emo, "export", "emo-1m", "--no-verify", "-o", model])
        zoo = place / "zoo"
        size = fill(emo, model, zoo, int(entries))
        tools = {
            "emo zoo list": [emo, "zoo", "list", str(zoo)],
            "emo zoo check": [emo, "zoo", "check", str(zoo)],
            "sha256sum, one process": ["sh", "-c", f"find {zoo} -name '*.onnx' -exec sha256sum {{}} +"],
        }
        print(f"{int(entries):,} entries, {size / 1e6:,.0f} MB\n{'':24}{'s':>8}{'CPU':>8}{'MB':>10}")
        for tool, (ms, cpu, mb) in medians(tools, ROUNDS).items():
            print(f"{tool:24}{ms / 1e3:8.2f}{cpu / 1e3:8.2f}{mb:10.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
