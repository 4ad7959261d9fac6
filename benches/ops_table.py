"""Lets the operations of benches/ops.rs and PyTorch's take turns, and prints the table of RESULTS.md.

    pip install torch==2.15.0
    python benches/ops_table.py [--turns 3] [--passes 20] [--threads 2]

Each turn is a process of its own: ours, PyTorch's contiguous, PyTorch's channels_last (of images). A time is the least of the turns, whose
own is the fourth quickest pass; a ratio is of forward and backward together, PyTorch's better over ours. `--torch` prints one turn of PyTorch.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def torch_turn(options):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(options.threads)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format

    def variable(*shape):
        x = torch.rand(shape) * 2 - 1
        return (x.to(memory_format=layout) if len(shape) == 4 else x).requires_grad_()

    def conv(x, weight, stride=1, groups=1):
        x, weight = variable(*x), variable(*weight)
        return lambda: F.conv2d(x, weight, None, stride, weight.shape[2] // 2, 1, groups), (x, weight)

    images, weight, bias = variable(128, 64, 32, 32), variable(64), variable(64)
    rows, row, expand = variable(4096, 512), variable(512), variable(2048, 512)
    logits, labels, qkv = variable(4096, 1000), torch.zeros(4096, dtype=torch.long), variable(16 * 256, 3 * 256)

    def attention():
        q, k, v = qkv.view(16, 256, 3, 4, 64).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(16 * 256, 256)

    ops = {
        "conv 3x3, 16 channels, 32x32": conv((128, 16, 32, 32), (16, 16, 3, 3)),
        "conv 3x3, 64 to 128 channels, stride 2, 16x16": conv((128, 64, 16, 16), (128, 64, 3, 3), 2),
        "conv 3x3, 128 channels, 8x8": conv((128, 128, 8, 8), (128, 128, 3, 3)),
        "conv 3x3, 512 channels, 4x4": conv((32, 512, 4, 4), (512, 512, 3, 3)),
        "conv 3x3, 256 to 512 channels, stride 2, 8x8": conv((32, 256, 8, 8), (512, 256, 3, 3), 2),
        "conv 1x1, 128 to 256 channels, 16x16": conv((64, 128, 16, 16), (256, 128, 1, 1)),
        "conv 3x3, depthwise, 64 channels, 32x32": conv((128, 64, 32, 32), (64, 1, 3, 3), 1, 64),
        "conv 3x3, depthwise, stride 2": conv((128, 64, 32, 32), (64, 1, 3, 3), 2, 64),
        "max pool 2x2": (lambda: F.max_pool2d(images, 2), (images,)),
        "max pool 3x3, stride 2": (lambda: F.max_pool2d(images, 3, 2, 1), (images,)),
        "average pool 2x2": (lambda: F.avg_pool2d(images, 2), (images,)),
        "average pool 3x3, stride 2": (lambda: F.avg_pool2d(images, 3, 2, 1), (images,)),
        "global average": (lambda: F.adaptive_avg_pool2d(images, 1), (images,)),
        "relu": (lambda: F.relu(images), (images,)),
        "batch norm": (lambda: F.batch_norm(images, None, None, weight, bias, True), (images, weight, bias)),
        "layer norm, 512": (lambda: F.layer_norm(rows, (512,), row), (rows, row)),
        "gelu": (lambda: F.gelu(rows), (rows,)),
        "linear, 512 to 2048": (lambda: F.linear(rows, expand), (rows, expand)),
        "cross-entropy, 1000 classes": (lambda: F.cross_entropy(logits, labels), (logits,)),
        "causal attention, 16 x 4 x 256 x 64": (attention, (qkv,)),
    }

    def milliseconds(call):
        call()
        times = []
        for _ in range(options.passes):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        return sorted(times)[min(3, options.passes - 1)]

    result = {}
    for name, (op, variables) in ops.items():
        y = op()
        ones = torch.ones_like(y)

        def backward():
            for variable in variables:
                variable.grad = None
            y.backward(ones, retain_graph=True)

        result[name] = [milliseconds(op), milliseconds(backward)]
    print(json.dumps(result))


def binary():
    command = ["cargo", "bench", "-p", "experiments", "--bench", "ops", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True).stdout.splitlines()
    artifacts = (json.loads(line) for line in lines)
    return next(a["executable"] for a in artifacts if a.get("target", {}).get("name") == "ops" and a["executable"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    if options.torch:
        return torch_turn(options)
    common = ["--passes", str(options.passes), "--threads", str(options.threads)]
    torch = [sys.executable, __file__, "--torch", *common]
    sides = [[binary(), *common], torch, [*torch, "--channels-last"]]
    # As cargo runs it (.cargo/config.toml).
    environment = {**os.environ, "CANDLE_BARRIER_POOL_SPIN_LIMIT": "50"}
    turns = [[] for _ in sides]
    for _ in range(options.turns):
        for side, times in zip(sides, turns):
            times.append(json.loads(subprocess.run(side, env=environment, check=True, capture_output=True, text=True).stdout))
    print("| operation | ours, ms (forward + backward) | PyTorch contiguous | PyTorch channels_last | PyTorch's better / ours |")
    print("| --- | --- | --- | --- | --- |")
    for name in turns[1][0]:
        best = [min((turn[name] for turn in times), key=sum) for times in turns]
        ratio = min(map(sum, best[1:])) / sum(best[0])
        print(f"| {name} | {' | '.join(f'{f:.2f} + {b:.2f}' for f, b in best)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
