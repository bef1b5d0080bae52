# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-gradient)=
# # The gradient of a cut
#
# **Claims.** Differentiable Normalized Cuts {cite}`liu2024diffncut` puts the Fiedler vector inside a network and
# trains through it.
#
# 1. The gradient has a closed form (theorem 1, equations 7 and 8) that costs next to nothing once the forward pass has
#    all eigenvectors; a pseudo-inverse costs several times the forward pass (supplement, table 3).
# 2. It is more stable than the derivative that PyTorch has for `torch.linalg.eigh` (footnote 4).
#
# Both are examined here. A third statement is ours: neither pass needs all eigenvectors.

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]
# nb: alone
import os
import subprocess
import sys
import time

import numpy as np
import torch

from sempart_core import plots
from sempart_core.affinity import cosine_affinity
from sempart_core.ncut_layer import laplacian_of, ncut_eigenvector, symmetric_eigenvector
from sempart_core.notebook import glue, save, start
from sempart_core.records import Record
from sempart_core.synthetic import clustered_features

cfg = start(profile, data_root, device, seed, name="80_gradient_of_a_cut")
smoke = cfg.name == "smoke"


def graphs(side, batch, dtype=torch.float64, first=0):
    """Cosines above 0 between the patches of invented scenes; the paper's equation 1 on unit features."""
    made = [
        cosine_affinity(clustered_features((side, side), objects=1 + s % 4, seed=first + s))
        for s in range(batch)
    ]
    return torch.stack(made).to(dtype).clamp_min(1e-6).to(cfg.device)


# %% [markdown]
# ## One vector is enough
#
# Let $X z = \lambda z$ with $X$ symmetric, $z^\top z = 1$ and $\lambda$ simple. Differentiate both equations:
#
# ```{math}
# :label: eq-dz
# (X - \lambda I)\, dz = (d\lambda\, I - dX)\, z, \quad z^\top dz = 0
# \qquad\Longrightarrow\qquad
# dz = (\lambda I - X)^{+}\, dX\, z .
# ```
#
# This is theorem 1. A loss $\ell(z)$ with $g = \partial \ell / \partial z$ changes by $g^\top dz$, so all that is
# needed of the pseudo-inverse is one vector,
#
# ```{math}
# :label: eq-resolvent
# p = (\lambda I - X)^{+} g, \qquad \frac{\partial \ell}{\partial X} = \tfrac12 (p z^\top + z p^\top) .
# ```
#
# The paper writes out $p$ by all eigenpairs, $p = \sum_{i \ne 2} z_i\, z_i^\top g / (\lambda_2 - \lambda_i)$, which is
# its equation 8. `symmetric_eigenvector` does that. Against a finite difference on a random graph:

# %% tags=["nbval-check-output"]
W = graphs(6, 1)[0].cpu()
generator = torch.Generator().manual_seed(cfg.seed)
g = torch.randn(36, dtype=torch.float64, generator=generator)
change = torch.randn(36, 36, dtype=torch.float64, generator=generator)
change = change + change.T

X = laplacian_of(W).requires_grad_()
z = symmetric_eigenvector(X, k=1)
(z @ g).backward()
h = 1e-6
there, back = (symmetric_eigenvector(X.detach() + s * h * change, k=1) @ g for s in (1, -1))
numeric, exact = float(there - back) / (2 * h), float((X.grad * change).sum())
print(f"relative difference below 1e-7: {abs(numeric / exact - 1) < 1e-7}")

