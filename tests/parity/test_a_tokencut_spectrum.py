"""TokenCut's graph and spectrum: degrees, eigenvalues and eigenvectors of the public code (vectors a)."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from sempart_core import affinity
from sempart_core.spectral import fiedler

TAU, EPS = 0.2, 1e-5  # main_tokencut.py:109-110, protocols 1.1


@pytest.fixture(scope="module")
def cases(vectors):
    z = vectors("a_tokencut_ncut")
    tags = sorted(m[1] for k in z if (m := re.fullmatch(r"(.+)_feats", k)))
    assert tags, "no case found: the array names changed"
    return {t: {k[len(t) + 1 :]: v for k, v in z.items() if k.startswith(f"{t}_")} for t in tags}


def one_minus_cos(a, b):
    """Up to sign, without cancellation: (1 - cos)(1 + cos) = sin^2."""
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (a, b))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    cos = abs(a @ b)
    return ((a - b * (a @ b)) ** 2).sum() / (1 + cos)


def binary(case):
    return affinity.threshold_affinity(torch.from_numpy(case["feats"]), TAU, EPS, dtype=torch.float64)


def test_degree(cases):
    for tag, case in cases.items():
        np.testing.assert_allclose(
            affinity.degree(binary(case)), case["degree"].ravel(), rtol=1e-12, err_msg=tag
        )


@pytest.mark.parametrize("solver", ["auto", "lanczos", "dense"])
def test_binary_graph(cases, solver):
    for tag, case in cases.items():
        stored = np.sort(case["eigvals0_3"])
        e = fiedler(binary(case), k=len(stored) - 1, solver=solver)
        np.testing.assert_allclose(e.values, stored[1:], atol=1e-9, err_msg=tag)
        one = fiedler(binary(case), solver=solver)
        v, want = one.vectors[0].numpy(), case["bin_eigvec"].ravel()
        assert one_minus_cos(v, want) < 1e-9, tag
        assert one_minus_cos(e.vectors[0], want) < 1e-9, tag
        # D-orthonormal as the reference is, so the entries agree and not only the direction.
        np.testing.assert_allclose(v * np.sign(v @ want), want, atol=1e-7 * abs(want).max(), err_msg=tag)
        # The seed is the largest magnitude; among equal entries rounding chose, there as here.
        assert abs(v[int(case["bin_seed"])]) >= (1 - 1e-9) * abs(v).max(), tag


def test_cosine_graph(cases):
    """The public code keeps negative cosines out with eps and runs LAPACK in float32."""
    for tag, case in cases.items():
        x = torch.nn.functional.normalize(torch.from_numpy(case["feats"]), dim=-1)
        gram = x @ x.T
        W = torch.where(gram < TAU, torch.full_like(gram, EPS), gram)
        for solver in ("lanczos", "dense"):
            got = fiedler(W, solver=solver).vectors[0]
            assert one_minus_cos(got, case["nobin_eigvec"]) < 1e-4, (tag, solver)


def test_a_batch_agrees_with_its_graphs(cases):
    by_size: dict[int, list[str]] = {}
    for tag, case in cases.items():
        by_size.setdefault(len(case["feats"]), []).append(tag)
    for tags in by_size.values():
        batch = fiedler(torch.stack([binary(cases[t]) for t in tags]))
        for v, tag in zip(batch.vectors[:, 0], tags, strict=True):
            assert one_minus_cos(v, cases[tag]["bin_eigvec"]) < 1e-9, tag
