#!/usr/bin/env python3
"""Renyi divergences of random allocations (`docs/random-allocation.md`) as they are defined, with 40 digits.

    pip install mpmath
    scripts/random_allocation.py > tests/vectors/random_allocation.json        (a minute)

Nothing of the proofs is used: both laws are written down for every sequence of outcomes of small integer mechanisms, the
mean over all sets of rounds is taken, and divergences are summed in both directions. The test suite reads the file and
checks that the accountant's costs lie above all of it.
"""
import itertools
import json
import sys

from mpmath import binomial, log, mp, mpf

mp.dps = 40


def response(epsilon):
    """Randomized response between two answers: with and without the contribution."""
    ratio = mp.e ** mpf(epsilon)
    return [ratio / (1 + ratio), 1 / (1 + ratio)], [1 / (1 + ratio), ratio / (1 + ratio)]


def laplace(scale):
    """Discrete Laplace noise moved by 1; all outcomes beyond have the loss of the ends."""
    t = mp.e ** (-1 / mpf(scale))
    p, q = 1 / (1 + t), t / (1 + t)
    return [p, q], [q, p]


def divergence(law, k, rounds, order):
    """(remove, add); symbols are exchangeable only within the sets, so that every sequence counts."""
    with_it, without = law
    sets = list(itertools.combinations(range(rounds), k))
    forward = backward = mpf(0)
    for outcome in itertools.product(range(2), repeat=rounds):
        q = mpf(1)
        for symbol in outcome:
            q *= without[symbol]
        ratio = [with_it[symbol] / without[symbol] for symbol in outcome]
        p = mpf(0)
        for chosen in sets:
            weight = q
            for t in chosen:
                weight *= ratio[t]
            p += weight
        p /= binomial(rounds, k)
        forward += p**order * q ** (1 - order)
        backward += q**order * p ** (1 - order)
    return log(forward) / (order - 1), log(backward) / (order - 1)


def main():
    rows = []
    for name, parameter, law in (
        ("randomized-response", 0.5, response("0.5")),
        ("randomized-response", 2.0, response(2)),
        ("discrete-laplace", 1.25, laplace("1.25")),
    ):
        for k, rounds in ((1, 2), (1, 8), (2, 8), (3, 8), (4, 9), (8, 9)):
            for order in (mpf("1.5"), mpf(2), mpf(5), mpf(12)):
                remove, add = divergence(law, k, rounds, order)
                rows.append(
                    {
                        "mechanism": name,
                        "parameter": parameter,
                        "participations": k,
                        "rounds": rounds,
                        "order": float(order),
                        "remove": float(remove),
                        "add": float(add),
                    }
                )
    json.dump({"about": "written by scripts/random_allocation.py (mpmath, 40 digits)", "rows": rows}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