# %% [markdown]
# ## The way to the weights
#
# The Laplacian depends on $W$ through the degrees as well. Written with $M = D^{-1/2} W D^{-1/2} = I - L$ and
# $\theta = 1 - \lambda$, the two ways add up to a matrix of rank three,
#
# ```{math}
# :label: eq-rank-three
# \frac{\partial \ell}{\partial W} = \tfrac12 (a b^\top + b a^\top) + c\, \mathbb 1^\top,
# \qquad a = D^{-1/2} p,\; b = D^{-1/2} z,\; c = -D^{-1} \bigl(\theta\, p \circ z - \tfrac12 z \circ g_\perp\bigr),
# ```
#
# with $p = (\theta I - M)^+ g$ and $g_\perp$ the part of $g$ orthogonal to $z$. Of the graph it needs nothing but
# $p$. And $p$ solves a linear system, of which two eigenvectors are known: the trivial one, along which the solution is a
# division by $\theta - 1$, and $z$, along which it is zero. On the rest every eigenvalue of $\theta I - M$ is positive,
# because $\theta$ is the largest there. Conjugate gradients apply: as many products with $W$ as the condition number asks
# for, and the rest of the spectrum is never computed. The forward pass is the deflated Lanczos iteration of
# {doc}`50_solver_speed`.

# %% tags=["nbval-check-output"]
W = graphs(20, 2).requires_grad_()
g = torch.randn(2, 400, dtype=torch.float64, generator=generator).to(cfg.device)
found = {}
for solver in ("closed", "iterative"):
    (gradient,) = torch.autograd.grad((ncut_eigenvector(W, solver=solver) * g).sum(), W)
    found[solver] = (gradient + gradient.mT) / 2  # the weights are symmetric, so this part is what counts
far = (found["closed"] - found["iterative"]).abs().max() / found["closed"].abs().max()
rank = torch.linalg.matrix_rank(found["iterative"], rtol=1e-8).tolist()
print(f"the solvers agree to 1e-7: {bool(far < 1e-7)}; rank at most 4 (3, made symmetric): {max(rank) <= 4}")

# %% [markdown]
# ## Where the library's derivative is not finite
#
# PyTorch differentiates all eigenvectors at once, with a factor $1 / (\lambda_i - \lambda_j)$ for each pair. If any two
# eigenvalues are equal, though the loss reads neither of their vectors, the factor is infinite. Ties are not rare: $W =
# F F^\top$ with $N$ patches and $D < N$ dimensions has a null space of dimension $N - D$, and there the normalised
# Laplacian has $\lambda = 1$ that often, as long as no cosine is cut off at zero. How often does it happen?

# %%
rows = []
synthetic = {"dataset": "synthetic-graphs", "seed": cfg.seed}
trials = 4 if smoke else 20
for n_side, dim in ((14, 64), (14, 384), (28, 384)) if not smoke else ((8, 16), (8, 96)):
    n, finite, error = n_side**2, {"eigh": 0, "closed": 0, "iterative": 0}, []
    for t in range(trials if n < 500 else max(2, trials // 5)):
        f = clustered_features((n_side, n_side), dim=dim, noise=0.3, seed=t).double() + 1.0
        f = torch.nn.functional.normalize(f, dim=-1)
        W = (f @ f.T).clamp_min(0).requires_grad_()
        g = torch.randn(n, dtype=torch.float64, generator=generator)
        grads = {}
        (grads["eigh"],) = torch.autograd.grad(torch.linalg.eigh(laplacian_of(W))[1][:, 1] @ g, W)
        for solver in ("closed", "iterative"):
            (grads[solver],) = torch.autograd.grad(ncut_eigenvector(W, solver=solver) @ g, W)
        for name, v in grads.items():
            finite[name] += int(torch.isfinite(v).all())
        tried = t + 1
    for name, count in finite.items():
        row = {"eigh": "torch.linalg.eigh", "closed": "closed form", "iterative": "iterative"}[name]
        rows.append(
            Record(
                "diffncut-finite", f"{n} patches, {dim} dimensions: {row}", "finite_share", count / tried,
                n=tried, params={"nodes": n, "dim": dim}, **synthetic,
            )
        )  # fmt: skip
save(rows)
share = {r.row: r.value for r in rows}
ours = [v for row, v in share.items() if "eigh" not in row]
theirs = [v for row, v in share.items() if "eigh" in row]

# %% tags=["remove-cell"]
glue("finite-claim", "holds" if min(ours) == 1 and min(theirs) < 1 else "is not seen")
glue("finite-all", "all" if min(ours) == 1 else "not all")

# %% [markdown]
# ```{paper-table} diffncut-finite
# :name: tab-diffncut-finite
# :profiles: demo
# :metrics: finite_share
# :format: .2f
# :caption: Share of graphs of invented scenes with a finite gradient of the Fiedler vector.
# ```
#
# Of the layer's gradients {glue:text}`finite-all` are finite. Of the library's it is a share of
# {measured}`diffncut-finite/196 patches, 64 dimensions: torch.linalg.eigh/finite_share|.2f` with three times as many patches as dimensions,
# {measured}`diffncut-finite/784 patches, 384 dimensions: torch.linalg.eigh/finite_share|.2f` with twice as many, and
# {measured}`diffncut-finite/196 patches, 384 dimensions: torch.linalg.eigh/finite_share|.2f` with fewer, where nothing ties. Claim 2, that the
# closed form is the more stable one, {glue:text}`finite-claim` on these graphs; it is about graphs with ties and says nothing about others.
#
# ## Where no derivative exists
#
# If $\lambda_2$ itself is not simple, "the" Fiedler vector is any direction of a plane, and the smallest change of $W$
# turns it by any angle. Near such a graph the gradient grows as one over the gap:

# %%
gaps = 10.0 ** -np.arange(1, 12)
size = {}
q, _ = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64, generator=generator))
g = torch.randn(10, dtype=torch.float64, generator=generator)
for gap in gaps:
    values = torch.tensor([0.0, 1.0, 1.0 + gap, *np.linspace(2, 3, 7)], dtype=torch.float64)
    X = ((q * values) @ q.T).requires_grad_()
    z = symmetric_eigenvector((X + X.T) / 2, k=1, degenerate="ignore")
    (gradient,) = torch.autograd.grad(z @ g, X)
    size[gap] = float(gradient.abs().max())

