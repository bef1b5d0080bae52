# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-speed)=
# # One eigenvector, not all of them
#
# **Claim.** Public code for normalized cuts on patch features spends most of its time in the eigen-solver, and
# nearly all of that for nothing: TokenCut {cite}`wang2022tokencut` asks for one eigenvector of a dense matrix
# and calls a routine that reduces the whole matrix to tridiagonal form first. The question which part of a
# graph goes to which side needs one vector, to a precision at which no patch changes sides. Asked for just
# that, a graph of 3600 patches is cut {measured}`solver-speed/3600 nodes/ratio|.0f` times faster, with the same
# seed, the same mask and the same box.
#
# Users of all this code ask about it: ten seconds an image, out of memory on a video. A method that calls the
# solver once a photograph can wait; one that calls it for every window, at every training step or for every
# threshold of a study cannot.

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]
# nb: alone
import time
import tracemalloc

import numpy as np
import scipy.linalg
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from sempart_core import affinity, plots, regions
from sempart_core.notebook import glue, save, start
from sempart_core.records import Record
from sempart_core.spectral import fiedler
from sempart_core.synthetic import clustered_features

cfg = start(profile, data_root, device, seed, name="50_solver_speed")
smoke = cfg.name == "smoke"
repeats = 1 if smoke else 5

# %% [markdown]
# ## The same question twice
#
# The cut relaxes to ({eq}`eq-generalised`)
#
# ```{math}
# :label: eq-speed-generalised
# (D - W)\,y = \lambda D\,y ,
# ```
#
# of which the second smallest eigenvalue is wanted. The smallest is known before any computation:
# $\lambda = 0$, $y = \mathbb{1}$. Put $v = D^{1/2} y$ and read the equation from its other end,
#
# ```{math}
# :label: eq-speed-adjacency
# M v = (1 - \lambda)\, v , \qquad M = D^{-1/2} W D^{-1/2} , \qquad
# M u = u \;\text{ for }\; u = D^{1/2}\mathbb{1} / \lVert D^{1/2}\mathbb{1} \rVert ,
# ```
#
# and the wanted vector belongs to the *largest* eigenvalue of $M - uu^\top$. This is called
# deflation. The largest eigenvalue of a matrix is what the Lanczos iteration finds first: multiply a vector by
# $M$, make the result orthogonal to all vectors so far, repeat; the small tridiagonal matrix of the
# coefficients has eigenvalues that approach those of $M$ from inside. Twelve lines:


# %%
def lanczos(W, steps, seed=0):
    """Approximations of the Fiedler vector after 2, 3, ... products with W."""
    d = W.sum(1)
    s = d**-0.5
    Q = [np.sqrt(d / d.sum())]  # the trivial vector: every new one is made orthogonal to it
    w = np.random.default_rng(seed).standard_normal(len(W))
    a, b, found = [], [], []
    for _ in range(steps):
        w = w - np.array(Q).T @ (np.array(Q) @ w)
        b.append(np.linalg.norm(w))
        Q.append(w / b[-1])
        w = s * (W @ (s * Q[-1]))
        a.append(Q[-1] @ w)
        w = w - np.array(Q).T @ (np.array(Q) @ w)
        T = np.diag(a) + np.diag(b[1:], 1) + np.diag(b[1:], -1)
        found.append(s * (np.linalg.eigh(T)[1][:, -1] @ np.array(Q[1:])))
    return found[1:]


# %% [markdown]
# How many products does it take? Invented scenes of ellipses before a background, as patch features with noise,
# thresholded at $\tau = 0.2$ as in {eq}`eq-tokencut-affinity`, give graphs like those of photographs. The error
# is the sine of the angle to the exact vector.


# %%
def graph(side, seed=0, objects=3):
    return affinity.threshold_affinity(
        clustered_features((side, side), objects=objects, seed=seed), tau=0.2, dtype=torch.float64
    )


def dense(W):
    """What TokenCut runs: all of D, all of D - W, the full reduction."""
    W = np.asarray(W)
    D = np.diag(W.sum(1))
    return scipy.linalg.eigh(D - W, D, subset_by_index=[1, 2])[1][:, 0]


def sine(a, b):
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return float(np.linalg.norm(a - b * (a @ b)))


