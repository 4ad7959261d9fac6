"""Runs gpu_check and, in the same call on the same GPU, PyTorch's fused optimizers on the same tensors.

    python benches/gpu_check.py ./gpu_check
"""

import re
import subprocess
import sys
import time

import torch


def resnet18():
    shapes, width = [(64, 3, 3, 3), (64,), (64,)], 64
    for layer, out in enumerate([64, 128, 256, 512]):
        for block in range(2):
            shapes += [(out, width, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
            if block == 0 and layer > 0:
                shapes += [(out, width, 1, 1), (out,), (out,)]
            width = out
    return shapes + [(10, 512), (10,)]


def gpt2(n=768):
    shapes = [(50257, n), (1024, n)]
    for _ in range(12):
        shapes += [(n,), (n,), (3 * n, n), (3 * n,), (n, n), (n,), (n,), (n,), (4 * n, n), (4 * n,), (n, 4 * n), (n,)]
    return shapes + [(n,), (n,)]


def median(step, device):
    """Milliseconds of a step: the median of 11 runs, each so long that the wait at its end does not count."""

    def run(times):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(times):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / times * 1e3

    run(3)
    times = int(min(max(50 / run(1), 1), 200))
    return sorted(run(times) for _ in range(11))[5]


def main():
    program, *options = sys.argv[1:]
    device = "cpu" if "cpu" in options else "cuda"
    divisor = 1000 if "--small" in options else 1
    output = subprocess.run([program, *options], stdout=subprocess.PIPE, text=True)
    print(output.stdout, end="")
    ours = {tuple(m[:2]): float(m[2]) for m in re.findall(r"^\| (.*?) \| (.*?) \| ([0-9.]+) \|", output.stdout, re.M)}
    where = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    print(f"\nPyTorch {torch.__version__} on {where}\n")
    print("| workload | optimizer | PyTorch fused, ms a step | ours, ms | times as fast |\n| --- | --- | --- | --- | --- |")
    workloads = [
        ("256M parameters, 1 tensor", [(256_000_000,)]),
        ("ResNet-18, 62 tensors", resnet18()),
        ("GPT-2 small, 148 tensors", gpt2()),
    ]
    for workload, shapes in workloads:
        if divisor > 1:
            shapes = [(-(-torch.Size(shape).numel() // divisor),) for shape in shapes]
        for name, make in [
            ("adamw", lambda p: torch.optim.AdamW(p, fused=True)),
            ("sgd", lambda p: torch.optim.SGD(p, lr=0.01, fused=True)),
        ]:
            params = [torch.rand(shape, device=device, requires_grad=True) for shape in shapes]
            for param in params:
                param.grad = torch.rand_like(param)
            theirs = median(make(params).step, device)
            mine = ours.get((workload, name))
            compared = f"{mine:.4f} | {theirs / mine:.2f}" if mine else " | "
            print(f"| {workload} | {name} | {theirs:.4f} | {compared} |")
    sys.exit(output.returncode)


if __name__ == "__main__":
    main()
