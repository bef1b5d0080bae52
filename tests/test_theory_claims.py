"""Every inequality and identity that the chapter on graphs and cuts states, on random graphs.

The reference is dense algebra in float64 written here; the package is compared with it where it offers
the same quantity. Chapter: ``notebooks/10_graphs_and_cuts.py``; names of tests are labels of theorems.
"""

from __future__ import annotations

import contextlib
import io
import pathlib

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.sparse import csgraph

from sempart_core import affinity, spectral

CHAPTER = pathlib.Path(__file__).resolve().parents[1] / "notebooks" / "10_graphs_and_cuts.py"


def random_graph(rng, n=9, loops=False, density=0.6):
    """A connected weighted graph (a path keeps it connected), weights spread over magnitudes."""
    w = rng.random((n, n)) ** 3 * (rng.random((n, n)) < density)
    w = np.triu(w, 1)
    w[np.arange(n - 1), np.arange(1, n)] += 0.05 + rng.random(n - 1)
    w = w + w.T
    return w + np.diag(rng.random(n)) if loops else w


def graphs(count=20, **kwargs):
    rng = np.random.default_rng(7)
    return [random_graph(rng, loops=bool(i % 2), **kwargs) for i in range(count)]


def eigen(w):
    return linalg.eigh(np.diag(w.sum(1)) - w, np.diag(w.sum(1)))


def splits(n):
    return ((np.arange(1, 2 ** (n - 1))[:, None] >> np.arange(n)) & 1).astype(float)


def ncut(w, s):
    """Left form of the definition, sums over sets; s is one binary vector."""
    a, b = s > 0.5, s <= 0.5
    return w[np.ix_(a, b)].sum() * (1 / w[a].sum() + 1 / w[b].sum())


def soft(w, s):
    d = w.sum(1)
    severed, volume = ((s @ w) * (1 - s)).sum(-1), s @ d
    return severed / volume + severed / (d.sum() - volume)


def quotient(w, y):
    d = w.sum(1)
    return y @ (np.diag(d) - w) @ y / (y * y @ d)


def test_definition_and_package_agree():
    rng = np.random.default_rng(0)
    for w in graphs(6):
        for s in rng.permutation(splits(len(w)))[:10]:
            expected = ncut(w, s)
            assert soft(w, s) == pytest.approx(expected, rel=1e-12)
            package = affinity.ncut_value(torch.as_tensor(w), torch.as_tensor(s > 0.5))
            assert float(package) == pytest.approx(expected, rel=1e-9)


def test_thm_range():
    for w in graphs():
        values = soft(w, splits(len(w)))
        assert values.min() > 0 and values.max() <= 2
    bipartite = np.array([[0, 0, 1, 2], [0, 0, 3, 1], [1, 3, 0, 0], [2, 1, 0, 0]], float)
    assert ncut(bipartite, np.array([1, 1, 0, 0])) == pytest.approx(2)
    apart = np.kron(np.eye(2), np.ones((2, 2)))
    assert ncut(apart, np.array([1, 1, 0, 0])) == 0


def test_eq_soft_constant_value_and_gradient():
    for w in graphs(4):
        for c in (0.1, 0.5, 0.9):
            s = torch.full((len(w),), c, dtype=torch.float64, requires_grad=True)
            t = torch.as_tensor(w)
            d, severed = t.sum(1), (s @ t * (1 - s)).sum()
            value = severed / (s @ d) + severed / (d.sum() - s @ d)
            value.backward()
            assert value.item() == pytest.approx(1, abs=1e-12)
            assert s.grad.abs().max() < 1e-12


def test_thm_quadratic():
    rng = np.random.default_rng(1)
    for w in graphs():
        y = rng.normal(size=len(w))
        pairs = sum(w[i, j] * (y[i] - y[j]) ** 2 for i in range(len(w)) for j in range(i + 1, len(w)))
        assert y @ affinity.laplacian(torch.as_tensor(w)).numpy() @ y == pytest.approx(pairs)


def test_thm_rayleigh_both_directions():
    rng = np.random.default_rng(2)
    for w in graphs(6):
        d = w.sum(1)
        for s in rng.permutation(splits(len(w)))[:10]:
            m = s @ d / d.sum()
            y = s - m
            assert y @ d == pytest.approx(0, abs=1e-12)
            assert quotient(w, y) == pytest.approx(ncut(w, s), rel=1e-10)
            a = rng.random() + 0.1  # the converse: any two values that are orthogonal to D1
            other = np.where(s > 0.5, a, -a * m / (1 - m))
            assert quotient(w, other) == pytest.approx(ncut(w, s), rel=1e-10)
            x, b = 2 * s - 1, m / (1 - m)
            np.testing.assert_allclose((1 + x) - b * (1 - x), 2 / (1 - m) * y, atol=1e-12)