curves = {}
for objects in (1, 3, 6):
    W = graph(20, objects=objects).numpy()
    exact = scipy.linalg.eigh(np.diag(W.sum(1)) - W, np.diag(W.sum(1)), subset_by_index=[1, 2])
    gap = exact[0][1] - exact[0][0]
    error = [sine(v, exact[1][:, 0]) for v in lanczos(W, 24)]
    curves[f"{objects} object{'s' * (objects > 1)}, gap {gap:.2f}"] = (
        range(2, 2 + len(error)),
        np.maximum(error, 1e-15),
    )

# %% tags=["remove-cell"]
fig = plots.curves(curves, "products with $W$", "sine of the angle to the exact vector", logy=True)
glue("fig-lanczos-error", fig)

# %% [markdown]
# ```{glue:figure} fig-lanczos-error
# :name: fig-lanczos-error
# :alt: Three curves of the error over the number of products, on a logarithmic vertical axis. All fall in nearly straight lines from about one to the noise at 1e-15 within at most two dozen products, faster where the gap is larger.
#
# The error falls geometrically; the gap $\lambda_3 - \lambda_2$ sets the slope. After ten to twenty products it is
# below anything that could move a patch across the threshold.
# ```
#
# A product reads $W$ once, $8 N^2$ bytes. The dense route costs about $\tfrac{4}{3} N^3$ operations for the
# tridiagonal form alone, after a Cholesky factorisation of $D$ that nobody needed: it is diagonal.
#
# ## What is left to win
#
# Once twenty products do it, the work is reading a matrix that does not fit into the cache. `fiedler` therefore
#
# - multiplies by `symv`, which reads one triangle: half of $W$, on one core, because threads that wait for each
#   other lose more on a busy machine than a second core wins when memory is the limit;
# - starts from the row of the least connected patch, LOST's seed {cite}`simeoni2021lost`: what that patch is joined
#   to looks much like one side of the cut, and two or three products are saved;
# - keeps the basis orthogonal at full precision, and stops where the residual divided by the gap (an estimate of
#   the angle) is below $10^{-8}$;
# - looks at the tridiagonal matrix only when it may be done, as that costs as much as a product for a small graph;
# - works through a batch graph by graph, in threads where there are four or more, so that each stays in the cache;
# - hands a graph that does not converge to the dense solver and says so. No unconverged vector is returned.
#
# Side by side, the same float64 $W$ given to all: the dense solver, a plain ARPACK call on the deflated operator
# (what a few lines of SciPy buy), and `fiedler`. They alternate, so that whatever else the machine does
# hits all alike, with a pause and an uncounted call before each; the
# figures are medians. Memory is the peak of what each allocates beside $W$.


# %%
def arpack(W):
    W = np.asarray(W)
    d = W.sum(1)
    s, u = d**-0.5, np.sqrt(d / d.sum())
    M = LinearOperator(W.shape, lambda x: s * (W @ (s * x)) - u * (u @ x), dtype=W.dtype)
    v0 = np.random.default_rng(0).standard_normal(len(W))
    return s * eigsh(M, k=1, which="LA", v0=v0)[1][:, 0]


def ours(W):
    return fiedler(W).vectors[0].numpy()


def partition(v):
    """Seed, mask and box as TokenCut takes them from an eigenvector."""
    side = round(len(v) ** 0.5)
    mask, at = v > v.mean(), int(abs(v).argmax())
    mask = (mask if mask[at] else ~mask).reshape(side, side)
    box = regions.box_of(regions.component_of(mask, at))
    return at, mask.tobytes(), tuple(box)


def side_by_side(functions, repeats):
    """Median time in ms of each function, taken in turns, and what they returned.

    The pause lets the worker threads of the libraries go to sleep: they spin for a while after a call and
    would take a core from whoever is measured next. Then a call that does not count, to wake up again.
    """
    times, out = {name: [] for name in functions}, {}
    for _ in range(repeats):
        for name, f in functions.items():
            time.sleep(0.2)
            f()
            begin = time.perf_counter()
            out[name] = f()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: float(np.median(t)) for name, t in times.items()}, out


def peak_mb(f):
    tracemalloc.start()
    try:
        f()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


