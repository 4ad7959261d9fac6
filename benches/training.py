"""PyTorch's training of the models of benches/training.rs, as a peer measured in the same run.

    pip install torch==2.15.0
    python training.py --model resnet20 --batch-size 128 --threads 2 --seconds 5 [--channels-last]

Models: resnet20, cnn4, cnn4-norm, gpt. Times forward, backward and AdamW (fused) on random images of CIFAR-10's size or random windows
of 65 characters, float32, on the CPU, and prints one JSON line. With `--paced` it reads a number of steps from each line of the
standard input, takes them, and prints their times.
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY = 65


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.stride = outputs // inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.stride > 1:
            new = x.shape[1]
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new // 2, new - new // 2))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        sizes = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.blocks = nn.Sequential(*[Block(a, b) for a, b in zip(sizes, sizes[1:])])
        self.classifier = nn.Linear(64, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.norm(self.conv(x))))
        return self.classifier(x.mean((2, 3)))


class Cnn4(nn.Module):
    def __init__(self, norm):
        super().__init__()
        layers = []
        for inputs, outputs, stride in [(3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 1)]:
            layers.append(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not norm))
            layers += [nn.BatchNorm2d(outputs)] if norm else []
            layers.append(nn.ReLU(inplace=True))
        self.layers, self.classifier = nn.Sequential(*layers), nn.Linear(128, 10)

    def forward(self, x):
        return self.classifier(self.layers(x).mean((2, 3)))


def peak_memory():
    """The most memory that the process held, in MiB."""
    return round(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--paced", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    n = options.batch_size
    if options.model == "gpt":
        from transformer import CONTEXT, Transformer

        model = Transformer(VOCABULARY)
        x, labels = (torch.randint(VOCABULARY, (n, CONTEXT)) for _ in range(2))
        loss = lambda: model(x, labels)
    else:
        model = {"resnet20": ResNet20, "cnn4": lambda: Cnn4(False), "cnn4-norm": lambda: Cnn4(True)}[options.model]()
        x, labels = torch.rand(n, 3, 32, 32) - 0.5, torch.randint(10, (n,))
        if options.channels_last:
            model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        loss = lambda: F.cross_entropy(model(x), labels)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step():
        """Seconds."""
        start = time.perf_counter()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        return time.perf_counter() - start

    step()
    step()
    if options.paced:
        for line in sys.stdin:
            times = [step() * 1e3 for _ in range(int(line))]
            print(json.dumps({"step_ms": times, "peak_memory_mib": peak_memory()}), flush=True)
        return
    times, end = [], time.perf_counter() + options.seconds
    while len(times) < 3 or time.perf_counter() < end:
        times.append(step())
    line = {
        "impl": "torch " + ("channels_last" if options.channels_last else "contiguous"),
        "model": options.model,
        "batch_size": n,
        "threads": options.threads,
        "examples_per_second": round(n / statistics.median(times)),
        "best_examples_per_second": round(n / min(times)),
        "steps": len(times),
        "median_step_ms": statistics.median(times) * 1e3,
        "peak_memory_mib": peak_memory(),
        "torch": torch.__version__,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