def test_thm_spectrum():
    for w in graphs():
        d = w.sum(1)
        lam, y = eigen(w)
        assert lam[0] == pytest.approx(0, abs=1e-12) and lam[-1] <= 2 + 1e-12 and lam[1] > 1e-9
        np.testing.assert_allclose(y.T @ np.diag(d) @ y, np.eye(len(w)), atol=1e-9)
        np.testing.assert_allclose(y[:, 0] / y[0, 0], 1, atol=1e-9)
        sym = affinity.normalized_laplacian(torch.as_tensor(w)).numpy()
        np.testing.assert_allclose(np.linalg.eigvalsh(sym), lam, atol=1e-9)
        np.testing.assert_allclose(sym @ (np.sqrt(d) * y[:, 1]), lam[1] * np.sqrt(d) * y[:, 1], atol=1e-9)
        walk = np.eye(len(w)) - w / d[:, None]
        np.testing.assert_allclose(walk @ y[:, 1], lam[1] * y[:, 1], atol=1e-9)
        if not np.diag(w).any():
            assert lam[-1] > 1
        package = spectral.fiedler(torch.as_tensor(w), k=2)
        np.testing.assert_allclose(package.values.numpy(), lam[1:3], atol=1e-7)


def test_thm_spectrum_components_and_semidefinite():
    rng = np.random.default_rng(3)
    for count in (1, 2, 4):
        blocks = [random_graph(rng, 4, loops=True) for _ in range(count)]
        lam = eigen(linalg.block_diag(*blocks))[0]
        assert (lam < 1e-10).sum() == count
    f = rng.random((12, 5))  # a Gram matrix of non-negative features
    assert eigen(f @ f.T)[0][-1] <= 1 + 1e-9


def test_thm_soft():
    rng = np.random.default_rng(4)
    for w in graphs():
        d = w.sum(1)
        lam2 = eigen(w)[0][1]
        s = rng.random((50, len(w)))
        s[:10] = s[:10].round()
        s = s[(s.sum(1) > 0) & (s.sum(1) < len(w))]
        m = s @ d / d.sum()
        z = s - m[:, None]
        scale = m * (1 - m) * d.sum()
        kappa = (z * z) @ d / scale
        rayleigh = np.array([quotient(w, v) for v in z])
        value = soft(w, s)
        np.testing.assert_allclose(value, 1 - ((z @ w) * z).sum(1) / scale, rtol=1e-9)
        np.testing.assert_allclose(value, 1 - kappa + kappa * rayleigh, rtol=1e-9)
        binary = np.isin(s, (0, 1)).all(1)
        assert kappa.max() <= 1 + 1e-12 and (kappa[~binary] < 1).all()
        np.testing.assert_allclose(kappa[binary], 1)
        assert value.min() >= min(1, lam2) - 1e-12


def test_the_soft_minimum_can_lie_below_every_split():
    path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], float)
    assert soft(path, splits(3)).min() == pytest.approx(4 / 3)
    assert soft(path, np.array([1, 0.5, 0])) == pytest.approx(1)


def test_curvature_at_the_constant_mask():
    for w in graphs(6):
        lam, y = eigen(w)
        v, step = w.sum(), 1e-3
        for k in (1, len(w) - 1):
            rise = soft(w, 0.5 + step * y[:, k]) - 1
            assert rise == pytest.approx(-(1 - lam[k]) * step**2 / (0.25 * v), rel=1e-5)


def test_thm_lower_and_thm_cheeger():
    for w in graphs():
        d = w.sum(1)
        lam, y = eigen(w)
        all_values = soft(w, splits(len(w)))
        order = np.argsort(y[:, 1])
        swept = np.array([np.isin(np.arange(len(w)), order[:k]) for k in range(1, len(w))]).astype(float)
        severed, volume = ((swept @ w) * (1 - swept)).sum(1), swept @ d
        phi = severed / np.minimum(volume, d.sum() - volume)
        values = soft(w, swept)
        assert (phi <= values + 1e-12).all() and (values <= 2 * phi + 1e-12).all()
        assert phi.min() <= np.sqrt(2 * lam[1])
        chain = [lam[1], all_values.min(), values.min(), 2 * phi.min(), 2 * np.sqrt(2 * lam[1])]
        assert (np.diff(chain) >= -1e-10).all()