# %%
sides = (14, 20) if smoke else (14, 20, 28, 40, 60)
rows, table = [], {}
common = {"dataset": "synthetic-graphs", "seed": cfg.seed}
for side in sides:
    n = side * side
    W = graph(side, seed=cfg.seed)
    solvers = {
        "reference": lambda W=W: dense(W),
        "ARPACK": lambda W=W: arpack(W),
        "ours": lambda W=W: ours(W),
    }
    r = min(repeats, 3) if n > 1000 else 3 * repeats
    ms, vectors = side_by_side(solvers, r)
    same = partition(vectors["ours"]) == partition(vectors["reference"])
    table[n] = ms | {"same": same}
    values = {
        "ours ms": (ms["ours"], "ms"),
        "ARPACK ms": (ms["ARPACK"], "ms"),
        "reference ms": (ms["reference"], "ms"),
        "ratio": (ms["reference"] / ms["ours"], "x"),
        "ARPACK ratio": (ms["reference"] / ms["ARPACK"], "x"),
        "products": (fiedler(W).products, ""),
        "peak MB": (peak_mb(solvers["ours"]), "MB"),
        "reference peak MB": (peak_mb(solvers["reference"]), "MB"),
        "same partition": (float(same), ""),
    }
    params = {"nodes": n, "threads": torch.get_num_threads(), "tau": 0.2, "eps": 1e-5}
    rows += [
        Record("solver-speed", f"{n} nodes", metric, float(v), n=r, unit=unit, params=params, **common)
        for metric, (v, unit) in values.items()
    ]

# %% tags=["nbval-check-output"]
print("same seed, mask and box as the dense solver:", all(t["same"] for t in table.values()))

# %% tags=["remove-cell"]
nodes = list(table)
lines = {
    "dense (scipy.linalg.eigh)": (nodes, [table[n]["reference"] for n in nodes]),
    "deflated ARPACK": (nodes, [table[n]["ARPACK"] for n in nodes]),
    "fiedler": (nodes, [table[n]["ours"] for n in nodes]),
}
fig = plots.curves(lines, "nodes $N$", "milliseconds, median", logx=True, logy=True)
fig.axes[0].set_xticks(nodes, [str(n) for n in nodes])
fig.axes[0].minorticks_off()
glue("fig-solver-speed", fig)

# %% [markdown]
# ```{glue:figure} fig-solver-speed
# :name: fig-solver-speed
# :alt: Three rising lines over the number of nodes, both axes logarithmic. The dense solver rises steepest, from about a millisecond to seconds; deflated ARPACK lies far below it, fiedler lowest at every size.
#
# Time for one Fiedler vector, $W$ given, on the machine that built this book.
# ```
#
# | nodes | dense, ms | ARPACK, ms | `fiedler`, ms | dense / `fiedler` | products | peak MB | dense, peak MB |
# |---|---|---|---|---|---|---|---|
# | 196 | {measured}`solver-speed/196 nodes/reference ms|.1f` | {measured}`solver-speed/196 nodes/ARPACK ms|.1f` | {measured}`solver-speed/196 nodes/ours ms|.2f` | {measured}`solver-speed/196 nodes/ratio|.1f` | {measured}`solver-speed/196 nodes/products|.0f` | {measured}`solver-speed/196 nodes/peak MB|.1f` | {measured}`solver-speed/196 nodes/reference peak MB|.1f` |
# | 400 | {measured}`solver-speed/400 nodes/reference ms|.1f` | {measured}`solver-speed/400 nodes/ARPACK ms|.1f` | {measured}`solver-speed/400 nodes/ours ms|.2f` | {measured}`solver-speed/400 nodes/ratio|.1f` | {measured}`solver-speed/400 nodes/products|.0f` | {measured}`solver-speed/400 nodes/peak MB|.1f` | {measured}`solver-speed/400 nodes/reference peak MB|.1f` |
# | 784 | {measured}`solver-speed/784 nodes/reference ms|.1f` | {measured}`solver-speed/784 nodes/ARPACK ms|.1f` | {measured}`solver-speed/784 nodes/ours ms|.2f` | {measured}`solver-speed/784 nodes/ratio|.1f` | {measured}`solver-speed/784 nodes/products|.0f` | {measured}`solver-speed/784 nodes/peak MB|.1f` | {measured}`solver-speed/784 nodes/reference peak MB|.1f` |
# | 1600 | {measured}`solver-speed/1600 nodes/reference ms|.0f` | {measured}`solver-speed/1600 nodes/ARPACK ms|.1f` | {measured}`solver-speed/1600 nodes/ours ms|.1f` | {measured}`solver-speed/1600 nodes/ratio|.0f` | {measured}`solver-speed/1600 nodes/products|.0f` | {measured}`solver-speed/1600 nodes/peak MB|.1f` | {measured}`solver-speed/1600 nodes/reference peak MB|.0f` |
# | 3600 | {measured}`solver-speed/3600 nodes/reference ms|.0f` | {measured}`solver-speed/3600 nodes/ARPACK ms|.1f` | {measured}`solver-speed/3600 nodes/ours ms|.1f` | {measured}`solver-speed/3600 nodes/ratio|.0f` | {measured}`solver-speed/3600 nodes/products|.0f` | {measured}`solver-speed/3600 nodes/peak MB|.1f` | {measured}`solver-speed/3600 nodes/reference peak MB|.0f` |
#
# ## A batch
#
# Thirty-two graphs of 784 patches, a training batch at 224 pixels and patch 8: all at once, one by one, and one
# by one through the dense solver.

