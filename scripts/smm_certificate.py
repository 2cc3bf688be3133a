#!/usr/bin/env python3
"""Derives the numbers behind `docs/smm-accounting.md` again, by other means and with 40 digits.

    pip install mpmath
    scripts/smm_certificate.py > tests/vectors/smm_certificate.json        (some minutes)

Nothing of the proofs is used: Renyi divergences are summed as they are defined, and the mean kappa that a dominating
Gaussian needs is read off the trade-off curves at many shifts, vertex by vertex, in both directions. The test suite reads
the file and checks that the certified bounds lie above all of it, and not far above.
"""
import json
import sys

from mpmath import erfc, erfinv, exp, log, mp, mpf, pi, sqrt

mp.dps = 40


class Skellam:
    """q(k) for |k| <= reach, from I_(k-1) = I_(k+1) + (2k/z) I_k downwards, and Q(K >= k)."""

    def __init__(self, mu, reach):
        z = 2 * mpf(mu)
        start = reach + 20 * int(sqrt(z)) + 200
        values = [mpf(0)] * (start + 2)
        values[start] = mpf(10) ** -1000
        for k in range(start, 0, -1):
            values[k - 1] = values[k + 1] + 2 * k / z * values[k]
        total = values[0] + 2 * sum(values[1:])
        self.q = [v / total for v in values]
        self.tail = [mpf(0)] * (start + 2)
        for k in range(start, -1, -1):
            self.tail[k] = self.tail[k + 1] + self.q[k]

    def pmf(self, k):
        return self.q[abs(k)]

    def at_least(self, k):
        return self.tail[k] if k >= 0 else 1 - self.tail[1 - k]


def divergences(law, reach, x, order):
    """(D_a(P_x || Q), D_a(Q || P_x))."""
    whole = int(x)
    part = mpf(x) - whole
    forward = backward = mpf(0)
    for k in range(-reach, reach + 1):
        q = law.pmf(k)
        p = (1 - part) * law.pmf(k - whole) + part * law.pmf(k - whole - 1)
        forward += p * (p / q) ** (order - 1)
        backward += q * (q / p) ** (order - 1)
    return log(forward) / (order - 1), log(backward) / (order - 1)


def quantile(alpha):
    """The t with P[N(0, 1) > t] = alpha."""
    if alpha > mpf("1e-3"):
        return sqrt(mpf(2)) * erfinv(1 - 2 * alpha)
    # Newton's method on the logarithm of the tail.
    t = sqrt(-2 * log(alpha))
    for _ in range(60):
        tail = erfc(t / sqrt(mpf(2))) / 2
        step = log(tail / alpha) * tail * sqrt(2 * pi) * exp(t * t / 2)
        t += step
        if abs(step) < mpf(10) ** -32:
            break
    return t


def needed(law, x, delta0, quantiles):
    """The least kappa with which N(kappa x, 1) against N(0, 1) dominates the shift x, in both directions."""
    whole = int(x)
    part = mpf(x) - whole
    most = mpf(0)
    last = len(quantiles) - 1
    for k in range(-last + 1, last + 1):
        alpha = law.at_least(k)
        power = (1 - part) * law.at_least(k - whole) + part * law.at_least(k - whole - 1)
        t = quantiles[k] if k >= 0 else -quantiles[1 - k]
        # P_x(K >= k) <= Phi(kappa x - t) + delta0.
        if power > delta0 and power - delta0 < 1:
            at = power - delta0
            shifted = quantile(at) if at <= 0.5 else -quantile(1 - at)
            most = max(most, (t - shifted) / x)
        # Q(K < k) <= Phi(kappa x + Phi^-1(P_x(K < k))) + delta0.
        below, less = 1 - alpha - delta0, 1 - power
        if k <= 0:
            below = law.at_least(1 - k) - delta0
            less = (1 - part) * law.at_least(1 - k + whole) + part * law.at_least(2 - k + whole)
        if below > 0:
            high = -quantile(below) if below <= 0.5 else quantile(1 - below)
            low = -quantile(less) if less <= 0.5 else quantile(1 - less)
            most = max(most, (high - low) / x)
    return most


def renyi_rows():
    rows = []
    for mu, orders in [(5.95, [2, 3, 6, 12]), (50.0, [2, 3, 8, 32]), (1428.0, [2, 6, 32])]:
        sigma = sqrt(2 * mpf(mu))
        for order in orders:
            for x in [0.001, 0.1, 0.3, 0.45, 0.5, 0.75, 1.0, 1.5, 2.25, 5.5]:
                tilt = order * (int(x) + 1)
                reach = int(tilt + 16 * sqrt(sigma**2 + tilt)) + 60
                law = Skellam(mu, reach + 10)
                forward, backward = divergences(law, reach, x, order)
                rows.append({"mu": mu, "order": order, "x": x, "forward": float(forward), "backward": float(backward)})
        print(f"renyi: mu {mu}", file=sys.stderr)
    return rows


def domination_rows():
    rows = []
    for mu, delta0 in [(50.0, "1e-14"), (50.0, "1e-20"), (1428.0, "1e-16"), (1428.0, "1e-20")]:
        small = mpf(float(delta0))
        sigma = sqrt(2 * mpf(mu))
        law = Skellam(mu, int(18 * sigma) + 80)
        last = next(k for k in range(1, len(law.tail)) if law.tail[k] <= small) + 3
        quantiles = [-quantile(law.tail[1])] + [quantile(law.tail[k]) for k in range(1, last + 1)]
        shifts = [mpf(10) ** (mpf(-e) / 4) for e in range(1, 25)] + [mpf("0.3"), mpf("0.5"), mpf("0.9"), 1, mpf("1.5"), 2]
        kappa, at = max((needed(law, x, small, quantiles), x) for x in shifts)
        rows.append({"mu": mu, "delta0": float(delta0), "eta": float(kappa * sigma - 1), "shift": float(at)})
        print(f"domination: mu {mu}, delta0 {delta0}: eta {float(kappa * sigma - 1):.6f}", file=sys.stderr)
    return rows


def curvature_rows():
    rows = []
    for mu in [0.5, 5.95, 50.0, 1428.0, 30000.0]:
        law = Skellam(mu, 10)
        rows.append({"mu": mu, "curvature": float(2 * log(law.q[0] / law.q[1]))})
    return rows


if __name__ == "__main__":
    out = {
        "about": "written by scripts/smm_certificate.py (mpmath, 40 digits); shifts and settings are exact f64",
        "curvature": curvature_rows(),
        "renyi": renyi_rows(),
        "domination": domination_rows(),
    }
    print(json.dumps(out, indent=1))
