#!/usr/bin/env python3
"""Times the SecAgg+ of Flower beside `masks`, in turns: what a client does, and what a lost client costs the server.

    pip install flwr==1.41.0
    scripts/secagg_flower.py --veilsum target/release/veilsum [--clients 100] [--size 1000000] [--turns 3]

Flower's own functions run, with as many neighbors as `masks` has chosen, on one thread; its clients hold a vector of the
same length. Times are milliseconds, the best and the median turn. Flower's masks come from a seed of 32 bits and are checked
by nobody; those of `masks` come from ChaCha20 and its clients sign the set of survivors.
"""

import argparse
import importlib
import json
import re
import statistics
import subprocess
import time

import numpy as np
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_subtraction
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

# The package has a function of the module's name.
client = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
MODULUS = 1 << 32


def flower(neighbors, dim):
    """Milliseconds of one client, of the server for a lost client, and of adding one vector."""
    count = neighbors + 1
    config = {
        Key.SAMPLE_NUMBER: count,
        Key.SHARE_NUMBER: count,
        Key.THRESHOLD: count // 2 + 1,
        Key.CLIPPING_RANGE: 8.0,
        Key.TARGET_RANGE: 1 << 16,
        Key.MOD_RANGE: MODULUS,
        Key.MAX_WEIGHT: 1.0,
    }
    states, keys, sent = [], {}, []
    spent = 0.0
    for node in range(count):
        state = client.SecAggPlusState()
        state.nid = node
        start = time.perf_counter()
        public = client._setup(state, dict(config))
        spent += (time.perf_counter() - start) * (node == 0)
        keys[str(node)] = [public[Key.PUBLIC_KEY_1], public[Key.PUBLIC_KEY_2]]
        states.append(state)
    for state in states:
        start = time.perf_counter()
        sent.append(client._share_keys(state, dict(keys)))
        spent += (time.perf_counter() - start) * (state.nid == 0)
    for_first = [
        (node, text)
        for node, answer in enumerate(sent)
        for to, text in zip(answer[Key.DESTINATION_LIST], answer[Key.CIPHERTEXT_LIST])
        if to == 0
    ]
    parameters = ndarrays_to_parameters([np.random.default_rng(1).normal(size=dim).astype(np.float32)])
    request = {Key.CIPHERTEXT_LIST: [text for _, text in for_first], Key.SOURCE_LIST: [node for node, _ in for_first]}
    first = states[0]
    start = time.perf_counter()
    client._collect_masked_vectors(first, request, 1, parameters)
    spent += time.perf_counter() - start
    lost = neighbors
    start = time.perf_counter()
    client._unmask(first, {Key.ACTIVE_NODE_ID_LIST: list(range(lost)), Key.DEAD_NODE_ID_LIST: [lost]})
    spent += time.perf_counter() - start

    # The server takes out the masks of a lost client, as its workflow does.
    shares = create_all(states, lost)
    total = [np.zeros(dim, dtype=np.int64)]
    start = time.perf_counter()
    secret = combine_shares(shares)
    for node in range(neighbors):
        shared = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(keys[str(node)][0]))
        mask = pseudo_rand_gen(shared, MODULUS, [(dim,)])
        combine = parameters_addition if lost > node else parameters_subtraction
        total = combine(total, mask)
    removed = time.perf_counter() - start
    start = time.perf_counter()
    parameters_addition(total, mask)
    added = time.perf_counter() - start
    return 1e3 * spent, 1e3 * removed, 1e3 * added


def create_all(states, lost):
    """Shares of a lost client's key, as the others would send them."""
    state = states[lost]
    return create_shares(state.sk1, state.threshold, state.share_num)[: state.threshold]


def masks(program, clients, dim):
    """The same of `veilsum bench secagg`, and the number of neighbors."""
    arguments = ["bench", "secagg", "--protocol", "masks", "--clients", str(clients), "--size", str(dim)]
    arguments += ["--dropout", "0,0.1", "--threads", "1", "--json"]
    lines = subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout.splitlines()
    whole, some = (json.loads(line) for line in lines)
    lost = clients - some["delivering"]
    removed = (some["open_ns"] - whole["open_ns"]) / lost + whole["open_ns"] / clients
    neighbors = int(re.search(r"k = (\d+)", some["parameters"]).group(1))
    return (some["client_ns"]["median"] / 1e6, removed / 1e6, some["add_ns"]["median"] / 1e6), neighbors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--veilsum", default="target/release/veilsum")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    ours, theirs = [], []
    for _ in range(arguments.turns):
        times, neighbors = masks(arguments.veilsum, arguments.clients, arguments.size)
        ours.append(times)
        theirs.append(flower(neighbors, arguments.size))
    print(f"n = {arguments.clients}, d = {arguments.size}, {neighbors} neighbors, one thread; ms, best / median")
    for what, a, b in zip(("client", "lost client at the server", "add a vector"), zip(*ours), zip(*theirs)):
        ratio = statistics.median(b) / statistics.median(a)
        show = lambda x: f"{min(x):.2f} / {statistics.median(x):.2f}"
        print(f"{what:28} masks {show(a):>20}   Flower {show(b):>22}   {ratio:.1f} times")


if __name__ == "__main__":
    main()
