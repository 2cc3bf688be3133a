#!/usr/bin/env python3
"""A trainer for veilsum in Python and NumPy: multilayer perceptrons (such as digits_mlp) on a table of one's own.

veilsum starts it and speaks with it on stdin and stdout; docs/external-trainers.md describes the protocol. Nothing else may be
written to stdout: logs go to stderr, which veilsum passes on.

    python3 external_trainer.py --data digits.csv --label -1 --scale 0.0625 --shift -0.3054

The table is a .csv (numbers, commas, with or without a line of names) or a .npy (a matrix); one column is the label, the others are
the features, taken as `x * scale + shift`.
"""

import argparse
import json
import struct
import sys

import numpy as np

VERSION = 1


class Refusal(Exception):
    """A sentence for the other side."""


def read_message(stream):
    """The next header and its bytes; None at the end."""
    line = stream.readline()
    if not line:
        return None, b""
    header = json.loads(line)
    if header.get("veilsum") != VERSION:
        raise Refusal(f"version {header.get('veilsum')} of the protocol, expected {VERSION}")
    length = header.get("bytes", 0)
    body = stream.read(length)
    if len(body) != length:
        raise EOFError(f"{len(body)} of {length} bytes")
    return header, body


def write_message(stream, kind, body=b"", **keys):
    header = {"veilsum": VERSION, "kind": kind, **keys, "bytes": len(body)}
    stream.write(json.dumps(header, separators=(",", ":")).encode() + b"\n" + body)
    stream.flush()


def from_safetensors(file):
    """Tensors by name. The format: the header's length (8 bytes, little endian), the header (JSON), the values."""
    (size,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + size])
    values = memoryview(file)[8 + size :]
    tensors = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = tensor["data_offsets"]
            tensors[name] = np.frombuffer(values[start:end], dtype="<f4").reshape(tensor["shape"]).copy()
    return tensors


def to_safetensors(tensors):
    header, parts, start = {}, [], 0
    for name, tensor in tensors.items():
        part = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, start + len(part)]}
        parts.append(part)
        start += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def read_table(path):
    if path.endswith(".npy"):
        table = np.load(path, allow_pickle=False)
    else:
        with open(path) as file:
            names = any(c.isalpha() for c in file.readline().replace("e", "").replace("E", ""))
        table = np.loadtxt(path, delimiter=",", skiprows=int(names), ndmin=2)
    if table.ndim != 2 or len(table) == 0 or table.shape[1] < 2:
        raise Refusal(f"{path} holds an array of shape {table.shape}, expected rows of features and a label")
    return table.astype(np.float64)


class Perceptron:
    """Linear layers with relu between them, cross entropy, gradients by hand: z = a W + b, W [inputs, outputs]."""

    def __init__(self, hello):
        kinds = [layer["layer"] for layer in hello["layers"]]
        linear = kinds[::2]
        if set(linear) != {"linear"} or set(kinds[1::2]) - {"relu"} or len(kinds) % 2 == 0:
            raise Refusal(f"this trainer knows linear layers with relu between them, and the model has {kinds}")
        self.depth = len(linear)
        self.inputs = hello["layers"][0]["inputs"]
        self.classes = hello["classes"]

    def gradients(self, weights, x, y):
        """Gradients of the mean loss, by tensor name, and that loss."""
        activations = [x]
        for k in range(self.depth):
            z = activations[-1] @ weights[f"layers.{k}.weight"] + weights[f"layers.{k}.bias"]
            activations.append(np.maximum(z, 0.0) if k + 1 < self.depth else z)
        z = activations.pop()
        z = z - z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        rows = np.arange(len(y))
        loss = -np.log(np.maximum(p[rows, y], 1e-300)).mean()
        error = p
        error[rows, y] -= 1.0
        error /= len(y)
        gradients = {}
        for k in reversed(range(self.depth)):
            gradients[f"layers.{k}.weight"] = activations[k].T @ error
            gradients[f"layers.{k}.bias"] = error.sum(axis=0)
            if k > 0:
                error = (error @ weights[f"layers.{k}.weight"].T) * (activations[k] > 0)
        return gradients, loss


def train(model, start, x, y, settings, generator):
    """Local SGD with momentum, weight decay and a proximal term; the delta of every tensor, and the last mean loss."""
    weights = {name: tensor.astype(np.float64) for name, tensor in start.items()}
    begun = {name: tensor.copy() for name, tensor in weights.items()}
    speed = {name: np.zeros_like(tensor) for name, tensor in weights.items()}
    losses = []
    for _ in range(settings["epochs"]):
        order = generator.permutation(len(y))
        losses = []
        for first in range(0, len(y), settings["batch_size"]):
            batch = order[first : first + settings["batch_size"]]
            gradients, loss = model.gradients(weights, x[batch], y[batch])
            losses.append(loss)
            for name, gradient in gradients.items():
                gradient = gradient + settings["weight_decay"] * weights[name]
                gradient += settings["proximal"] * (weights[name] - begun[name])
                speed[name] = settings["momentum"] * speed[name] + gradient
                weights[name] -= settings["learning_rate"] * speed[name]
    return {name: weights[name] - begun[name] for name in start}, float(np.mean(losses))


def serve(arguments, stdin, stdout):
    hello, _ = read_message(stdin)
    if hello is None:
        return
    model = Perceptron(hello)
    table = read_table(arguments.data)
    label = arguments.label % table.shape[1]
    y = table[:, label].astype(np.int64)
    x = np.delete(table, label, axis=1) * arguments.scale + arguments.shift
    if x.shape[1] != model.inputs:
        raise Refusal(f"{arguments.data} has {x.shape[1]} features, and the model takes {model.inputs}")
    if y.min() < 0 or y.max() >= model.classes:
        raise Refusal(f"labels are {y.min()} to {y.max()}, and the model has {model.classes} classes")
    names = [tensor["name"] for tensor in hello["tensors"]]
    write_message(stdout, "ready", samples=len(y))
    while True:
        header, body = read_message(stdin)
        if header is None or header["kind"] == "bye":
            return
        if header["kind"] != "train":
            raise Refusal(f"a message `{header['kind']}`, expected `train`")
        tensors = from_safetensors(body)
        start = {name: tensors[name] for name in names}
        # The round is part of the seed: the same round is shuffled the same way, and no two alike.
        generator = np.random.default_rng([hello["seed"], header["round"]])
        delta, loss = train(model, start, x, y, hello["training"], generator)
        print(f"round {header['round']}: {len(y)} samples, mean loss {loss:.4f}", file=sys.stderr, flush=True)
        write_message(stdout, "update", to_safetensors(delta), round=header["round"], samples=len(y))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="a .csv or .npy with a row for each sample")
    parser.add_argument("--label", type=int, default=-1, help="column of the label, from 0, or from the end if negative")
    parser.add_argument("--scale", type=float, default=1.0, help="features are multiplied with this")
    parser.add_argument("--shift", type=float, default=0.0, help="and this is added")
    arguments = parser.parse_args()
    stdout = sys.stdout.buffer
    # Whatever else prints must not be among the messages.
    sys.stdout = sys.stderr
    try:
        serve(arguments, sys.stdin.buffer, stdout)
    except (Refusal, OSError, ValueError) as reason:
        write_message(stdout, "error", message=str(reason))
        sys.exit(1)


if __name__ == "__main__":
    main()
