"""Runs our optimizers, candle's and PyTorch's in turn on the same tensors, and prints a table in Markdown.

    cargo bench --bench optimizers --no-run
    pip install torch==2.15.0
    python benches/optimizers.py [--starts 5] [--turns 10] [--threads 2] [--seconds 0.1]

Where memory lies differs from start to start of a program, and how fast it is from second to second. So each side is
started several times, and within a start all sides take turns of a tenth of a second. A figure is the median over all
turns of the median step; a ratio is the median over all turns of the ratio within a turn. Beside it stands the range of
the starts' ratios.
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


class Side:
    """A program that waits for its turns."""

    def __init__(self, command, impl, rule, workload, options):
        self.process = subprocess.Popen(
            command + ["--workload", workload, "--rule", rule, "--impl", impl, "--threads", str(options.threads),
                       "--seconds", str(options.seconds), "--paced"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self):
        """Milliseconds of a median step."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["median_ns"] / 1e6

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.1)
    options = parser.parse_args()
    commands = {"rust": [binary()], "torch": [sys.executable, str(HERE / "optimizers_torch.py")]}
    print(f"{datetime.date.today()}, {processor()}, {options.threads} threads, {options.starts} starts "
          f"with {options.turns} turns of {options.seconds} s; milliseconds, and how many times as fast we are "
          "(least and largest of the starts)\n")
    print("| workload | rule | ours | " + " | ".join(
        {"fused": "PyTorch fused", "foreach": "PyTorch foreach", "candle": "candle_nn AdamW",
         "memory": "memory limit"}[impl] for _, impl in PEERS) + " |")
    print("| --- " * (3 + len(PEERS)) + "|")
    for workload, title in WORKLOADS.items():
        for rule in ["adamw", "lion", "sgd"]:
            # candle has AdamW only; PyTorch has no Lion.
            peers = [(side, impl) for side, impl in PEERS
                     if not (side == "torch" and rule == "lion") and not (impl == "candle" and rule != "adamw")]
            # Per start: a list of turns, each with our time and the peers'.
            starts = []
            for _ in range(options.starts):
                sides = [Side(commands[side], impl, rule, workload, options)
                         for side, impl in [("rust", "optim"), *peers]]
                for side in sides:  # to warm up
                    side.turn()
                starts.append([[side.turn() for side in sides] for _ in range(options.turns)])
                for side in sides:
                    side.stop()
            turns = [turn for start in starts for turn in start]
            cells = {}
            for k, (_, impl) in enumerate(peers, start=1):
                ratio, *ratios = (statistics.median(turn[k] / turn[0] for turn in part) for part in [turns, *starts])
                time = statistics.median(turn[k] for turn in turns)
                cells[impl] = f"{time:.2f} ({ratio:.2f}x; {min(ratios):.2f} to {max(ratios):.2f})"
            ours = statistics.median(turn[0] for turn in turns)
            print(f"| {title} | {rule} | {ours:.2f} | " + " | ".join(cells.get(impl, "") for _, impl in PEERS) + " |",
                  flush=True)


if __name__ == "__main__":
    main()
