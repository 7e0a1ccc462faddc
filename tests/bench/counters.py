"""How long counting takes, and how much memory: `emo audit` beside onnx_tool and onnxsim, in one run.

    cargo build --release
    python3 -m venv target/counters && target/counters/bin/pip install -q -r tests/bench/counters.txt
    target/counters/bin/python tests/bench/counters.py target/release/emo

Whole processes, in turn, medians; ratios are to `emo audit`. EMO-5M is exported here, ResNet-50 is the
`onnx` package's light one.
"""

import importlib.util
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 5
ONNX_TOOL = "import onnx_tool, sys; onnx_tool.model_profile(sys.argv[1])"
ONNXSIM = (
    "import onnx, onnxsim, sys; from onnxsim import model_info; m = onnx.load(sys.argv[1]); "
    "model_info.print_simplifying_info(m, onnxsim.simplify(m)[0])"
)


def measure(command: list[str]) -> tuple[float, float, float]:
    """Milliseconds by the clock and of the processors, and peak resident megabytes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = (time.perf_counter() - start) * 1e3
    if status != 0:
        sys.exit(f"{command}: {errors.decode()[-500:]}")
    return elapsed, (usage.ru_utime + usage.ru_stime) * 1e3, usage.ru_maxrss * 1024 / 1e6


def medians(tools: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Of every tool's command, run in turn: what `measure` tells."""
    runs = {tool: [] for tool in tools}
    for _ in range(rounds):
        for tool, command in tools.items():
            runs[tool].append(measure(command))
    return {tool: [statistics.median(column) for column in zip(*rows)] for tool, rows in runs.items()}


def main(emo: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours = f"{folder}/emo-5m.onnx"
        subprocess.run([emo, "export", "emo-5m", "--no-verify", "-o", ours], check=True, stdout=subprocess.DEVNULL)
        # Not imported: the kernel counts a parent's peak memory as its children's.
        light = pathlib.Path(importlib.util.find_spec("onnx").origin).parent / "backend/test/data/light/light_resnet50.onnx"
        for name, path in [("EMO-5M", ours), ("light ResNet-50", str(light))]:
            tools = {
                "emo audit": [emo, "audit", path],
                "onnx_tool": [sys.executable, "-c", ONNX_TOOL, path],
                "onnxsim": [sys.executable, "-c", ONNXSIM, path],
            }
            found = medians(tools, ROUNDS)
            base = found["emo audit"]
            print(f"{name}\n{'':12}{'ms':>10}{'ratio':>8}{'MB':>10}{'ratio':>8}")
            for tool, (ms, _, mb) in found.items():
                print(f"{tool:12}{ms:10.1f}{ms / base[0]:8.1f}{mb:10.1f}{mb / base[2]:8.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
