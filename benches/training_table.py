"""Times training steps of ours and of PyTorch's, turn by turn, and prints the table of RESULTS.md.

    pip install torch==2.15.0
    cargo bench --bench training --no-run
    python benches/training_table.py --rounds 3 --seconds 6 [--models resnet20 cnn4 cnn4-norm gpt]

Each round starts ours, then PyTorch contiguous and channels_last. A figure is the median of the rounds' medians; the ratio is to
the better of PyTorch's two. Memory is the most that a process held, PyTorch's libraries excluded (what it holds after import).
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = {
    "cnn4": (128, "adamw", "images/s"),
    "cnn4-norm": (128, "adamw", "images/s"),
    "resnet20": (128, "sgd:lr=0.1,momentum=0.9", "images/s"),
    "gpt": (12, "adamw", "windows/s"),
}


def run(command):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=WORK, default=list(WORK))
    options = parser.parse_args()

    imports = "import resource, torch; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    base = run([sys.executable, "-c", imports])
    print("| work | ours | PyTorch contiguous | channels_last | ours / better | steps | peak MB, ours | PyTorch | ours / PyTorch |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in options.models:
        batch, opt, unit = WORK[model]
        common = ["--model", model, "--batch-size", str(batch), "--threads", str(options.threads)]
        common += ["--seconds", str(options.seconds)]
        peer = [sys.executable, "benches/training.py", *common]
        commands = [["cargo", "bench", "-q", "--bench", "training", "--", *common, "--opt", opt], peer]
        if model != "gpt":
            commands.append([*peer, "--channels-last"])
        rounds = [[run(command) for command in commands] for _ in range(options.rounds)]
        speed = [statistics.median(r[i]["examples_per_second"] for r in rounds) for i in range(len(commands))]
        ratio = statistics.median(
            r[0]["examples_per_second"] / max(peer["examples_per_second"] for peer in r[1:]) for r in rounds
        )
        steps = sum(r[0]["steps"] for r in rounds)
        memory = [statistics.median(r[i]["peak_memory_mb"] for r in rounds) for i in range(len(commands))]
        theirs = min(memory[1:]) - base
        last = f"{speed[2]:.0f}" if len(speed) > 2 else ""
        print(
            f"| {model}, batch {batch}, {unit} | {speed[0]:.0f} | {speed[1]:.0f} | {last} | {ratio:.2f} | {steps}"
            f" | {memory[0]:.0f} | {theirs:.0f} | {memory[0] / theirs:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
