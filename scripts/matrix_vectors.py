#!/usr/bin/env python3
"""Derives the numbers of matrix mechanisms (docs/matrix-mechanisms.md) by other means: dense matrices, row by row.

    pip install mpmath numpy
    scripts/matrix_vectors.py > tests/vectors/matrix.json        (a minute)

Nothing of the program's formulas is used: C is written out, A C^-1 is solved for as a whole, its rows are measured one by
one, and the sensitivity is the largest over every set of rounds that a client may take part in, each tried.
"""
import itertools
import json

import numpy as np
from mpmath import binomial, euler, log, matrix, mp, mpf, pi, sqrt

mp.dps = 30


def toeplitz(c, n):
    return [[c[i - j] if 0 <= i - j < len(c) else mpf(0) for j in range(n)] for i in range(n)]


def errors(c, n):
    """Largest row norm of A C^-1 and the root of their mean square, by forward substitution with whole matrices."""
    if n > 100:
        dense = np.array([[float(v) for v in row] for row in toeplitz(c, n)])
        b = np.linalg.solve(dense.T, np.tril(np.ones((n, n))).T).T
        squares = (b * b).sum(axis=1)
        return float(np.sqrt(squares.max())), float(np.sqrt(squares.mean()))
    inverse = matrix(toeplitz(c, n)) ** -1
    squares = []
    for i in range(n):
        row = [sum(inverse[k, j] for k in range(i + 1)) for j in range(n)]
        squares.append(sum(v * v for v in row))
    return float(sqrt(max(squares))), float(sqrt(sum(squares) / n))


def sensitivity(c, n, most, separation):
    """Over every set of at most `most` rounds, any two `separation` apart."""
    dense, best = toeplitz(c, n), mpf(0)
    for size in range(1, most + 1):
        for rounds in itertools.combinations(range(n), size):
            if any(b - a < separation for a, b in zip(rounds, rounds[1:])):
                continue
            column = [sum(dense[i][j] for j in rounds) for i in range(n)]
            best = max(best, sum(v * v for v in column))
    return float(sqrt(best))


def root(n):
    return [binomial(2 * k, k) / mpf(4) ** k for k in range(n)]


def blt(decay, weight, n):
    return [mpf(1)] + [sum(w * d ** (k - 1) for d, w in zip(decay, weight)) for k in range(1, n)]


def case(name, c, n, extra):
    participations = []
    if n <= 14:
        for most, separation in [(1, 1), (2, 1), (3, 2), (2, 5), (4, 3), (n, 1)]:
            participations.append([most, separation, sensitivity(c, n, most, separation)])
    worst, mean = errors(c, n)
    return {"name": name, "rounds": n, "max": worst, "mean": mean, "sensitivities": participations, **extra}


def banded_case(name, c, n):
    return case(name, c, n, {"coefficients": [float(v) for v in c]})


def blt_case(name, decay, weight, n):
    decay, weight = [mpf(d) for d in decay], [mpf(w) for w in weight]
    extra = {"decay": [float(d) for d in decay], "weight": [float(w) for w in weight]}
    return case(name, blt(decay, weight, n), n, extra)


def main():
    cases = [
        banded_case("identity", [mpf(1)], 12),
        banded_case("square root, 4 bands", root(4), 12),
        banded_case("square root, all bands", root(13), 13),
        banded_case("flat", [mpf(1)] * 3, 11),
        banded_case("steep", [mpf(1), mpf("0.5"), mpf("0.125")], 14),
        banded_case("square root, 32 bands, long", root(32), 1000),
        blt_case("one buffer", ["0.75"], ["0.5"], 12),
        blt_case("three buffers", ["0.5", "0.875", "0.96875"], ["0.25", "0.125", "0.0625"], 13),
        blt_case("three buffers, long", ["0.5", "0.9375", "0.9921875"], ["0.25", "0.125", "0.0625"], 800),
    ]
    squares, total, roots = root(4096), mpf(0), []
    for n in range(1, 4097):
        total += squares[n - 1] ** 2
        if n in (1, 2, 16, 256, 1024, 4096):
            # The factorization A^(1/2) A^(1/2): worst row times longest column, and how it grows.
            roots.append([n, float(total), float((log(n) + euler + 4 * log(2)) / pi)])
    print(json.dumps({"version": 1, "cases": cases, "square_roots": roots}, indent=1))


main()
