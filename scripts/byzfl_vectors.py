#!/usr/bin/env python3
"""Aggregates and forged vectors of ByzFL 0.0.11, for `tests/suite/rules.rs` and `tests/suite/attacks.rs`.

    pip install --no-deps byzfl==0.0.11 && pip install numpy scipy
    scripts/byzfl_vectors.py > tests/vectors/byzfl.json

Its code for NumPy alone is run: an empty module stands for torch. Where it differs from the papers, which this crate
follows:

- Krum and Multi-Krum add K - f - 1 distances, the paper K - f - 2: asked for f + 1, it gives the paper's for f. Its
  Multi-Krum averages K - (f + 1).
- The geometric median takes 3 steps from zero with nu = 0.1; here it gets steps until it stands still, and a small nu.
- Gaussian noise comes from another generator, and cannot be compared. `SignFlipping` is minus the honest mean: the
  inner-product attack of strength 1. It has no Bulyan, FLTrust, norm-bounded mean, min-max, min-sum, free rider, backdoor;
  of its MoNNA, CAF, SMEA, Inf and searched attacks there is nothing here.
"""
import importlib.util
import json
import sys
import types

import numpy as np

def load():
    """The modules of ByzFL that compute, without those that train."""
    torch = types.ModuleType("torch")
    torch.Tensor = type("Tensor", (), {})
    torch.linalg = types.ModuleType("torch.linalg")
    package = types.ModuleType("byzfl")
    package.__path__ = list(importlib.util.find_spec("byzfl").submodule_search_locations)
    sys.modules.update({"torch": torch, "torch.linalg": torch.linalg, "byzfl": package})
    from byzfl.aggregators import aggregators, preaggregators
    from byzfl.attacks import attacks
    return aggregators, preaggregators, attacks


def cohort(rng, n, d, f):
    """Honest vectors around one, f far away; every number one of f32."""
    rows = rng.normal(0.5, 1.0, (n, d)) * rng.uniform(0.5, 2.0, (n, 1))
    rows[rng.permutation(n)[:f]] += 8.0
    return rows.astype(np.float32).astype(np.float64)


def main():
    agg, pre, att = load()
    rng = np.random.default_rng(20261122)
    shapes = [(7, 5, 1), (11, 9, 2), (12, 16, 3), (25, 6, 5)]
    cohorts = [cohort(rng, *shape) for shape in shapes]
    rules, buckets, attacks = [], [], []

    for at, (rows, (n, d, f)) in enumerate(zip(cohorts, shapes)):
        def rule(config, before, expected, **more):
            rules.append({"rows": at, "config": {"rule": config, "before": before}, **more, "expected": list(expected)})

        start = rng.normal(0.5, 1.0, d).astype(np.float32).astype(np.float64)
        clipping = agg.CenteredClipping(L=4, tau=1.5)
        clipping.m = start
        plain = [
            ("mean", agg.Average()),
            ("median", agg.Median()),
            ({"trimmed-mean": {"f": f}}, agg.TrMean(f)),
            ({"krum": {"f": f}}, agg.Krum(f + 1)),
            ({"multi-krum": {"f": f, "m": n - f - 1}}, agg.MultiKrum(f + 1)),
            ({"geometric-median": {}}, agg.GeometricMedian(nu=1e-9, T=20000)),
            ({"centered-clipping": {"tau": 2.5, "iterations": 3}}, agg.CenteredClipping(L=3, tau=2.5)),
            ({"meamed": {"f": f}}, agg.Meamed(f)),
        ]
        if n <= 12:
            plain.append(({"mda": {"f": f}}, agg.MDA(f)))
        for config, run in plain:
            rule(config, [], run(rows.copy()))
        rule({"centered-clipping": {"tau": 1.5, "iterations": 4}}, [], clipping(rows.copy()), start=list(start))

        nnm, arc, clip = pre.NNM(f), pre.ARC(f), pre.Clipping(2.5)
        named = {"nearest-neighbor-mixing": {"f": f}}, {"arc": {"f": f}}, {"clipping": {"bound": 2.5}}
        for before, steps in [([0], [nnm]), ([1], [arc]), ([2], [clip]), ([1, 0], [arc, nnm])]:
            mixed = rows.copy()
            for step in steps:
                mixed = step(mixed.copy())
            names = [named[i] for i in before]
            rule("mean", names, agg.Average()(mixed.copy()))
            rule({"trimmed-mean": {"f": f}}, names, agg.TrMean(f)(mixed.copy()))
            rule({"krum": {"f": f}}, names, agg.Krum(f + 1)(mixed.copy()))
            rule({"geometric-median": {}}, names, agg.GeometricMedian(nu=1e-9, T=20000)(mixed.copy()))
            rule({"meamed": {"f": f}}, names, agg.Meamed(f)(mixed.copy()))

        order = rng.permutation(n)
        saved, np.random.permutation = np.random.permutation, lambda vectors: vectors[order]
        for s in (2, 3):
            expected = pre.Bucketing(s)(rows.copy())
            buckets.append({"rows": at, "s": s, "order": order.tolist(), "expected": expected.tolist()})
        np.random.permutation = saved

        def attack(config, run):
            attacks.append({"rows": at, "config": config, "expected": list(run(rows.copy()))})

        attack({"inner-product": {"strength": 1.0}}, att.SignFlipping())
        attack({"inner-product": {"strength": 0.1}}, att.InnerProductManipulation(0.1))
        attack({"alie": {"strength": 1.5}}, att.ALittleIsEnough(1.5))
        attack({"mimic": {"row": 3}}, att.Mimic(3))

    out = {
        "version": 1,
        "source": "byzfl 0.0.11, scripts/byzfl_vectors.py",
        "cohorts": [rows.tolist() for rows in cohorts],
        "rules": rules,
        "buckets": buckets,
        "attacks": attacks,
    }
    short = lambda x: float(f"{x:.9g}") if isinstance(x, float) else x

    def rounded(value):
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items()}
        if isinstance(value, (list, np.ndarray)):
            return [rounded(v) for v in value]
        return short(float(value)) if isinstance(value, (float, np.floating)) else value

    # One entry a line: a file that a reader, and a diff, can follow.
    out = rounded(out)
    print("{")
    for key, value in out.items():
        last = key == "attacks"
        if isinstance(value, list):
            lines = ",\n".join("    " + json.dumps(v) for v in value)
            print(f"  {json.dumps(key)}: [\n{lines}\n  ]{'' if last else ','}")
        else:
            print(f"  {json.dumps(key)}: {json.dumps(value)},")
    print("}")


main()
