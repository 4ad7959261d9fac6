"""Lets our training and PyTorch's take turns, and prints the table of RESULTS.md.

    pip install torch==2.15.0
    python benches/training_table.py [--rows cnn4 cnn4-norm resnet20 gpt memory] [--steps 60] [--turn 5] [--threads 2]
    python benches/training_table.py --device cuda [--rows resnet18-bf16 resnet18-tf32] [--program PATH of the bench's binary]

Ours, PyTorch contiguous and PyTorch channels_last are processes of their own, which take turns of a few steps on batches of the same
shape: forward, backward and AdamW (PyTorch's fused). A figure is that of the median step, and a ratio is to the better of PyTorch's
two; the range beside it is that of the turns' ratios from the first to the third quartile. Where other programs run, PyTorch's threads
wait for one that does not run, and the ratio of the fastest steps says more. On a GPU, where ours is built with the features cuda
and cudnn, PyTorch's two are eager and compiled, both channels_last, and the ratio is to eager. Memory is the most that each process held, with all its
libraries (VmHWM of /proc).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# By row: our model, PyTorch's, examples in a batch, what is counted and how many of them an example has, the bar.
ROWS = {
    "cnn4": ("cnn4", "cnn4", 128, "images/s", 1, ">= 1.1"),
    "cnn4-norm": ("cnn4:norm=batch", "cnn4-norm", 128, "images/s", 1, ">= 1.1"),
    "resnet20": ("resnet20", "resnet20", 128, "images/s", 1, ">= 1.0"),
    "resnet18": ("resnet18", "resnet18", 32, "images/s", 1, ""),
    "gpt": ("gpt", "gpt", 12, "tokens/s", 64, ">= 1.0"),
}
ON_GPU = {
    "resnet18-bf16": ("resnet18", "resnet18", 512, "images/s", 1, ">= 1.0", "bf16"),
    "resnet18-tf32": ("resnet18", "resnet18", 512, "images/s", 1, ">= 1.0", "tf32"),
}
NAMES = {
    "resnet18-bf16": "ResNet-18 in bf16",
    "resnet18-tf32": "ResNet-18 in TF32",
    "cnn4": "4-layer CNN",
    "cnn4-norm": "4-layer CNN with batch norm",
    "resnet20": "resnet20",
    "resnet18": "ResNet-18",
    "gpt": "char GPT 4 x 4 x 128, context 64",
}


def binary(device):
    features = [] if device == "cpu" else ["--features", "cuda,cudnn"]
    command = ["cargo", "bench", "-p", "experiments", "--bench", "training", "--no-run", "--message-format=json", *features]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True).stdout.splitlines()
    artifacts = (json.loads(line) for line in lines)
    return next(a["executable"] for a in artifacts if a.get("target", {}).get("name") == "training" and a["executable"])


class Side:
    """A program that waits for its turns."""

    def __init__(self, command, environment=None):
        self.process = subprocess.Popen(
            [*command, "--paced"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.turns, self.memory = [], None

    def turn(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = json.loads(self.process.stdout.readline())
        self.memory = line["peak_memory_mib"]
        self.turns.append(line["step_ms"])

    def stop(self):
        self.process.stdin.close()
        self.process.wait()

    def median(self):
        return statistics.median(ms for turn in self.turns for ms in turn)

    def fastest(self):
        return min(ms for turn in self.turns for ms in turn)


def ours(program, model, batch, options, *more):
    # As cargo runs it (.cargo/config.toml).
    environment = {**os.environ, "CANDLE_BARRIER_POOL_SPIN_LIMIT": "50"}
    command = [program, "--model", model, "--batch-size", str(batch), "--threads", str(options.threads)]
    return Side([*command, "--device", options.device, *more], environment)


def pytorch(model, batch, options, *more):
    command = [sys.executable, str(HERE / "training.py"), "--model", model, "--batch-size", str(batch)]
    return Side([*command, "--threads", str(options.threads), "--device", options.device, *more])


def measure(program, row, options):
    on_gpu = row in ON_GPU
    our_model, model, batch, unit, per_example, bar, *precision = (ON_GPU if on_gpu else ROWS)[row]
    batch = options.batch_size or batch
    precision = ["--precision", *precision] if precision else []
    sides = [ours(program, our_model, batch, options, *precision)]
    if on_gpu:
        sides.append(pytorch(model, batch, options, "--channels-last", *precision))
        sides.append(pytorch(model, batch, options, "--channels-last", "--compile", *precision))
    else:
        sides.append(pytorch(model, batch, options))
        if unit == "images/s":
            sides.append(pytorch(model, batch, options, "--channels-last"))
    for side in sides:  # to warm up
        side.turn(options.turn)
        side.turns.clear()
    for _ in range(-(-options.steps // options.turn)):
        for side in sides:
            side.turn(options.turn)
    for side in sides:
        side.stop()
    others = sides[1:2] if on_gpu else sides[1:]
    best = min(others, key=Side.median)
    turns = [statistics.median(b) / statistics.median(a) for a, b in zip(sides[0].turns, best.turns)]
    low, _, high = statistics.quantiles(turns, n=4)
    fastest = min(side.fastest() for side in others) / sides[0].fastest()
    speeds = [f"{batch * per_example / side.median() * 1e3:.0f}" for side in sides] + [""] * (3 - len(sides))
    print(
        f"| {NAMES[row]}, batch {batch}, {unit} | {' | '.join(speeds)} | {best.median() / sides[0].median():.2f}"
        f" ({low:.2f} to {high:.2f}) | {fastest:.2f} | {bar} | {sum(map(len, sides[0].turns))} |",
        flush=True,
    )


def measure_memory(program, options):
    """One after another, so that none of them can take memory from another."""
    sides = []
    for start in (ours, pytorch, lambda *a: pytorch(*a, "--channels-last")):
        side = start(program, "resnet20", 128, options) if start is ours else start("resnet20", 128, options)
        side.turn(options.turn)
        side.stop()
        sides.append(side)
    code = "import torch; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    imports = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout) / 1024
    memory = [side.memory for side in sides]
    print(
        f"| resnet20, batch 128, most memory, MiB (PyTorch's import alone: {imports:.0f}) |"
        f" {' | '.join(f'{m:.0f}' for m in memory)} | {memory[0] / min(memory[1:]):.2f} | | <= 1.0 | {options.turn} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, "memory", *ON_GPU])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--program", help="the bench's binary, where there is no cargo")
    parser.add_argument("--batch-size", type=int, help="in place of a row's own")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--turn", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    program = options.program or binary(options.device)
    on_gpu = options.device != "cpu"
    peers = "PyTorch eager | PyTorch compiled" if on_gpu else "PyTorch contiguous | PyTorch channels_last"
    print(f"| work | ours | {peers} | ours / PyTorch's better | of the fastest steps | bar | steps of each |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for row in options.rows or (ON_GPU if on_gpu else [*ROWS, "memory"]):
        if row == "memory":
            measure_memory(program, options)
        else:
            measure(program, row, options)


if __name__ == "__main__":
    main()