# %%
b, side = (4, 14) if smoke else (32, 28)
W = torch.stack([graph(side, seed=s, objects=1 + s % 5) for s in range(b)])
functions = {"batch": lambda: fiedler(W), "loop": lambda: [fiedler(w) for w in W]}
ms, _ = side_by_side(functions, 2 * repeats)
for name, solve in (("ARPACK", arpack), ("reference", dense)):
    begin = time.perf_counter()
    for w in W:
        solve(w)
    ms[name] = 1e3 * (time.perf_counter() - begin)
params = {"graphs": b, "nodes": side * side, "threads": torch.get_num_threads()}
rows += [
    Record("solver-speed", f"batch of {b}", metric, v, n=2 * repeats, unit=unit, params=params, **common)
    for metric, v, unit in (
        ("ours ms", ms["batch"], "ms"),
        ("loop ms", ms["loop"], "ms"),
        ("ARPACK ms", ms["ARPACK"], "ms"),
        ("reference ms", ms["reference"], "ms"),
        ("ARPACK ratio", ms["ARPACK"] / ms["batch"], "x"),
        ("loop ratio", ms["loop"] / ms["batch"], "x"),
        ("ratio", ms["reference"] / ms["batch"], "x"),
        ("peak MB", peak_mb(functions["batch"]), "MB"),
    )
]

# %% tags=["remove-cell"]
save(rows)

# %% [markdown]
# The batch takes {measured}`solver-speed/batch of 32/ours ms|.0f` ms. One by one, ARPACK takes
# {measured}`solver-speed/batch of 32/ARPACK ms|.0f` ms ({measured}`solver-speed/batch of 32/ARPACK ratio|.1f` times as
# long), the dense solver {measured}`solver-speed/batch of 32/reference ms|.0f` ms
# ({measured}`solver-speed/batch of 32/ratio|.0f` times), and our own solver
# {measured}`solver-speed/batch of 32/loop ms|.0f` ms ({measured}`solver-speed/batch of 32/loop ratio|.2f` times). We had
# hoped for three times our own loop. But a single graph is already mostly reading, two cores read through the same
# cache and memory, and a second thread finds the road taken: on fewer than four threads `fiedler` uses one.
#
# ## What can go wrong
#
# - **Ties.** Patches with identical rows in $W$ have identical entries in $y$, and rounding decides which of
#   them is the seed, in the dense solver too. A comparison of seeds has to allow for that.
# - **No gap.** If $\lambda_2$ and $\lambda_3$ agree to $10^{-9}$, "the" Fiedler vector is any direction of a
#   plane. Both solvers return one; nothing says the same one. A constant image is the extreme: every $\lambda$
#   is 1, and no cut is better than another.
# - **No cut.** A vector always comes back. Whether it cuts anything is what $\lambda_2$ says: near 1, nothing.
#
# ```{exercise-start} Why not the smallest eigenvalue directly?
# :label: ex-shift
# ```
# Lanczos on $D^{-1}(D - W)$ would meet both ends of the spectrum. Why does {eq}`eq-speed-adjacency` converge
# faster to $\lambda_2$ than an iteration for the smallest non-zero eigenvalue of the un-normalised
# $D - W$ does to its own? Look at the spectra.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-shift
# :class: dropdown
# ```
# Lanczos separates an eigenvalue from the rest in proportion to its gap *relative to the spread of the rest*.
# The normalised spectrum of a graph with many edges is a narrow heap around 1 and a few values below; the
# un-normalised one is spread over the range of the degrees, and the wanted value is one end of it.

# %% tags=["nbval-check-output"]
W = graph(14).numpy()
d = W.sum(1)
L = np.diag(d) - W
for name, values in (
    ("normalised", scipy.linalg.eigvalsh(L / np.sqrt(d[:, None] * d))),
    ("un-normalised", scipy.linalg.eigvalsh(L)),
):
    print(f"{name:14s} gap / spread of the rest = {(values[2] - values[1]) / (values[-1] - values[2]):.2f}")

# %% [markdown]
# ```{solution-end}
# ```
