#!/usr/bin/env python3
"""Renyi divergences of the Poisson-binomial mechanism (`docs/poisson-binomial.md`) as they are defined, with 40 digits.

    pip install mpmath
    scripts/poisson_binomial.py > tests/vectors/poisson_binomial.json        (a minute)

Nothing of the proofs is used: the laws of both neighbours are convolved coin by coin, for several choices of the other
clients' biases, and their divergences are summed in both directions. The test suite reads the file and checks that the
certified costs lie above all of it, and not far above where the biases are small.
"""
import json
import sys

from mpmath import log, mp, mpf

mp.dps = 40


def coins(law, heads, count):
    for _ in range(count):
        law = [
            (law[k] * (1 - heads) if k < len(law) else 0) + (law[k - 1] * heads if k > 0 else 0)
            for k in range(len(law) + 1)
        ]
    return law


def divergence(p, q, order):
    return log(sum(x**order * y ** (1 - order) for x, y in zip(p, q))) / (order - 1)


def main():
    rows = []
    for m, clients, theta in ((1, 40, "0.25"), (2, 60, "0.1"), (4, 30, "0.05"), (8, 20, "0.02")):
        theta = mpf(theta)
        for share in ("1", "0.25"):
            s = theta * mpf(share)
            # Of the other clients this part has the largest bias, the rest its opposite; 0.5 twice is none at all.
            for part in (0, 0.5, 1, None):
                law = [mpf(1)]
                if part is None:
                    law = coins(law, mpf("0.5"), m * (clients - 1))
                else:
                    up = int(part * (clients - 1))
                    law = coins(law, mpf("0.5") + theta, m * up)
                    law = coins(law, mpf("0.5") - theta, m * (clients - 1 - up))
                q = coins(law, mpf("0.5"), m)
                p = coins(law, mpf("0.5") + s, m)
                for order in (mpf("1.5"), mpf(2), mpf(4), mpf(16)):
                    worst = max(divergence(p, q, order), divergence(q, p, order))
                    rows.append(
                        {
                            "coins": m,
                            "clients": clients,
                            "theta": float(theta),
                            "bias": float(s),
                            "fair": part is None,
                            "order": float(order),
                            "divergence": float(worst),
                        }
                    )
    json.dump({"about": "written by scripts/poisson_binomial.py (mpmath, 40 digits)", "rows": rows}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