# %% tags=["remove-cell"]
glue("gradient-near-tie", f"{size[gaps[6]]:.0e}")
fig = plots.curves(
    {"closed form, guard 1e-9": (list(size), list(size.values()))},
    "gap between the second and the third eigenvalue", "largest entry of the gradient", logx=True, logy=True,
)  # fmt: skip
glue("fig-guard", fig)

# %% [markdown]
# ```{glue:figure} fig-guard
# :name: fig-guard
# :alt: A line that rises as the gap shrinks from a tenth to a billionth, by a factor of ten for each factor of ten, and falls to about one where the gap is below the guard of one billionth.
#
# The gradient of a loss of $z_2$ near a tie. Below the guard the pair is left out, and what remains is the gradient along
# the other directions only.
# ```
#
# The guard of the paper sets the factor of such a pair to zero. The number that comes out is finite, and it is not the
# gradient of anything. The layer does the same and says so: a `DegenerateWarning` counts the graphs of the batch (or
# `degenerate="raise"` stops). A gap of $10^{-7}$ passes the guard, and the largest entry of the gradient is {glue:text}`gradient-near-tie` here; clipping
# its norm is the training's affair.
#
# ## Time
#
# Forward and backward pass of a batch of graphs in double precision, $W$ given: with the pseudo-inverse of equation 7,
# PyTorch's own derivative, the closed form, and the iterative solver. Where a batch of the paper's size would take
# minutes here, a smaller one is taken; the table gives milliseconds a graph.


# %%
class PseudoInverse(torch.autograd.Function):
    """Equation 7, literally."""

    @staticmethod
    def forward(ctx, X):
        values, vectors = torch.linalg.eigh(X)
        z = vectors[..., 1]
        ctx.save_for_backward(X, z, values[..., 1])
        return z

    @staticmethod
    def backward(ctx, g):
        X, z, value = ctx.saved_tensors
        eye = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
        p = (torch.linalg.pinv(value[:, None, None] * eye - X, hermitian=True) @ g[..., None])[..., 0]
        half = p[:, :, None] * z[:, None] / 2
        return half + half.mT


WAYS = {
    "pseudo-inverse": lambda W: PseudoInverse.apply(laplacian_of(W)),
    "torch.linalg.eigh": lambda W: torch.linalg.eigh(laplacian_of(W))[1][..., 1],
    "closed form": lambda W: ncut_eigenvector(W, solver="closed", degenerate="ignore"),
    "iterative": lambda W: ncut_eigenvector(W, degenerate="ignore"),
    "iterative, single precision": lambda W: ncut_eigenvector(W.float(), degenerate="ignore"),
}


