#!/usr/bin/env python3
"""Times training steps of PyTorch on the processor: the other side of `examples/training_speed.rs`.

    pip install torch numpy       (a build for the processor is enough)
    scripts/torch_training.py --task lenet --batch 32 --threads 1 --repeats 7

Tasks: `lenet` and `mnist_cnn` are SGD steps of one batch of random data, in milliseconds a step; `clients` are rounds of
local SGD (100 clients, an epoch of 600 samples each, `mnist_2nn`, batch 10), in seconds a round. The loops are plain: the
module in training mode, `optimizer.zero_grad()`, cross entropy, `backward()`, `optimizer.step()`; a client of a round starts
from the server's weights, and its data lie in memory as tensors. Prints one JSON line: best and median.
"""
import argparse
import json
import statistics
import time

import torch
from torch import nn


def lenet():
    """`cifar_cnn`, 62,006 parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )


def mnist_cnn():
    """1,663,370 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10),
    )


def mnist_2nn():
    """199,210 parameters."""
    return nn.Sequential(
        nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
    )


def epoch(model, features, labels, batch, rate, steps=None):
    """An epoch of SGD in a random order, or so many steps on the first batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    loss = nn.CrossEntropyLoss()
    model.train()
    if steps is None:
        parts = torch.randperm(len(labels)).split(batch)
    else:
        parts = [torch.arange(batch)] * steps
    for part in parts:
        optimizer.zero_grad()
        loss(model(features[part]), labels[part]).backward()
        optimizer.step()


def clients(model, features, labels):
    """One round: every client starts from the same weights, its delta is added up."""
    start = [p.detach().clone() for p in model.parameters()]
    total = [torch.zeros_like(p) for p in start]
    for x, y in zip(features, labels):
        with torch.no_grad():
            for p, s in zip(model.parameters(), start):
                p.copy_(s)
        epoch(model, x, y, 10, 0.05)
        with torch.no_grad():
            for t, p, s in zip(total, model.parameters(), start):
                t.add_(p - s)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["lenet", "mnist_cnn", "clients"], required=True)
    parser.add_argument("--batch", type=int, default=32, help="samples of a step (not of `clients`)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="steps of a repetition (not of `clients`)")
    parser.add_argument("--count", type=int, default=100, help="clients of a round")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    if args.task == "clients":
        model = mnist_2nn()
        features, labels = torch.randn(args.count, 600, 784), torch.randint(0, 10, (args.count, 600))
        once = lambda: clients(model, features, labels)
        unit, share = "seconds a round", 1.0
    else:
        model, shape = (lenet(), (3, 32, 32)) if args.task == "lenet" else (mnist_cnn(), (1, 28, 28))
        features, labels = torch.randn(args.batch, *shape), torch.randint(0, 10, (args.batch,))
        once = lambda: epoch(model, features, labels, args.batch, 0.01, args.steps)
        unit, share = "milliseconds a step", 1000.0 / args.steps
        once()
    times = []
    for _ in range(args.repeats):
        begun = time.perf_counter()
        once()
        times.append((time.perf_counter() - begun) * share)
    print(json.dumps({
        "engine": f"torch {torch.__version__}", "task": args.task, "batch": 10 if args.task == "clients" else args.batch,
        "threads": args.threads, "unit": unit, "best": min(times), "median": statistics.median(times),
    }))


if __name__ == "__main__":
    main()
