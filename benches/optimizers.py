"""Runs our optimizers, candle's and PyTorch's in turn on the same tensors, and prints a table in Markdown.

    cargo bench --bench optimizers --no-run
    pip install torch==2.15.0
    python benches/optimizers.py [--rounds 9] [--threads 2] [--seconds 1]

Each figure is the median over the rounds of a round's median step; a ratio is the median of the rounds' ratios, so that
a machine whose speed drifts changes both sides.
"""

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKLOADS = {"a": "25M parameters in 5 tensors", "b": "2.2M parameters in 180 tensors"}
PEERS = [("torch", "fused"), ("torch", "foreach"), ("rust", "candle"), ("rust", "memory")]


def binary():
    command = ["cargo", "bench", "--bench", "optimizers", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True).stdout.splitlines()
    artifacts = (json.loads(line) for line in lines)
    return next(a["executable"] for a in artifacts if a.get("target", {}).get("name") == "optimizers" and a["executable"])


def measure(command, impl, rule, workload, options):
    options = ["--workload", workload, "--rule", rule, "--impl", impl, "--threads", str(options.threads),
               "--seconds", str(options.seconds)]
    line = subprocess.run(command + options, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    return json.loads(line).get("median_ns")


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    commands = {"rust": [binary()], "torch": [sys.executable, str(HERE / "optimizers_torch.py")]}
    print(f"{datetime.date.today()}, {processor()}, {options.threads} threads, {options.rounds} rounds "
          f"of {options.seconds} s each; milliseconds, and how many times as fast we are\n")
    print("| workload | rule | ours | " + " | ".join(
        {"fused": "PyTorch fused", "foreach": "PyTorch foreach", "candle": "candle_nn AdamW",
         "memory": "memory limit"}[impl] for _, impl in PEERS) + " |")
    print("| --- " * (3 + len(PEERS)) + "|")
    for workload, title in WORKLOADS.items():
        for rule in ["adamw", "lion", "sgd"]:
            ours, theirs = [], {impl: [] for _, impl in PEERS}
            for _ in range(options.rounds):
                ours.append(measure(commands["rust"], "optim", rule, workload, options))
                for side, impl in PEERS:
                    # candle has AdamW only; PyTorch has no Lion.
                    if (side == "torch" and rule == "lion") or (impl == "candle" and rule != "adamw"):
                        continue
                    theirs[impl].append(measure(commands[side], impl, rule, workload, options))
            cells = []
            for _, impl in PEERS:
                if not theirs[impl]:
                    cells.append("")
                    continue
                ratio = statistics.median(t / o for t, o in zip(theirs[impl], ours))
                cells.append(f"{statistics.median(theirs[impl]) / 1e6:.2f} ({ratio:.2f}x)")
            print(f"| {title} | {rule} | {statistics.median(ours) / 1e6:.2f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
