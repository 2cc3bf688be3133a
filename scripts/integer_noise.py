#!/usr/bin/env python3
"""Derives the numbers behind `docs/integer-noise.md` again, by other means and with 40 digits.

    pip install mpmath
    scripts/integer_noise.py > tests/vectors/integer_noise.json        (a minute)

Nothing of the proofs is used: Renyi divergences are summed as they are defined, and the mean that a dominating Gaussian
needs for a shift is read off the trade-off curve of that very shift, vertex by vertex. The test suite reads the file and
checks that the certified bounds lie above all of it, and not far above.
"""
import json
import sys
from pathlib import Path

from mpmath import binomial, exp, log, mp, mpf

sys.path.insert(0, str(Path(__file__).parent))
from smm_certificate import Skellam, quantile  # noqa: E402

mp.dps = 40


class Binomial:
    """Binomial(coins, 1/2) - Binomial(coins, 1/2)."""

    def __init__(self, coins):
        self.coins = coins
        weight, total = binomial(2 * coins, coins), mpf(4) ** coins
        self.q = [weight / total]
        for k in range(coins):
            self.q.append(self.q[-1] * (coins - k) / (coins + k + 1))
        self.tail = [mpf(0)] * (coins + 2)
        for k in range(coins, -1, -1):
            self.tail[k] = self.tail[k + 1] + self.q[k]

    def at_least(self, k):
        if k > self.coins:
            return mpf(0)
        return self.tail[k] if k >= 0 else 1 - self.at_least(1 - k)


class Gaussian:
    """The discrete Gaussian of parameter sigma."""

    def __init__(self, sigma):
        reach = int(40 * sigma) + 60
        weight = [exp(-mpf(k * k) / (2 * mpf(sigma) ** 2)) for k in range(reach + 1)]
        total = weight[0] + 2 * sum(weight[1:])
        self.tail = [mpf(0)] * (reach + 2)
        for k in range(reach, -1, -1):
            self.tail[k] = self.tail[k + 1] + weight[k] / total

    def at_least(self, k):
        if k >= len(self.tail):
            return mpf(0)
        return self.tail[k] if k >= 0 else 1 - self.at_least(1 - k)


def mean_of(law, j, delta0, reach):
    """The least m with alpha_(k-j) <= F_m(alpha_k) + delta0 at all vertices, over j."""
    most = mpf(0)
    for k in range(-reach, reach + j):
        power, level = law.at_least(k - j) - delta0, law.at_least(k)
        if power <= 0 or level >= 1 - delta0:
            continue
        t = lambda a: quantile(a) if a <= mpf("0.5") else -quantile(1 - a)
        most = max(most, t(level) - t(power))
    return most / j


def divergence(law, j, order, reach):
    total = mpf(0)
    for k in range(-reach, reach + order * j):
        total += law.pmf(k - j) ** order * law.pmf(k) ** (1 - order)
    return log(total) / (order - 1)


def main():
    renyi = []
    for mu in (2.5, 40.0, 700.0):
        law = Skellam(mu, 4000)
        for order in (2, 3, 16):
            for j in (1, 2, 9):
                reach = 600
                value = divergence(law, j, order, reach)
                renyi.append({"mu": mu, "order": order, "shift": j, "divergence": float(value)})
    steps = []
    for name, size, shifts in (
        ("skellam", 20.0, (1, 2, 5, 12)),
        ("skellam", 300.0, (1, 3, 40)),
        ("binomial", 400, (1, 2, 20)),
        ("binomial", 3000, (1, 7, 100)),
        ("discrete-gaussian", 1.5, (1, 2, 4)),
        ("discrete-gaussian", 40.0, (1, 6, 200)),
    ):
        laws = {"skellam": lambda: Skellam(size, 4000), "binomial": lambda: Binomial(size)}
        law = laws.get(name, lambda: Gaussian(size))()
        sigma = {"skellam": (2 * size) ** 0.5, "binomial": (size / 2) ** 0.5}.get(name, size)
        for delta0 in ("1e-14", "1e-20"):
            for j in shifts:
                mean = mean_of(law, j, mpf(delta0), int(12 * sigma) + 40)
                steps.append({"law": name, "size": size, "delta0": float(delta0), "bound": max(shifts), "shift": j, "mean": float(mean)})
    json.dump(
        {"about": "written by scripts/integer_noise.py (mpmath, 40 digits)", "renyi": renyi, "steps": steps},
        sys.stdout,
        indent=1,
    )
    print()


if __name__ == "__main__":
    main()
