"""PyTorch's training of the models of benches/training.rs, as a peer measured in the same run.

    pip install torch==2.15.0
    python training.py --model resnet20 --batch-size 128 --threads 2 --seconds 5 [--channels-last]

Models: resnet20, resnet18, cnn4, cnn4-norm, gpt. Times forward, backward and AdamW (fused) on random images of CIFAR-10's size or random
windows of 65 characters, and prints one JSON line. With `--paced` it reads a number of steps from each line of the standard input,
takes them, and prints their times. On a GPU: `--device cuda --precision f32|tf32|bf16 [--compile]`; bf16 is autocast's.
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
    def __init__(self, inputs, outputs, convolves_shortcut=False):
        super().__init__()
        self.stride = outputs // inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if convolves_shortcut and self.stride > 1:
            conv = nn.Conv2d(inputs, outputs, 1, self.stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.shortcut:
            x = self.shortcut(x)
        elif self.stride > 1:
            new = x.shape[1]
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new // 2, new - new // 2))
        return F.relu(y + x)


class ResNet(nn.Module):
    def __init__(self, sizes, convolves_shortcuts):
        super().__init__()
        self.conv = nn.Conv2d(3, sizes[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(sizes[0])
        self.blocks = nn.Sequential(*[Block(a, b, convolves_shortcuts) for a, b in zip(sizes, sizes[1:])])
        self.classifier = nn.Linear(sizes[-1], 10)

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


MODELS = {
    "resnet20": lambda: ResNet([16, 16, 16, 16, 32, 32, 32, 64, 64, 64], False),
    "resnet18": lambda: ResNet([64, 64, 64, 128, 128, 256, 256, 512, 512], True),
    "cnn4": lambda: Cnn4(False),
    "cnn4-norm": lambda: Cnn4(True),
}


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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--paced", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    n = options.batch_size
    if options.model == "gpt":
        from transformer import CONTEXT, Transformer

        model = Transformer(VOCABULARY)
        x, labels = (torch.randint(VOCABULARY, (n, CONTEXT)) for _ in range(2))
        loss = model
    else:
        model = MODELS[options.model]()
        x, labels = torch.rand(n, 3, 32, 32) - 0.5, torch.randint(10, (n,))
        if options.channels_last:
            model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        loss = lambda x, labels: F.cross_entropy(model(x), labels)
    model, x, labels = (each.to(options.device) for each in (model, x, labels))
    if options.compile:
        loss = torch.compile(loss)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step():
        """Seconds."""
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
            value = loss(x, labels)
        value.backward()
        optimizer.step()
        if options.device != "cpu":
            torch.cuda.synchronize()
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
        "device": options.device,
        "precision": options.precision,
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
