#!/usr/bin/env python3
"""Times local SGD of a transformer with PyTorch, as `examples/transformer_speed.rs` does it with veilsum.

    pip install torch
    scripts/torch_transformer.py MODEL SAMPLES BATCH THREADS    MODEL: char_gpt or bert_mini

The same layers over random tokens, one epoch of SGD without momentum, without dropout. Prints one JSON line: seconds, samples a
second, parameters, and the most memory that the process had.
"""
import json
import resource
import sys
import time

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        batch, length, width = x.shape
        parts = [m(x).view(batch, length, self.heads, -1).transpose(1, 2) for m in (self.query, self.key, self.value)]
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=self.causal)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width, heads, first):
        super().__init__()
        self.first = first
        self.attention = Attention(width, heads, first)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.apart = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        for norm, branch in zip(self.norms, (self.attention, self.apart)):
            x = x + branch(norm(x)) if self.first else norm(x + branch(x))
        return x


class Transformer(nn.Module):
    """Norms first and a logit for every token at every position (GPT), or norms last and the mean of the positions (BERT)."""

    def __init__(self, tokens, length, width, blocks, heads, gpt, classes):
        super().__init__()
        self.gpt = gpt
        self.tokens, self.positions = nn.Embedding(tokens, width), nn.Parameter(0.02 * torch.randn(length, width))
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(Block(width, heads, gpt) for _ in range(blocks)))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.tokens(x) + self.positions
        x = self.norm(self.blocks(x)) if self.gpt else self.blocks(self.norm(x))
        return self.head(x if self.gpt else x.mean(1))


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    name, samples, batch, threads = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    sizes = {"char_gpt": (96, 64, 128, 4, 4, True, 96), "bert_mini": (30522, 128, 384, 6, 12, False, 2)}[name]
    model, (tokens, length) = Transformer(*sizes), sizes[:2]
    x = torch.randint(1, tokens, (samples, length))
    y = torch.randint(1, sizes[-1], (samples, length) if sizes[5] else (samples,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    begun = time.perf_counter()
    for start in range(0, samples, batch):
        optimizer.zero_grad(set_to_none=True)
        logits = model(x[start : start + batch])
        functional.cross_entropy(logits.flatten(0, -2), y[start : start + batch].flatten()).backward()
        optimizer.step()
    seconds = time.perf_counter() - begun
    print(json.dumps({
        "engine": f"pytorch {torch.__version__}", "model": name, "samples": samples, "batch": batch,
        "trained": sum(p.numel() for p in model.parameters()), "seconds": seconds,
        "samples_per_second": samples / seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }))


if __name__ == "__main__":
    main()
