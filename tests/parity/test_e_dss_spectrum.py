"""Deep Spectral's affinities and eigenvectors as its public code computes them (vectors e)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from sempart_core import affinity
from sempart_core.spectral import fiedler

TOLERANCE = 1e-4  # protocols section 2: ARPACK in float32 from a random start
LAMBDA = 10.0


@pytest.fixture(scope="module")
def z(vectors):
    return vectors("e_dss_eigs")


@pytest.fixture(scope="module")
def x(z):
    return torch.from_numpy(z["feats"])


def grid(z, patch):
    return z[f"knn{patch}_image_lr"].shape[:2]


def compare(e, values, vectors, tolerance=TOLERANCE):
    """Rows 1 onwards, up to sign; row 0 is the trivial pair that we deflate."""
    np.testing.assert_allclose(e.values, values[1:], rtol=tolerance, atol=tolerance)
    for i, (got, want) in enumerate(zip(e.vectors.numpy(), vectors[1:], strict=True)):
        np.testing.assert_allclose(
            got * np.sign(got @ want), want, atol=tolerance, err_msg=f"eigenvector {i + 1}"
        )


@pytest.mark.parametrize("patch", [16, 8])
def test_knn_triplets(z, patch):
    """Equal but for points at the same distance as the k-th neighbour, which a tree may take or leave."""
    image = z[f"knn{patch}_image_lr"]
    h, w = grid(z, patch)
    n = h * w
    triplet = (z[f"knn{patch}_val"], (z[f"knn{patch}_row"].astype(int), z[f"knn{patch}_col"].astype(int)))
    want = sparse.coo_matrix(triplet, (n, n)).toarray()
    got = affinity.knn_color_affinity(image, (h, w), "code").numpy()
    assert got.sum() == want.sum()
    np.testing.assert_array_equal(np.diag(got), np.diag(want))
    xy = np.stack([np.tile(np.linspace(0, 1, w), h), np.repeat(np.linspace(0, 1, h), w)], 1)
    excused = np.zeros((n, n), dtype=bool)
    for k, weight in affinity.KNN["code"]:
        psi = np.concatenate([image.reshape(n, 3), weight * xy], 1, dtype=np.float32).astype(np.float64)
        distance = np.linalg.norm(psi[:, None] - psi[None], axis=-1)
        kth = np.sort(distance, axis=1)[:, k - 1 : k]
        tie = abs(distance - kth) < 1e-6 * (1 + kth)
        excused |= tie | tie.T
    assert (got == want)[~excused].all()
    assert (got != want).sum() <= 0.01 * (want != 0).sum()


def test_without_colour(z, x):
    W = affinity.combined_affinity(x, grid(z, 16), lambda_knn=0)
    k = len(z["lam0_eigenvalues"]) - 1
    for solver in ("auto", "dense"):
        compare(fiedler(W.double(), k=k, solver=solver), z["lam0_eigenvalues"], z["lam0_eigenvectors"])
    compare(fiedler(W, k=1), z["lam0_eigenvalues"][:2], z["lam0_eigenvectors"][:2])


def test_exact(z, x):
    """Against the dense float64 reference; what is left is the float32 rounding of the affinity."""
    W = affinity.combined_affinity(x, grid(z, 16), lambda_knn=0).double()
    values, vectors = z["lam0_exact64_eigenvalues"], z["lam0_exact64_eigenvectors"]
    for solver in ("auto", "dense"):
        compare(fiedler(W, k=len(values) - 1, solver=solver), values, vectors, 1e-6)


@pytest.mark.parametrize("patch", [16, 8])
@pytest.mark.parametrize("solver", ["auto", "dense"])
def test_with_colour(z, x, patch, solver):
    image = z[f"knn{patch}_image_lr"]
    W = affinity.combined_affinity(x, grid(z, 16), image, grid(z, patch), LAMBDA, "code").double()
    values, vectors = z[f"lam10_knn_{patch}_eigenvalues"], z[f"lam10_knn_{patch}_eigenvectors"]
    compare(fiedler(W, k=len(values) - 1, solver=solver), values, vectors)


def test_without_normalisation(z, x):
    """The standard eigenproblem of D - W; the eigenvalues carry its scale, hence the relative bound."""
    W = affinity.combined_affinity(x, grid(z, 16), lambda_knn=0).double()
    values, vectors = z["lam0_nolapnorm_eigenvalues"], z["lam0_nolapnorm_eigenvectors"]
    compare(fiedler(W, k=len(values) - 1, laplacian="unnormalized"), values, vectors)
