"""Runs our rules on whole matrices and those of Python's packages in turn on the same matrices, and prints tables in Markdown.

    pip install torch==2.15.0 pytorch-optimizer==4.1.0 timm==1.0.31 heavyball==3.2.1
    python benches/muon.py [--rules muon,soap,shampoo] [--starts 3] [--turns 5] [--threads 2] [--seconds 0.5]

Sides take turns as in `optimizers.py`. A figure is the median over all turns of the median step; a ratio is the median over all
turns of the ratio within a turn. SOAP and Shampoo do more in each tenth step: theirs are means of ten. Products: the
multiplications of our iteration of Muon, of symmetric results by halves, over its time and the peak of as many threads.
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
WORKLOADS = {"resnet18": "ResNet-18", "gpt": "GPT-2 small, a quarter of its width"}
PEERS = {
    "muon": {"torch": "torch.optim.Muon", "kozistr": "pytorch-optimizer", "kozistr_gram": "pytorch-optimizer, Gram", "timm": "timm"},
    "soap": {"kozistr": "pytorch-optimizer", "heavyball": "heavyball"},
    "shampoo": {"kozistr": "pytorch-optimizer"},
}


def binary():
    command = ["cargo", "bench", "--workspace", "--bench", "muon", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True).stdout.splitlines()
    artifacts = (json.loads(line) for line in lines)
    return next(a["executable"] for a in artifacts if a.get("target", {}).get("name") == "muon" and a["executable"])


class Side:
    """A program that waits for its turns."""

    def __init__(self, command, impl, rule, workload, options):
        period = "1" if rule == "muon" else "10"
        self.process = subprocess.Popen(
            command + ["--workload", workload, "--rule", rule, "--impl", impl, "--period", period, "--paced",
                       "--threads", str(options.threads), "--seconds", str(options.seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def compare(rule, options, ours_binary):
    peers = PEERS[rule]
    ours = ["optim", "iteration", "peak"] if rule == "muon" else ["optim"]
    commands = {impl: [ours_binary] for impl in ours} | {
        impl: [sys.executable, str(HERE / "muon_torch.py")] for impl in peers}
    columns = [rule, *(["its iteration alone", "products, of the peak"] if rule == "muon" else []), *peers.values()]
    print("\n| workload | " + " | ".join(columns) + " |\n" + "| --- " * (1 + len(columns)) + "|")
    for workload, title in WORKLOADS.items():
        starts = []
        for _ in range(options.starts):
            sides = {impl: Side(commands[impl], impl, rule, workload, options) for impl in commands}
            for side in sides.values():  # to warm up
                side.turn()
            starts.append([{impl: side.turn() for impl, side in sides.items()} for _ in range(options.turns)])
            for side in sides.values():
                side.stop()
        turns = [turn for start in starts for turn in start]

        def median(of, turns=turns):
            return statistics.median(of(turn) for turn in turns)

        def speed(line):
            return line["multiplications"] / line["median_ns"]

        cells = [f"{median(lambda turn: turn['optim']['median_ns'] / 1e6):.1f}"]
        if rule == "muon":
            cells.append(f"{median(lambda turn: turn['iteration']['median_ns'] / 1e6):.1f}")
            cells.append(f"{median(lambda turn: speed(turn['iteration']) / speed(turn['peak'])):.2f}")
        for impl in peers:
            ratio, *ratios = (median(lambda turn: turn[impl]["median_ns"] / turn["optim"]["median_ns"], part)
                              for part in [turns, *starts])
            cells.append(f"{median(lambda turn: turn[impl]['median_ns'] / 1e6):.1f} ({ratio:.2f}x; "
                         f"{min(ratios):.2f} to {max(ratios):.2f})")
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rules", default="muon,soap,shampoo")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    print(f"{datetime.date.today()}, {processor()}, {options.threads} threads, {options.starts} starts with {options.turns} "
          f"turns of {options.seconds} s; milliseconds a step, and how many times as fast we are (least and largest of the starts)")
    ours = binary()
    for rule in options.rules.split(","):
        compare(rule, options, ours)


if __name__ == "__main__":
    main()
