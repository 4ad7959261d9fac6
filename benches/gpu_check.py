"""Runs gpu_check and, in the same call on the same GPU, PyTorch's fused optimizers on the same tensors, and its ops.

    python gpu_check.py ./gpu_check [--device cuda|cuda:INDEX|cpu] [--small]

Exit status: 0; 1 where a check failed or a bar was missed, in gpu_check or here; 2 where something cannot be run.
"""

import argparse
import re
import subprocess
import sys
import time


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


# Workload, its tensors, and how many times as fast as PyTorch's fused AdamW ours has to be.
WORKLOADS = [
    ("256M parameters, 1 tensor", [(256_000_000,)], 1.05),
    ("ResNet-18, 62 tensors", resnet18(), 1.5),
    ("GPT-2 small, 148 tensors", gpt2(), 1.05),
]


def median(step, synchronize):
    """Milliseconds of a step: the median of 11 runs, each so long that the wait at its end does not count."""

    def run(times):
        synchronize()
        start = time.perf_counter()
        for _ in range(times):
            step()
        synchronize()
        return (time.perf_counter() - start) / times * 1e3

    run(3)
    times = int(min(max(50 / run(1), 1), 200))
    return sorted(run(times) for _ in range(11))[5]


def op(torch, name, sizes, dtype, device):
    """The tensors of an op of gpu_check, with the numbers of its row's size, and what PyTorch computes of them."""
    functional = torch.nn.functional
    if name in ("conv2d", "conv2d_batch_norm"):
        images, channels, height, width = sizes
        shapes = [(images, channels, height, width), (channels, channels, 3, 3)]
        call = lambda x, w: functional.conv2d(x, w, padding=1)
        if name == "conv2d_batch_norm":
            shapes += [(channels,), (channels,)]
            normed = lambda x, w, scale, shift: functional.batch_norm(x, None, None, scale, shift, training=True)
            call = lambda x, w, *norm: functional.relu(normed(functional.conv2d(x, w, padding=1), w, *norm))
    elif name == "layer_norm":
        rows, n = sizes
        shapes, call = [(rows, n), (n,)], lambda x, w: functional.layer_norm(x, (n,), w)
    elif name == "cross_entropy":
        rows, classes = sizes
        labels = torch.arange(rows, device=device) % classes
        shapes, call = [(rows, classes)], lambda x: functional.cross_entropy(x, labels)
    elif name == "causal_attention":
        windows, context, heads, width = sizes
        shapes = [(windows * context, 3 * heads * width)]

        def call(qkv):
            q, k, v = qkv.view(windows, context, 3, heads, width).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return y.transpose(1, 2).reshape(windows * context, heads * width)

    else:
        cannot(f"the op `{name}` is not known here")
    tensors = [(torch.rand(shape, device=device) * 2 - 1).to(dtype).requires_grad_() for shape in shapes]
    return tensors, call


def compare_ops(torch, ours, device, synchronize):
    print("\n| op | size | dtype | PyTorch, ms | and backward | ours, ms | and backward | times as fast | and backward |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for (name, size, dtype), mine in ours.items():
        kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        tensors, call = op(torch, name, [int(n) for n in re.findall(r"\d+", size)], kind, device)
        dy = torch.ones_like(call(*tensors))
        theirs = [
            median(lambda: call(*tensors), synchronize),
            median(lambda: torch.autograd.grad(call(*tensors), tensors, dy), synchronize),
        ]
        cells = [f"{x:.4f}" for x in theirs + mine] + [f"{a / b:.3f}" for a, b in zip(theirs, mine)]
        print(f"| {name} | {size} | {dtype} | {' | '.join(cells)} |", flush=True)


def cannot(why):
    print(f"error: {why}", file=sys.stderr)
    sys.exit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="gpu_check, as gpu_check.sh builds it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tensors a thousandth as long, to try the program")
    options = parser.parse_args()
    try:
        import torch
    except ImportError as error:
        cannot(f"PyTorch is needed for the comparison: {error}")
    is_gpu = options.device != "cpu"
    if is_gpu and not torch.cuda.is_available():
        cannot(f"device `{options.device}`: PyTorch {torch.__version__} finds no CUDA device; `--device cpu --small` tries the script")
    try:
        device = torch.device(options.device)
        where = torch.cuda.get_device_name(device) if is_gpu else "the CPU"
    except (RuntimeError, AssertionError) as error:
        cannot(f"device `{options.device}`: {str(error).splitlines()[0]}")

    command = [options.program, "--device", options.device] + (["--small"] if options.small else [])
    try:
        program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        cannot(error)
    lines = []
    for line in program.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    status = program.wait()
    if status not in (0, 1):
        cannot(f"`{' '.join(command)}` ended with status {status}")
    # Workload, optimizer, milliseconds, and three more numbers.
    row = re.compile(r"^\| (.*?) \| (.*?) \| ([0-9.]+) \| [0-9.]+ \| [0-9.]+ % \| [0-9.]+ \|$")
    ours = {(m[1], m[2]): float(m[3]) for m in map(row.match, lines) if m}

    # Op, size, dtype, and milliseconds forward, and forward and backward.
    row = re.compile(r"^\| (\w+) \| (.*?) \| (f32|bf16) \| ([0-9.]+) \| ([0-9.]+) \|$")
    our_ops = {(m[1], m[2], m[3]): [float(m[4]), float(m[5])] for m in map(row.match, lines) if m}

    if not ours or not our_ops:
        cannot("the program printed no times")
    synchronize = (lambda: torch.cuda.synchronize(device)) if is_gpu else (lambda: None)
    print(f"\nPyTorch {torch.__version__} on {where}")
    if is_gpu:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            print("Driver:", subprocess.run(query, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"Driver: unknown ({error})")
    print("\n| workload | optimizer | PyTorch fused, ms a step | ours, ms | times as fast | wanted | |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    missed = 0
    is_judged = is_gpu and not options.small
    for workload, shapes, wanted in WORKLOADS:
        if options.small:
            shapes = [(-(-torch.Size(shape).numel() // 1000),) for shape in shapes]
        for name, make, bar in [
            ("adamw", lambda p: torch.optim.AdamW(p, fused=True), wanted),
            ("sgd", lambda p: torch.optim.SGD(p, lr=1e-3, fused=True), None),
        ]:
            if (workload, name) not in ours:
                continue
            params = [torch.rand(shape, device=device, requires_grad=True) for shape in shapes]
            for param in params:
                param.grad = torch.rand_like(param)
            theirs, mine = median(make(params).step, synchronize), ours[workload, name]
            ratio, verdict = theirs / mine, ""
            if bar is not None:
                verdict = "not judged here" if not is_judged else "met" if ratio >= bar else "MISSED"
                missed += verdict == "MISSED"
            least = f"at least {bar:.2f}" if bar else ""
            print(f"| {workload} | {name} | {theirs:.4f} | {mine:.4f} | {ratio:.3f} | {least} | {verdict} |", flush=True)
            del params
    # Products of f32 are such by both.
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    compare_ops(torch, our_ops, device, synchronize)
    sys.exit(1 if missed else status)


if __name__ == "__main__":
    main()
