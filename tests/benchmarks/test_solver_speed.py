"""How long a Fiedler vector takes, beside the dense solver that TokenCut calls.

Run ``pytest tests/benchmarks --benchmark-only``; the figure in brackets is the ratio to the quickest of a
group. Both get the same float64 ``W``. Numbers in the book come from ``notebooks/50_solver_speed.py``,
which alternates the two. A plain ``pytest`` runs the smallest case once, untimed.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.linalg
import torch

from sempart_core import affinity, regions
from sempart_core.spectral import fiedler
from sempart_core.synthetic import clustered_features

SIDES = {196: 14, 400: 20, 784: 28, 1600: 40, 3600: 60}


def graph(n, seed=0):
    side = SIDES[n]
    return affinity.threshold_affinity(clustered_features((side, side), seed=seed), dtype=torch.float64)


def dense(W):
    """TokenCut's call, object_discovery.py:40."""
    W = np.asarray(W)
    D = np.diag(W.sum(1))
    return scipy.linalg.eigh(D - W, D, subset_by_index=[1, 2])[1][:, 0]


def ours(W):
    return fiedler(W).vectors[0].numpy()


def partition(v):
    """Seed, mask and box as TokenCut takes them from an eigenvector."""
    side = round(len(v) ** 0.5)
    mask = v > v.mean()
    seed = int(abs(v).argmax())
    mask = (mask if mask[seed] else ~mask).reshape(side, side)
    component = regions.component_of(mask, divmod(seed, side))
    return seed, mask.tolist(), tuple(regions.box_of(component))


def peak_mb(f):
    tracemalloc.start()
    try:
        f()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n", [196])
def test_smoke(n):
    W = graph(n)
    assert partition(ours(W)) == partition(dense(W))


@pytest.mark.parametrize("solver", [ours, dense], ids=["ours", "dense"])
@pytest.mark.parametrize("n", SIDES)
def test_one_graph(benchmark, n, solver):
    W = graph(n)
    benchmark.group = f"one graph of {n} nodes"
    v = solver(W)
    if solver is ours:
        assert partition(v) == partition(dense(W))
        benchmark.extra_info["products"] = fiedler(W).products
    benchmark.extra_info["peak MB"] = round(peak_mb(lambda: solver(W)), 1)
    benchmark.pedantic(solver, (W,), rounds=3 if solver is dense and n > 1000 else 9, warmup_rounds=1)


@pytest.mark.parametrize("how", ["batch", "loop", "dense loop"])
def test_batch(benchmark, how, b=32, n=784):
    W = torch.stack([graph(n, seed) for seed in range(b)])
    benchmark.group = f"{b} graphs of {n} nodes"
    run = {
        "batch": lambda: fiedler(W),
        "loop": lambda: [fiedler(w) for w in W],
        "dense loop": lambda: [dense(w) for w in W],
    }[how]
    if how != "dense loop":
        found = fiedler(W).vectors[:, 0]
        assert all(
            partition(v.numpy()) == partition(fiedler(w).vectors[0].numpy())
            for v, w in zip(found, W, strict=True)
        )
    benchmark.extra_info["peak MB"] = round(peak_mb(run), 1)
    benchmark.pedantic(run, rounds=1 if how == "dense loop" else 7, warmup_rounds=how != "dense loop")


@pytest.mark.parametrize("what", ["threshold graph", "implicit cosine"])
def test_from_features(benchmark, what, n=3600):
    x = clustered_features((SIDES[n], SIDES[n]), dim=384).abs()
    benchmark.group = f"features of {n} nodes, graph included"
    tau = 0.2 if what == "threshold graph" else None
    e = benchmark.pedantic(lambda: fiedler(features=x, tau=tau), rounds=3, warmup_rounds=1)
    assert not e.dense and 0 <= e.values.item() <= 2