def test_both_sides_of_the_zero_cut_are_connected():
    rng = np.random.default_rng(5)
    for w in [random_graph(rng, 14, loops=bool(i % 2), density=0.15) for i in range(30)]:
        y = eigen(w)[1][:, 1]
        for t in (0.0, *(y[y < 0])):
            for side in (y >= t, y <= -t) if t == 0 else (y >= t,):
                parts, _ = csgraph.connected_components(w[np.ix_(side, side)])
                assert parts == 1


def test_thm_eps():
    rng = np.random.default_rng(6)
    for loops in (True, False):
        blocks = linalg.block_diag(*((random_graph(rng, n) > 0) * 1.0 for n in (6, 11)))
        if loops:
            np.fill_diagonal(blocks, 1)
        for eps in (1e-3, 1e-7):
            w = np.where(blocks > 0, blocks, eps)
            if not loops:
                np.fill_diagonal(w, 0)
            d = w.sum(1)
            bound = eps * 6 * 11 * (1 / d[:6].sum() + 1 / d[6:].sum())
            assert eigen(w)[0][1] <= bound * (1 + 1e-6)
        assert eigen(w)[0][1] == pytest.approx(bound, rel=1e-3)


def test_thm_loops():
    rng = np.random.default_rng(8)
    for w in (random_graph(rng) for _ in range(20)):
        c = rng.random(len(w))
        looped = w + np.diag(c)
        assert (eigen(looped)[0] <= eigen(w)[0] + 1e-10).all()
        s = splits(len(w))
        assert (soft(looped, s) <= soft(w, s) + 1e-12).all()
        d = w.sum(1)
        for i in range(len(w)):
            one = np.eye(len(w))[i]
            rest = d.sum() - d[i]
            assert soft(w, one) == pytest.approx(1 + d[i] / rest) and soft(w, one) > 1
            expected = d[i] / (d[i] + c[i]) + d[i] / (looped.sum() - d[i] - c[i])
            assert soft(looped, one) == pytest.approx(expected)


def test_a_stray_patch_is_nearly_free_with_self_loops_only():
    x = torch.zeros(1, 41, 3, dtype=torch.float64)
    x[0, :22, 0], x[0, 18:40, 1], x[0, 40, 2] = 1, 1, 1  # two groups that share four, and one that is alone
    stray = torch.arange(41) == 40
    for loops in (True, False):
        w = affinity.threshold_affinity(x, tau=0.5, eps=1e-6, self_loops=loops)[0]
        vector = spectral.fiedler(w).vectors[0]
        alone = bool(torch.equal(vector > vector.mean(), stray) or torch.equal(vector < vector.mean(), stray))
        assert alone == loops
        value = float(affinity.ncut_value(w, stray))
        assert value == pytest.approx(1e-6 * 41, rel=0.1) if loops else value > 1


@pytest.fixture(scope="module")
def chapter():
    """The chapter's code, exercises and solutions included, run as a script in the smoke profile."""
    pytest.importorskip("matplotlib")
    source = CHAPTER.read_text(encoding="utf-8").replace('profile = "demo"', 'profile = "smoke"')
    names: dict = {"__name__": "chapter"}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(source, str(CHAPTER), "exec"), names)
    names["printed"] = out.getvalue()
    return names


def test_chapter_says_what_it_computes(chapter):
    out = chapter["printed"]
    assert "violations of the chain: 0" in out
    assert "identity holds for 1000 random S: True" in out
    assert chapter["gap"] and min(chapter["gap"]) >= 1 - 1e-9
    blob, zero, swept = chapter["shown"][1][-1]
    assert swept == pytest.approx(blob) and zero > 2 * swept, "the second strip: only the threshold fails"
    blob, _, swept = chapter["shown"][2][-1]
    assert swept < blob, "the third strip: halving it is the better cut"


def test_solutions_of_the_chapter(chapter):
    out = chapter["printed"]
    assert "10 cut [2.0, 10.0]" in out and "1.0056 0.1111" in out  # 1 + 2/358 and 1/9
    assert "without    0.000 1.200" in out  # N / (N - 1) for N = 6
    assert "the end is the best split: True" in out
    assert out.count("/ bound = 1.0000") == 3
    assert out.count("isolated node first: True") == 1
    assert "at 0: severs 6 edges" in out
    assert "D - W      smaller side at the mean: 1 of 14 nodes" in out
