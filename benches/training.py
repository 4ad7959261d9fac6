"""PyTorch's training of the same ResNet-20 as benches/training.rs, as a peer measured in the same run.

    pip install torch==2.15.0
    python training.py --batch-size 128 --threads 2 --seconds 5 [--channels-last]

Times forward, backward and SGD with momentum on random images of CIFAR-10's size, float32, on the CPU, and prints one JSON line.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn
import torch.nn.functional as F


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model, n = ResNet20(), options.batch_size
    x, labels = torch.rand(n, 3, 32, 32) - 0.5, torch.randint(10, (n,))
    if options.channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    step()
    step()
    times, end = [], time.perf_counter() + options.seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    line = {
        "impl": "torch " + ("channels_last" if options.channels_last else "contiguous"),
        "model": "resnet20",
        "batch_size": n,
        "threads": options.threads,
        "images_per_second": round(n / statistics.median(times)),
        "best_images_per_second": round(n / min(times)),
        "steps": len(times),
        "torch": torch.__version__,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