def wait():
    if cfg.device != "cpu":
        torch.cuda.synchronize()


def timed(way, W, g):
    W = W.clone().requires_grad_()
    wait()
    begin = time.perf_counter()
    z = way(W)
    wait()
    middle = time.perf_counter()
    z.backward(g.to(z.dtype))
    wait()
    return middle - begin, time.perf_counter() - middle


cuda = cfg.device != "cpu"
CASES = {"196 nodes": (14, 256), "784 nodes": (28, 64), "1600 nodes": (40, 8)}
FEW = {"196 nodes": 32, "784 nodes": 4, "1600 nodes": 1}  # of the slow ways, on a CPU
if smoke:
    CASES, FEW = {"64 nodes": (8, 4)}, {"64 nodes": 2}
SLOW = ("pseudo-inverse", "torch.linalg.eigh", "closed form")
timed(
    WAYS["iterative"], graphs(6, 1), torch.ones(1, 36, device=cfg.device)
)  # the first one pays for libraries
rows, per_graph = [], {}
for case, (side, batch) in CASES.items():
    W = graphs(side, batch)
    g = torch.randn(batch, side * side, dtype=torch.float64, generator=generator).to(cfg.device)
    for name, way in WAYS.items():
        b = FEW[case] if name in SLOW and not cuda else batch
        repeats = 1 if (name in SLOW and side > 28) or smoke else 3
        both = np.median([timed(way, W[:b], g[:b]) for _ in range(repeats)], axis=0) / b
        per_graph[case, name] = 1e3 * np.array([*both, both.sum()])
        like = {
            "n": repeats, "unit": "ms", "device": cfg.device,
            "params": {"nodes": side * side, "batch": b, "threads": torch.get_num_threads()}, **synthetic,
        }  # fmt: skip
        for metric, v in zip(("forward_ms", "backward_ms", "total_ms"), per_graph[case, name], strict=True):
            rows.append(Record("diffncut-speed", f"{case}: {name}", metric, float(v), **like))
    for name in WAYS:
        ratio = per_graph[case, "closed form"][2] / per_graph[case, name][2]
        rows.append(
            Record("diffncut-speed", f"{case}: {name}", "speedup", float(ratio), n=1, unit="x", **synthetic)
        )
save(rows)
large = list(CASES)[min(1, len(CASES) - 1)]

# %% tags=["remove-cell"]
forward, backward, _ = per_graph[large, "pseudo-inverse"]
glue("claim-pinv", "holds" if backward > 2 * forward else "fails")
forward, backward, _ = per_graph[large, "closed form"]
glue("claim-closed", "holds" if backward < 0.1 * forward else "fails")

# %% [markdown]
# ```{paper-table} diffncut-speed
# :name: tab-diffncut-speed
# :profiles: demo
# :metrics: forward_ms, backward_ms, total_ms, speedup
# :format: .2f
# :caption: Milliseconds a graph, medians of one run side by side, and how many times as fast as the closed form each way is. The batch of each row is in its provenance.
# ```
#
# ```{paper-table} diffncut-speed-reported-small
# :name: tab-diffncut-paper-speed-small
# :reported: diffncut-supplement-3
# :reported-groups: ViT-S/16, batch 256
# :reported-all:
# :caption: Table 3 of the supplement, as reported: seconds for a batch of 256 graphs of ViT-S/16 (196 nodes at 224 pixels) on an A100.
# ```
#
# ```{paper-table} diffncut-speed-reported-large
# :name: tab-diffncut-paper-speed
# :reported: diffncut-supplement-3
# :reported-groups: ViT-S/8, batch 64
# :reported-all:
# :caption: The same for a batch of 64 graphs of ViT-S/8 (784 nodes).
# ```
#
# At 784 nodes the iterative layer takes {measured}`diffncut-speed/784 nodes: iterative/total_ms|.1f` ms a graph, {measured}`diffncut-speed/784 nodes: iterative/speedup|.1f`
# times as fast as the closed form; its backward pass takes
# {measured}`diffncut-speed/784 nodes: iterative/backward_ms|.1f` ms beside
# {measured}`diffncut-speed/784 nodes: iterative/forward_ms|.1f` ms forward. Claim 1 is about the backward pass alone:
# {measured}`diffncut-speed/784 nodes: pseudo-inverse/backward_ms|.0f` ms with the pseudo-inverse against
# {measured}`diffncut-speed/784 nodes: closed form/backward_ms|.0f` ms with the closed form, after
# {measured}`diffncut-speed/784 nodes: closed form/forward_ms|.0f` ms forward for either; that the pseudo-inverse is several times the
# forward pass {glue:text}`claim-pinv`, that the closed form costs less than a tenth of it {glue:text}`claim-closed`. What remains is the
# forward pass, which the iteration shortens.
#
# Memory: the closed form keeps all eigenvectors of a graph until the backward pass, as many numbers
# as the graph has weights, and its temporaries beside them. Measured on Linux as the peak of a fresh process over what it held with the graphs made:

