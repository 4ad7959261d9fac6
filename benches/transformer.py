"""nanoGPT's small setting in PyTorch, as a peer of `warmup` on tinyshakespeare: the same model, data, optimizer and schedule.

    pip install torch==2.15.0 numpy
    python transformer.py --text tinyshakespeare.txt [--threads 2] [--steps 2000] [--seed 0]

4 layers, 4 heads, 128 wide, context 64, batch 12, no dropout, no biases, AdamW 1e-3 to 1e-4 with warmup 100, betas 0.9 and
0.99, weight decay 0.1 on matrices, clipping at 1. Prints one JSON line: milliseconds of a median step, the loss over the whole
validation split (the last tenth, in windows side by side), and what the mean of 20 random batches gives, as nanoGPT measures.
"""

import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12
# The deviation of initial weights (Nguyen & Salazar 2019).
STD = math.sqrt(2 / (5 * WIDTH))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda n, m: nn.Linear(n, m, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.projection = linear(WIDTH, 3 * WIDTH), linear(WIDTH, WIDTH)
        self.expand, self.contract = linear(WIDTH, 4 * WIDTH), linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        heads = lambda t: t.view(*t.shape[:2], HEADS, -1).transpose(1, 2)
        q, k, v = map(heads, self.qkv(self.norm1(x)).split(WIDTH, 2))
        attention = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(attention.transpose(1, 2).reshape(x.shape))
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(WIDTH, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                into_stream = name.endswith(("projection.weight", "contract.weight"))
                nn.init.normal_(p, 0.0, STD / math.sqrt(2 * LAYERS) if into_stream else STD)

    def forward(self, x, y):
        x = self.blocks(self.token(x) + self.position.weight)
        return F.cross_entropy(F.linear(self.norm(x), self.token.weight).flatten(0, 1), y.flatten())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    text = open(options.text, encoding="utf-8").read()
    characters = sorted(set(text))
    tokens = torch.tensor([characters.index(c) for c in text])
    train, test = tokens[: int(0.9 * len(tokens))], tokens[int(0.9 * len(tokens)) :]

    def batch(data):
        starts = torch.randint(len(data) - CONTEXT, (BATCH,))
        cut = lambda offset: torch.stack([data[s + offset : s + offset + CONTEXT] for s in starts])
        return cut(0), cut(1)

    order = []

    def next_batch():
        """As Descent: an epoch visits windows side by side once, in random order, the first at another place in each epoch."""
        nonlocal order
        if len(order) < BATCH:
            offset = int(torch.randint(CONTEXT, ()))
            order = (torch.randperm((len(train) - 1 - offset) // CONTEXT) * CONTEXT + offset).tolist()
        starts, order = order[:BATCH], order[BATCH:]
        cut = lambda offset: torch.stack([train[s + offset : s + offset + CONTEXT] for s in starts])
        return cut(0), cut(1)

    model = Transformer(len(characters))
    groups = [[p for p in model.parameters() if (p.dim() == 2) == matrices] for matrices in (True, False)]
    groups = [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    times = []
    for step in range(options.steps):
        if step < 100:
            lr = 1e-3 * (step + 1) / 100
        else:
            lr = 1e-4 + 9e-4 * (1 + math.cos(math.pi * (step + 1 - 100) / (2000 - 100))) / 2
        for group in optimizer.param_groups:
            group["lr"] = lr
        start = time.perf_counter()
        loss = model(*next_batch())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
    with torch.no_grad():
        windows = (len(test) - 1) // CONTEXT
        cut = lambda offset: test[offset : offset + windows * CONTEXT].view(windows, CONTEXT)
        whole = model(cut(0), cut(1)).item()
        sampled = statistics.mean(model(*batch(test)).item() for _ in range(20))
    print(json.dumps({
        "impl": "torch",
        "torch": torch.__version__,
        "threads": options.threads,
        "steps": options.steps,
        "seed": options.seed,
        "median_step_ms": statistics.median(times) * 1e3,
        "test_loss": whole,
        "test_loss_of_20_batches": sampled,
    }))


if __name__ == "__main__":
    main()