# %%
SCRIPT = """
import sys, torch
from sempart_core.ncut_layer import ncut_eigenvector
n, b, solver = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def held(what):  # of this program: ru_maxrss would start from what the process that called it held
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024
small = (torch.rand(1, 40, 40, dtype=torch.float64) + 1).requires_grad_()
small = (small + small.mT)
ncut_eigenvector(small, solver=solver).sum().backward()
torch.manual_seed(0)
A = torch.rand(b, n, n, dtype=torch.float64)
W = A.add_(A.mT.clone()).requires_grad_()
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = held("VmRSS")
ncut_eigenvector(W, solver=solver)[:, 0].sum().backward()
print(held("VmHWM") - before)
"""
rows = []
for n, b in ((64, 2),) if smoke else ((784, 4), (1600, 1)):
    for solver, name in (("closed", "closed form"), ("iterative", "iterative")):
        said = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(n), str(b), solver],
            # freed memory goes back to the system at once, so that what is held is what is used
            env={k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")},
            capture_output=True,
            text=True,
            check=True,
        )
        mb = float(said.stdout.strip().splitlines()[-1])
        rows.append(
            Record(
                "diffncut-memory", f"{n} nodes: {name}", "peak_mb", mb / b, n=1, unit="MB",
                params={"nodes": n, "batch": b, "weights_mb": 8 * n * n / 2**20}, **synthetic,
            )
        )  # fmt: skip
save(rows)

# %% [markdown]
# ```{paper-table} diffncut-memory
# :name: tab-diffncut-memory
# :profiles: demo
# :metrics: peak_mb
# :format: .0f
# :caption: Megabytes a graph beyond its weights at the peak of forward and backward pass, the gradient of the weights among them.
# ```
#
# ```{exercise-start} Signs
# :label: ex-gradient-sign
# ```
# $z$ and $-z$ are both eigenvectors, and the layer makes the entry of largest magnitude positive. Is the layer
# differentiable where two entries share the largest magnitude with opposite signs? What does the gradient of a loss with
# $\ell(z) = \ell(-z)$ depend on? Check your answer for $\ell = \sum_i z_i^4$.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gradient-sign
# :class: dropdown
# ```
# There it jumps: the whole vector changes its sign. A loss that is even does not see it: $g(-z) = -g(z)$, and in
# {eq}`eq-resolvent` $p$ and $z$ change sign together. The official code makes the sum positive, which is rounding noise for the
# un-normalised Laplacian because $z \perp \mathbb 1$ there, so its loss has to be even, and is: it takes the better of two
# polarities.

# %% tags=["nbval-check-output"]
W = graphs(8, 1).cpu().requires_grad_()
z = ncut_eigenvector(W)
gradients = [torch.autograd.grad((s * z).pow(4).sum(), W, retain_graph=True)[0] for s in (1, -1)]
print("the same for both signs:", bool(torch.equal(*gradients)))

# %% [markdown]
# ```{solution-end}
# ```
