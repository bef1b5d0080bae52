# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-graphs)=
# # Graphs and the normalized cut
#
# Every method in this book does the same thing first: it turns a photograph into a weighted graph and
# asks for a cut of that graph. This chapter builds the theory of that cut from nothing, with proofs,
# and stops whenever a formula can be tried on numbers. At the end you can say what the second
# eigenvector promises, what it does not promise, and why two small constants, $\tau$ and $\varepsilon$,
# and one choice that looks cosmetic, the diagonal of $W$, decide whether a photograph is cut into an
# object and a background or into one stray patch and the rest.
#
# The letters are collected on the page {ref}`notation`. The four papers that the book follows use this
# material in their background sections: {cite:t}`ravindran2023sempart` (equations 1 to 4),
# {cite:t}`liu2024diffncut` (equations 1 to 6), {cite:t}`melaskyriazi2022deepspectral` (section 3.1) and
# {cite:t}`sari2024twotricks` (section 3).

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]
# nb: light
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import linalg, sparse
from skimage import color, data, draw, transform

from sempart_core import affinity, notebook, plots, spectral
from sempart_core.records import Record

warnings.filterwarnings("ignore", message="IProgress not found")  # scikit-image imports tqdm
notebook.start(profile, data_root, device="cpu", seed=seed, name="10_graphs_and_cuts")
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown]
# (sec-two-clusters)=
# ## From points to a graph
#
# Take $N$ things, later the patches of a photograph, now points in the plane, and write down for every
# pair how alike they are: a number $w_{ij} \ge 0$ with $w_{ij} = w_{ji}$, the {term}`affinity`. The
# things become the nodes $V$ of a weighted undirected graph, the affinities its symmetric matrix
# $W \in \mathbb{R}^{N \times N}$. A common choice for points is the Gaussian
#
# ```{math}
# :label: eq-gaussian
# w_{ij} = \exp\!\left(-\frac{\lVert x_i - x_j \rVert^2}{\sigma^2}\right), \qquad i \neq j ,
# ```
#
# with $w_{ii} = 0$ for the moment; {ref}`sec-self-loops` returns to the diagonal. For sets of nodes $A$
# and $B$ let $w(A, B) = \sum_{i \in A} \sum_{j \in B} w_{ij}$. Three sums over $W$ are all that follows
# needs:
#
# ```{math}
# :label: eq-degree
# \begin{aligned}
# d_i &= \sum_{j} w_{ij}, \\
# \operatorname{vol}(A) &= \sum_{i \in A} d_i = w(A, V), \\
# \operatorname{cut}(A, B) &= w(A, B) \quad \text{for } B = V \setminus A .
# \end{aligned}
# ```
#
# The {term}`degree` $d_i$ says how well connected a node is, the {term}`volume` how well connected a set
# is, and the {term}`cut` what must be severed to separate $A$ from the rest. $D$ is the diagonal matrix of
# the degrees. Here are fourteen points: two groups and one straggler.

# %% tags=["nbval-check-output"]
left = [(0, 0), (0.9, 0.3), (0.3, 1), (1.2, 1.2), (0.2, 1.9), (1.6, 0.4), (1.1, 2)]
right = [(4, 0.2), (4.8, 0.7), (4.1, 1.3), (5, 1.6), (3.9, 2.2), (3, 1)]
straggler = (2.4, 3.4)
points = torch.tensor([*left, *right, straggler], dtype=torch.float64)


def gaussian(x, sigma):
    """Affinity of points x (N x 2), without self-loops."""
    w = torch.exp(-(torch.cdist(x, x) ** 2) / sigma**2)
    return w.fill_diagonal_(0.0)


W = gaussian(points, sigma=1.0)
d = affinity.degree(W)
print("smallest and largest degree:", f"{d.min():.3f}", f"{d.max():.3f}")

# %% [markdown]
# ### Why the smallest cut chips off corners
#
# The first idea is to sever as little as possible: minimise $\operatorname{cut}(A, B)$. With fourteen nodes there
# are $2^{13} - 1$ ways to split them, few enough to try all. The sum in {eq}`eq-degree` over a set is a
# product with its indicator vector: if $s \in \{0, 1\}^N$ marks $A$, then
# $\operatorname{cut}(A, B) = s^\top W (1 - s)$.


# %% tags=["nbval-check-output"]
def all_cuts(n):
    """Indicators of all 2**(n-1) - 1 splits of n nodes; the last node is in part 0."""
    k = torch.arange(1, 2 ** (n - 1))[:, None]
    return ((k >> torch.arange(n)) & 1).double()


def cut(W, s):
    """Weight severed by each row of s (K x N)."""
    return ((s @ W) * (1 - s)).sum(-1)


S = all_cuts(len(W))
smallest = S[cut(W, S).argmin()]
print(len(S), "splits; the smallest cut severs", f"{cut(W, smallest):.3f}")
size = int(smallest.sum())
print("it separates", min(size, len(W) - size), "node from the others")

# %% [markdown]
# The smallest cut takes the straggler away and leaves the two groups together. This is no accident of
# these points. The cut adds up one weight for every severed pair, and a set of $k$ nodes faces
# $k (N - k)$ pairs: fewest for $k = 1$. Separating node $i$ alone costs its degree $d_i$ and nothing
# else, so a single badly connected node beats
# a long boundary of weak edges. On a
# grid of patches the same happens at the corners ({ref}`ex-corner`). {cite:t}`wu1993optimal` met it in the
# first graph-cut segmentations, and {cite:t}`shi2000normalized` proposed the remedy.
#
# ### The normalized cut
#
# Measure the cut against what each side has in total. The {term}`normalized cut` of a split $(A, B)$ with
# positive volumes is
#
# ```{math}
# :label: eq-ncut
# \operatorname{Ncut}(A, B) = \frac{w(A, B)}{\operatorname{vol}(A)} + \frac{w(A, B)}{\operatorname{vol}(B)}
#   = \frac{s^\top W (1 - s)}{s^\top W 1} + \frac{(1 - s)^\top W s}{(1 - s)^\top W 1} .
# ```
#
# The left form is equation 2 of SEMPART and equation 3 of Differentiable Normalized Cuts (which writes
# $\operatorname{assoc}(A, V)$ for the volume); the right form is what a program evaluates.
#
# :::{prf:proposition} Range
# :label: thm-range
# $0 \le \operatorname{Ncut}(A, B) \le 2$. It is 0 exactly if no edge joins $A$ and $B$, and 2 exactly if no
# edge (and no self-loop) lies within $A$ or within $B$.
# :::
#
# :::{prf:proof}
# $\operatorname{vol}(A) = w(A, A) + w(A, B) \ge w(A, B) \ge 0$, so each of the two fractions lies in $[0, 1]$. A
# fraction is 0 exactly if $w(A, B) = 0$, and 1 exactly if $w(A, A) = 0$; the same for $B$.
# :::
#
# A straggler no longer pays: alone, and without a self-loop, it has $w(A, A) = 0$ and hence a first fraction of 1,
# the worst there is.


# %% tags=["nbval-check-output"]
def soft_ncut(W, s):
    """Normalized cut, right form, for each row of s (K x N) in [0, 1]."""
    d = W.sum(-1)
    severed, volume = cut(W, s), s @ d
    return severed / volume + severed / (d.sum() - volume)


best = S[soft_ncut(W, S).argmin()]
by_library = float(affinity.ncut_value(W, best > 0.5))
print(f"Ncut of the smallest cut {soft_ncut(W, smallest):.4f}")
print(f"smallest Ncut of all     {soft_ncut(W, best):.4f}")
print(f"the same by the library  {by_library:.4f}")
print(f"sizes of its two sides   {int(best.sum())} and {int((1 - best).sum())}")


# %% tags=["hide-input", "remove-output"]
def draw_split(ax, x, W, s, title, scale=3.0):
    """Points with edges as wide as their affinity; squares and circles are the two sides."""
    s = np.asarray(s) > 0.5
    for i, j in zip(*np.nonzero(np.triu(W.numpy(), 1) > 0.02), strict=True):
        severed = s[i] != s[j]
        ax.plot(
            *x[[i, j]].T,
            color=plots.COLORS[5] if severed else "0.6",
            ls="--" if severed else "-",
            marker="",
            lw=scale * float(W[i, j]) + (0.8 if severed else 0.2),
            zorder=1,
        )
    for side, marker, face in ((s, "s", plots.COLORS[0]), (~s, "o", plots.COLORS[1])):
        ax.scatter(*x[side].T, marker=marker, c=face, edgecolors="black", s=46, zorder=2)
    ax.set(title=title, xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)


fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
draw_split(axes[0], points, W, smallest, f"smallest cut: Ncut = {soft_ncut(W, smallest):.3f}")
draw_split(axes[1], points, W, best, f"smallest Ncut: {soft_ncut(W, best):.3f}")
notebook.glue("fig-corner", fig)

# %% tags=["remove-cell"]
notebook.glue("ncut-smallest-cut", float(soft_ncut(W, smallest)))
notebook.glue("ncut-best", float(soft_ncut(W, best)))
notebook.glue("cut-smallest", float(cut(W, smallest)))
notebook.glue("cut-best", float(cut(W, best)))

# %% [markdown]
# ```{glue:figure} fig-corner
# :name: fig-corner
# :alt: Fourteen points in two panels. On the left only the single point far above is a circle, all others are squares. On the right the seven points of the left group and the straggler are circles, the six points of the right group squares.
#
# The same graph cut twice. Line width is affinity, dashed lines are severed, squares and circles are the
# two sides. The smallest cut severs {glue:text}`cut-smallest:.3f`, the best normalized cut
# {glue:text}`cut-best:.3f`: more, but between two sides of substance.
# ```
#
# The price of the remedy: minimising {eq}`eq-ncut` is NP-complete, by a proof of Papadimitriou printed
# in the appendix of {cite:t}`shi2000normalized`. Trying all splits ends at about thirty nodes; a photograph
# has hundreds of patches. Two ways out are known, and the papers of this book take one each. Either the
# indicator is relaxed to a real vector and an eigenproblem solved, photograph by photograph
# ({ref}`sec-eigenproblem`), or it is relaxed to a probability and produced by a network.
#
# (sec-soft)=
# ### The soft version, a first look
#
# SEMPART puts $S \in [0, 1]^N$ into the right form of {eq}`eq-ncut`, its equation 4, and lets a network
# produce $S$ so that the sum falls over many photographs. An undecided network answers every patch
# alike, $S = c\,1$ with $0 < c < 1$. Then $S^\top W (1 - S) = c (1 - c) \operatorname{vol}(V)$ and
#
# ```{math}
# :label: eq-soft-constant
# \frac{c (1 - c) \operatorname{vol}(V)}{c \operatorname{vol}(V)} + \frac{c (1 - c) \operatorname{vol}(V)}{(1 - c) \operatorname{vol}(V)}
#   = (1 - c) + c = 1
# ```
#
# for every graph and every $c$. Whoever trains such a network and sees a loss of 1 knows what they see.
# The gradient there is zero too. Whether the point can be left is a question of eigenvalues, and
# {prf:ref}`thm-soft` answers it.

# %% tags=["nbval-check-output"]
half = torch.full((len(W),), 0.5, dtype=torch.float64, requires_grad=True)
value = soft_ncut(W, half)
value.backward()
print(f"soft Ncut at S = 1/2: {value.item():.4f}")
print("its gradient is zero:", bool(half.grad.abs().max() < 1e-12))

# %% [markdown]
# (sec-eigenproblem)=
# ## The eigenproblem behind it
#
# ### A quadratic form
#
# The matrix $L = D - W$ is the {term}`Laplacian` of the graph. All its virtues come from one identity.
#
# :::{prf:lemma} Quadratic form
# :label: thm-quadratic
# For every $y \in \mathbb{R}^N$,
# ```{math}
# :label: eq-quadratic
# y^\top (D - W)\, y = \tfrac12 \sum_{i, j} w_{ij} (y_i - y_j)^2 = \sum_{i < j} w_{ij} (y_i - y_j)^2 .
# ```
# :::
#
# :::{prf:proof}
# Expand the square: $\tfrac12 \sum_{ij} w_{ij} y_i^2 + \tfrac12 \sum_{ij} w_{ij} y_j^2 - \sum_{ij} w_{ij} y_i y_j$.
# The first two terms are $\tfrac12 \sum_i d_i y_i^2$ each, because $W$ is symmetric; the third is $y^\top W y$.
# Pairs $(i, j)$ and $(j, i)$ contribute the same, pairs $(i, i)$ nothing, which gives the last form.
# :::
#
# So $L$ measures how roughly $y$ behaves across strong edges. It is positive semidefinite, $L 1 = 0$, and
# the diagonal of $W$ has no part in it: self-loops enter $D$ and $W$ alike and cancel. They do not cancel
# from the volumes, which is where {ref}`sec-self-loops` will find them. The sum that Deep Spectral
# Methods prints without the half runs over edges, each once; it is the last form.
#
# ### The normalized cut is a Rayleigh quotient
#
# :::{prf:theorem} Rayleigh quotient of a split
# :label: thm-rayleigh
# Let $A$ and $B = V \setminus A$ have positive volumes, let $m = \operatorname{vol}(A) / \operatorname{vol}(V)$, and let
# ```{math}
# :label: eq-two-valued
# y_i = 1 - m \ \text{ for } i \in A, \qquad y_i = -m \ \text{ for } i \in B .
# ```
# Then $y^\top D 1 = 0$ and
# ```{math}
# :label: eq-rayleigh
# \operatorname{Ncut}(A, B) = \frac{y^\top (D - W)\, y}{y^\top D\, y} .
# ```
# Conversely, if all degrees are positive, every two-valued $y \neq 0$ with $y^\top D 1 = 0$ is a
# multiple of {eq}`eq-two-valued` for $A = \{y > 0\}$. Minimising the normalized cut over splits
# is therefore the same as minimising the quotient over two-valued vectors with $y^\top D 1 = 0$.
# :::
#
# ::::{prf:proof}
# Write $y = s - m 1$ with the indicator $s$ of $A$ and put $v = \operatorname{vol}(V)$. First,
# $y^\top D 1 = \operatorname{vol}(A) - m v = 0$.
#
# *Numerator.* $L 1 = 0$ lets the constant disappear, and by {prf:ref}`thm-quadratic`
# $y^\top L y = s^\top L s = \sum_{i<j} w_{ij} (s_i - s_j)^2 = w(A, B)$, since $(s_i - s_j)^2$ is 1 for
# severed pairs and 0 for all others.
#
# *Denominator.* $y^\top D y = \operatorname{vol}(A)(1 - m)^2 + \operatorname{vol}(B)\, m^2$. With $\operatorname{vol}(A) = m v$ and
# $\operatorname{vol}(B) = (1 - m) v$ this is $v\, m (1-m) \left[ (1-m) + m \right] = v\, m (1 - m)$.
#
# *Quotient.* $\dfrac{w(A,B)}{v\, m (1-m)} = w(A, B) \left( \dfrac{1}{m v} + \dfrac{1}{(1-m) v} \right) = \operatorname{Ncut}(A, B)$.
#
# *Converse.* Let $y$ take the values $a$ and $b$. From $\sum_i d_i y_i = 0$ with $d_i > 0$ and $y \ne 0$ they have opposite
# signs, say $a > 0 > b$ with $A = \{y = a\}$, and $a\, m + b\, (1 - m) = 0$. So $y = (a - b)(s - m 1)$, and
# a quotient does not change when $y$ is multiplied by a number.
# ::::
#
# Shi and Malik write the same vector as $(1 + x) - b (1 - x)$ with $x_i = \pm 1$ and
# $b = \operatorname{vol}(A) / \operatorname{vol}(B)$, and so does equation 4 of Differentiable Normalized Cuts; it is
# {eq}`eq-two-valued` times $2 / (1 - m)$.

# %% tags=["nbval-check-output"]
D = torch.diag(d)
m = (best @ d) / d.sum()
y = best - m
quotient = (y @ (D - W) @ y) / (y @ D @ y)
print(f"quotient {quotient:.4f}   Ncut {soft_ncut(W, best):.4f}")

# %% [markdown]
# ### What the eigenvalues can be
#
# Dropping "two-valued" leaves the minimum of {eq}`eq-rayleigh` over all real $y \neq 0$ with $y^\top D 1 = 0$. Its
# stationary points solve the generalised eigenproblem
#
# ```{math}
# :label: eq-generalised
# (D - W)\, y = \lambda\, D\, y ,
# ```
#
# equation 5 of Differentiable Normalized Cuts and the equation that TokenCut hands to its solver
# {cite:p}`wang2022tokencut`. We number $\lambda_1 \le \lambda_2 \le \dots \le \lambda_N$; Deep Spectral Methods
# counts from 0.
#
# :::{prf:theorem} Spectrum
# :label: thm-spectrum
# Let all degrees be positive.
# 1. The eigenvalues of {eq}`eq-generalised` are real, and the eigenvectors can be chosen with $y_k^\top D\, y_l = 0$ for $k \ne l$ and $y_k^\top D\, y_k = 1$.
# 2. $0 = \lambda_1 \le \dots \le \lambda_N \le 2$, and $y = 1$ belongs to $\lambda_1$.
# 3. The eigenvalue 0 occurs as often as the graph has connected components.
# 4. $\lambda_2 = \min \left\{ \dfrac{y^\top (D - W) y}{y^\top D y} : y \ne 0,\ y^\top D 1 = 0 \right\}$.
# 5. If $W$ is positive semidefinite, all $\lambda_k \le 1$. If $W$ has a zero diagonal and $N \ge 2$, then $\lambda_N > 1$.
# :::
#
# ::::{prf:proof}
# *1.* With $z = D^{1/2} y$ the equation becomes $L_{\mathrm{sym}}\, z = \lambda z$ with the symmetric matrix
#
# ```{math}
# :label: eq-lsym
# L_{\mathrm{sym}} = D^{-1/2} (D - W) D^{-1/2} = I - D^{-1/2} W D^{-1/2} .
# ```
#
# It has real eigenvalues and an orthonormal basis of eigenvectors $z_k$, and $z_k^\top z_l = y_k^\top D\, y_l$.
#
# *2.* By {prf:ref}`thm-quadratic` the quotient is never negative, and it is 0 for $y = 1$. In the same way
# $y^\top (D + W) y = \tfrac12 \sum_{ij} w_{ij} (y_i + y_j)^2 \ge 0$, hence $y^\top (D - W) y \le 2\, y^\top D y$.
#
# *3.* $\lambda = 0$ means $\sum_{i<j} w_{ij} (y_i - y_j)^2 = 0$, that is, $y$ is constant along every edge and so on every
# component. The space of such vectors is spanned by the indicators of the components.
#
# *4.* Expand $y = \sum_{k \ge 2} c_k y_k$; there is no $y_1$ in it because $y^\top D 1 = 0$. The quotient is
# $\sum_{k \ge 2} c_k^2 \lambda_k / \sum_{k \ge 2} c_k^2 \ge \lambda_2$, with equality for $y = y_2$.
#
# *5.* $y^\top (D - W) y = y^\top D y - y^\top W y \le y^\top D y$ for a semidefinite $W$. With a zero diagonal the trace of
# $L_{\mathrm{sym}}$ is $N$; since $\lambda_1 = 0$, the mean of the other $N - 1$ eigenvalues is $N / (N - 1) > 1$.
# ::::
#
# The vector $y_2$ is the {term}`Fiedler vector`, after {cite:t}`fiedler1973algebraic`, who studied it for $D - W$
# and called its eigenvalue the algebraic connectivity. Three matrices lead to it, and papers mix their names:
#
# | matrix | eigenvalues | eigenvectors | first one | who |
# | --- | --- | --- | --- | --- |
# | pair $(D - W,\ D)$ | $\lambda_k$ | $y_k$, orthogonal in $D$ | $1$ | Shi and Malik, TokenCut |
# | $L_{\mathrm{rw}} = I - D^{-1} W$ | $\lambda_k$ | $y_k$ | $1$ | random walks |
# | $L_{\mathrm{sym}}$ of {eq}`eq-lsym` | $\lambda_k$ | $z_k = D^{1/2} y_k$, orthogonal | $D^{1/2} 1$ | SEMPART eq. 1, DiffNCut eq. 6 |
# | $D - W$ alone | others | others, orthogonal | $1$ | Fiedler; the public DiffNCuts code |
#
# The first three are one problem; $z_2$ and $y_2$ even have the same signs, so a cut at 0 is the same for both. The
# last is another problem, the relaxation of the *ratio cut* that divides by numbers of nodes instead of
# volumes {cite:p}`vonluxburg2007tutorial`. It is the one in the public code of Differentiable Normalized Cuts,
# although the paper prints $L_{\mathrm{sym}}$; {ref}`ex-which-laplacian` shows that it can matter.

# %% tags=["nbval-check-output"]
values, vectors = linalg.eigh((D - W).numpy(), D.numpy())  # all pairs
y2 = vectors[:, 1]
library = spectral.fiedler(W, k=2)
cosine = abs(library.vectors[0].numpy() @ D.numpy() @ y2)
of_L_sym = np.linalg.eigvalsh(affinity.normalized_laplacian(W).numpy())

print("lambda_2, lambda_3, largest:", *(f"{v:.4f}" for v in values[[1, 2, -1]]))
print("lambda_2, lambda_3, library:", *(f"{v:.4f}" for v in library.values))
print("same vector up to sign:     ", bool(abs(cosine - 1) < 1e-6))
print("orthogonal to D1:           ", bool(abs(y2 @ d.numpy()) < 1e-9))
print("same eigenvalues of L_sym:  ", np.allclose(of_L_sym, values))

# %% [markdown]
# ### The soft version, explained
#
# The proof of {prf:ref}`thm-rayleigh` used that $s$ is binary at two places only. Keep $S \in [0, 1]^N$ and see
# what is left.
#
# :::{prf:theorem} Soft normalized cut
# :label: thm-soft
# Let all degrees be positive, $S \in [0, 1]^N$, $v = \operatorname{vol}(V)$, let $m = S^\top D 1 / v$ be the weighted mean of $S$, $0 < m < 1$, and
# $z = S - m 1$. Then
# ```{math}
# :label: eq-soft
# \begin{aligned}
# \operatorname{Ncut}(S) &= 1 - \frac{z^\top W z}{m (1 - m)\, v} \\
#   &= (1 - \kappa) \cdot 1 + \kappa \cdot \frac{z^\top (D - W) z}{z^\top D z}, \\
# \kappa &= \frac{z^\top D z}{m (1 - m)\, v} \in [0, 1] ,
# \end{aligned}
# ```
# (the second form for $z \ne 0$) and $\kappa = 1$ exactly if $S$ is binary.
# :::
#
# ::::{prf:proof}
# $S = m 1 + z$ and $z^\top D 1 = 0$. Hence $S^\top W S = m^2 v + 2 m\, z^\top W 1 + z^\top W z = m^2 v + z^\top W z$, because
# $W 1 = D 1$. So $S^\top W (1 - S) = m v - m^2 v - z^\top W z$, and dividing by $m v$ and by $(1 - m) v$ and adding gives
# the first form. For the second use $z^\top W z = z^\top D z - z^\top (D - W) z$. Finally
# $z^\top D z = \sum_i d_i S_i^2 - m^2 v$, at most $\sum_i d_i S_i - m^2 v = m (1 - m) v$, with equality exactly if $S_i^2 = S_i$ for all $i$.
# ::::
#
# Read it like this: $\kappa$ is how decided $S$ is, and the soft loss is a mixture of 1, the value of knowing nothing, and the
# Rayleigh quotient of what is known. Three consequences:
#
# - **A saddle, not a valley.** At a constant $S$ we have $z = 0$, and a small step along an eigenvector $y_k$ changes the loss by
#   $-(1 - \lambda_k)\, y_k^\top D y_k / (m (1-m) v)$ times the square of the step: downhill where $\lambda_k < 1$, uphill where
#   $\lambda_k > 1$. The steepest way down, measured in $D$, is the {term}`Fiedler vector`. A zero diagonal guarantees some $\lambda_k > 1$
#   (item 5 of {prf:ref}`thm-spectrum`), hence a true saddle as soon as $\lambda_2 < 1$; for a semidefinite $W$ the constant is a maximum.
# - **A floor.** $\operatorname{Ncut}(S) \ge \min(1, \lambda_2)$ for all soft $S$.
# - **No guarantee of crispness.** The soft minimum can lie strictly below the best split, so a lower loss need not mean a firmer decision. In the path
#   $a - b - c$ with unit weights every split costs $4/3$, but $S = (1, \tfrac12, 0)$ costs 1: leaving $b$ undecided is cheaper than
#   either decision.

# %% tags=["nbval-check-output"]
path = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).double()
undecided = torch.tensor([1, 0.5, 0]).double()
print(f"best split of the path {soft_ncut(path, all_cuts(3)).min():.4f}")
print(f"S = (1, 1/2, 0)        {soft_ncut(path, undecided):.4f}")

generator = torch.Generator().manual_seed(seed)
S_any = torch.rand(1000, len(W), dtype=torch.float64, generator=generator)
mean = (S_any @ d) / d.sum()
z = S_any - mean[:, None]
right_side = 1 - (z @ W * z).sum(-1) / (mean * (1 - mean) * d.sum())
print("identity holds for 1000 random S:", torch.allclose(right_side, soft_ncut(W, S_any)))

# %% [markdown]
# (sec-relaxation)=
# ## What the relaxation promises
#
# ### From below
#
# :::{prf:theorem} Lower bound
# :label: thm-lower
# $\lambda_2 \le \operatorname{Ncut}(A, B)$ for every split with positive volumes.
# :::
#
# :::{prf:proof}
# By {prf:ref}`thm-rayleigh` the right side is the quotient of a vector with $y^\top D 1 = 0$, and by item 4 of
# {prf:ref}`thm-spectrum` $\lambda_2$ is the smallest such quotient.
# :::
#
# The constant is 1. A factor 2 that one meets in books belongs to the *conductance*
# $\phi(A) = w(A, B) / \min\{\operatorname{vol}(A), \operatorname{vol}(B)\}$, for which $\phi \le \operatorname{Ncut} \le 2 \phi$ and so
# $\lambda_2 \le 2 \phi$.
#
# ### From above
#
# How far can the best split lie above $\lambda_2$? Not arbitrarily far, and the proof names a split: order the nodes by $y_2$ and
# cut the ordered list at the best of its $N - 1$ places. This is the {term}`sweep cut`.
#
# :::{prf:theorem} Cheeger inequality for sweep cuts
# :label: thm-cheeger
# Let $A_t = \{ i : y_{2, i} > t \}$. Then $\min_t \phi(A_t) \le \sqrt{2 \lambda_2}$, and therefore
# ```{math}
# :label: eq-cheeger
# \begin{aligned}
# \lambda_2 &\le \min_{(A, B)} \operatorname{Ncut}(A, B) \le \min_t \operatorname{Ncut}(A_t, V \setminus A_t) \\
#   &\le 2 \min_t \phi(A_t) \le 2 \sqrt{2 \lambda_2} .
# \end{aligned}
# ```
# :::
#
# We do not repeat the proof of the first claim; it is Theorem 2.2 with its proof in {cite:t}`chung1997spectral`, and
# {cite:t}`kannan2004clusterings` read it as a guarantee for clustering: where a good split exists, the sweep finds one that is at
# most its square root away. The chain {eq}`eq-cheeger` adds only $\operatorname{Ncut} \le 2 \phi$.
# Square roots of small numbers are large, so the upper end is a safety net and not an estimate. All splits of 200 random graphs
# with 10 nodes each show where between the two ends reality lies:


# %% tags=["nbval-check-output"]
def sweep(W, y):
    """Thresholds between consecutive values of y, and the Ncut at each."""
    y = torch.as_tensor(y)
    order = torch.sort(y).values
    t = (order[1:] + order[:-1]) / 2
    return t, soft_ncut(W, (y[None] > t[:, None]).double())


S10 = all_cuts(10)
generator = torch.Generator().manual_seed(seed)
violations, found, gap = 0, 0, []
for _ in range(200):
    R = torch.rand(10, 10, dtype=torch.float64, generator=generator) ** 4
    R = torch.triu(R, 1) + torch.triu(R, 1).T  # few strong edges, many weak ones
    pair = spectral.fiedler(R)
    floor = float(pair.values[0])
    exact = float(soft_ncut(R, S10).min())
    swept = float(sweep(R, pair.vectors[0])[1].min())
    chain = [floor, exact, swept, 2 * np.sqrt(2 * floor)]
    violations += bool((np.diff(chain) < -1e-9).any())
    found += swept < exact + 1e-9
    gap.append(exact / floor)
print("violations of the chain:", violations)
print("the sweep found the best split in", found, "of 200 graphs")
print(f"best Ncut / lambda_2: median {np.median(gap):.3f}  largest {max(gap):.3f}")

# %% tags=["remove-cell"]
notebook.glue("sweep-found", int(found))
notebook.glue("gap-median", float(np.median(gap)))

# %% [markdown]
# The sweep finds the best of all splits in {glue:text}`sweep-found:d` of 200 graphs, and the best split typically costs
# {glue:text}`gap-median:.2f` times $\lambda_2$, far below the net.
#
# ### Which threshold?
#
# A sweep evaluates $N - 1$ splits. Methods usually take one:
#
# - **0**, as Deep Spectral Methods does. Since $y_2^\top D 1 = 0$, zero is the *degree-weighted* mean of $y_2$.
# - **the plain mean** of $y_2$, as TokenCut does. Where degrees differ, it lies elsewhere.
# - **the best of the sweep**, as Shi and Malik do with a few candidates.
#
# Thresholds come with a small present: for a connected graph and any $t \le 0$ the set $\{y_2 \ge t\}$ is connected in the graph, and by
# symmetry so is $\{y_2 \le t\}$ for $t \ge 0$ {cite:p}`fiedler1975property`. At 0 both sides hold together. (Connected in the *graph*:
# with $\varepsilon > 0$ everything is joined to everything, and on the picture the sides may well fall apart.)

# %% tags=["nbval-check-output"]
t, swept = sweep(W, y2)
two = torch.as_tensor(np.stack([y2 > 0, y2 > y2.mean()])).double()
at_zero, at_mean = soft_ncut(W, two)
print(f"lambda_2   {values[1]:.4f}")
print(f"best split {soft_ncut(W, S).min():.4f}")
print(f"sweep      {swept.min():.4f}")
print(f"at 0       {at_zero:.4f}")
print(f"at mean    {at_mean:.4f}")
print(f"safety net {2 * np.sqrt(2 * values[1]):.4f}")

# %% tags=["hide-input", "remove-output"]
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained", sharey=True)
every = torch.sort(soft_ncut(W, S)).values
axes[0].plot(
    np.arange(1, len(every) + 1), every, marker="", color=plots.COLORS[0], label="all splits, sorted"
)
axes[0].set(xscale="log", xlabel="rank of the split", ylabel="Ncut")
order = np.sort(y2)
axes[1].step(
    order[1:], swept, where="pre", marker="o", ms=4, color=plots.COLORS[0], label="splits of the sweep"
)
axes[1].axvline(0, ymax=0.8, color="black", ls=":", marker="", lw=1, label="threshold 0")
axes[1].set(xlabel="threshold on the Fiedler vector")
for ax in axes:
    ax.axhline(values[1], color=plots.COLORS[5], ls="--", marker="", label=r"$\lambda_2$")
    net = 2 * np.sqrt(2 * values[1])
    ax.axhline(net, color=plots.COLORS[4], ls="-.", marker="", label=r"$2\sqrt{2\lambda_2}$")
axes[0].legend(fontsize=8, loc="upper left")
axes[1].legend(*(v[:2] for v in axes[1].get_legend_handles_labels()), fontsize=8, loc="upper center")
notebook.glue("fig-gap", fig)

# %% tags=["remove-cell"]
notebook.glue("n-below-net", int((every < 2 * np.sqrt(2 * values[1])).sum()))

# %% [markdown]
# ```{glue:figure} fig-gap
# :name: fig-gap
# :alt: Two panels with the normalized cut on the vertical axis. Left: a curve of all 8191 values rises steeply from just above lambda 2 to above 1. Right: the thirteen splits of the sweep form a valley whose floor touches the same minimum; dashed and dash-dotted lines mark lambda 2 and the upper bound.
#
# Left: the normalized cuts of all 8191 splits of the fourteen points, sorted; {glue:text}`n-below-net:d` of them lie between the two
# bounds. Right: the thirteen that a sweep along the Fiedler vector sees. Its valley reaches the best of all.
# ```
#
# (sec-handmade)=
# ## A cut by hand
#
# Now a photograph, and your own mask. The picture is scikit-image's cup of coffee, shrunk to $24 \times 36$ patches of one colour each. The
# mask is two ellipses, one for the cup and one for the saucer. Change them, or replace them by the polygon of your choice; everything
# below follows.

# %%
rows, cols = 24, 36
small = transform.resize(data.coffee(), (rows, cols), anti_aliasing=True)  # in [0, 1]
by_hand = np.zeros((rows, cols), dtype=bool)
# centre row, centre column, half height, half width
by_hand[draw.ellipse(6.0, 17.5, 6.3, 8.5, by_hand.shape)] = True
by_hand[draw.ellipse(15.2, 18.5, 8.0, 13.0, by_hand.shape)] = True

# %% [markdown]
# The affinity looks at colour (CIELAB, lightness and two colour axes, divided by 100) and at place, as Shi and Malik did for their first pictures:
#
# ```{math}
# :label: eq-color-affinity
# w_{ij} = \exp\!\left( -\frac{\lVert c_i - c_j \rVert^2}{\sigma_c^2} - \frac{\lVert p_i - p_j \rVert^2}{\sigma_p^2} \right),
# \qquad \sigma_c = 0.2, \quad \sigma_p = 0.3 ,
# ```
#
# with positions $p$ in units of the picture's width.

# %% tags=["nbval-check-output"]
lab = torch.as_tensor(color.rgb2lab(small).reshape(-1, 3) / 100)
place = torch.as_tensor((np.indices((rows, cols)).reshape(2, -1).T + 0.5) / cols)
colour_term = torch.cdist(lab, lab) ** 2 / 0.2**2
place_term = torch.cdist(place, place) ** 2 / 0.3**2
W_photo = torch.exp(-colour_term - place_term)

lam, vector = spectral.fiedler(W_photo)
f = vector[0] * torch.sign(vector[0][0])  # free sign: upper left corner positive
t, along = sweep(W_photo, f)
cuts = {
    "hand": torch.as_tensor(by_hand.ravel()).double(),
    "Fiedler at 0": (f > 0).double(),
    "Fiedler at mean": (f > f.mean()).double(),
    "best sweep": (f > t[along.argmin()]).double(),
}
hand, zero, _, swept_ = cuts.values()
for name, s in cuts.items():
    print(f"{name:16s} Ncut {soft_ncut(W_photo, s):.3f}   share of the picture {s.mean():.2f}")
print(f"{'lambda_2':16s}      {float(lam):.3f}")


# %% tags=["hide-input", "remove-output"]
def on_grid(v):
    return np.asarray(v).reshape(rows, cols)


def big(image, times=12):
    return np.kron(image, np.ones((times, times) + (1,) * (image.ndim - 2)))


def tinted(s):
    return plots.overlay(big(small), big(on_grid(s)), color=plots.COLORS[6], alpha=0.6)


fig = plots.mask_grid(
    [[tinted(hand), on_grid(f)], [tinted(zero), tinted(swept_)]],
    notes={
        (0, 0): f"by hand: Ncut {soft_ncut(W_photo, hand):.3f}",
        (0, 1): f"Fiedler vector: lambda_2 = {float(lam):.3f}",
        (1, 0): f"cut at 0: Ncut {soft_ncut(W_photo, zero):.3f}",
        (1, 1): f"best of the sweep: Ncut {soft_ncut(W_photo, swept_):.3f}",
    },
    width=7.0,
)
fig.set_size_inches(7.0, 5.4)
notebook.glue("fig-handmade", fig)

# %% tags=["remove-cell"]
notebook.glue("ncut-hand", float(soft_ncut(W_photo, hand)))
notebook.glue("ncut-photo-zero", float(soft_ncut(W_photo, zero)))
notebook.glue("ncut-photo-sweep", float(soft_ncut(W_photo, swept_)))
notebook.glue("lambda2-photo", float(lam))

# %% [markdown]
# ```{glue:figure} fig-handmade
# :name: fig-handmade
# :alt: Four pictures of a cup of coffee in coarse patches. The hand mask covers cup and saucer. The Fiedler vector is large in the dark upper left corner. The cut at zero and the best sweep cut off dark parts of the picture, not the cup.
#
# Cup and saucer by hand, the Fiedler vector of the colour-and-place graph, and two cuts of it (tinted, with outline). The photograph, by
# Rachel Michetti, is dedicated to the public domain (CC0) and comes with scikit-image.
# ```
#
# Your mask costs {glue:text}`ncut-hand:.3f`, the best of the sweep {glue:text}`ncut-photo-sweep:.3f`, not far above the floor
# {glue:text}`lambda2-photo:.3f`: **the machine wins the game it was asked to play**. And it cuts off a dark corner. Nothing in $W$ says
# that black coffee, white china and red glaze belong together, so under this graph the cup *is* a bad cut. Solvers and
# training can be improved for ever and will not repair that. What did was another graph: affinities
# from the features of a self-supervised transformer, for which the parts of an object are alike {cite:p}`caron2021dino`.
#
# Note also the threshold: zero gives {glue:text}`ncut-photo-zero:.3f`, more than twice the best of the sweep. On real graphs the choice is not a detail.
#
# (sec-threshold)=
# ### The binary graph: what $\tau$ and $\varepsilon$ do
#
# TokenCut and SEMPART do not use a smooth affinity. With patch features $x_i$ scaled to length 1 they set
#
# ```{math}
# :label: eq-threshold
# w_{ij} = \begin{cases} 1 & \text{if } x_i^\top x_j > \tau, \\ \varepsilon & \text{otherwise,} \end{cases}
# ```
#
# equation 3 of SEMPART, after TokenCut. The threshold $\tau$ decides who is a neighbour. The
# constant $\varepsilon$ looks like numerical hygiene, and is a statement about disconnected graphs. Without it the graph $G_\tau$ may fall into
# components; then $\lambda_2 = 0$ is no longer simple, and the solver may return any mixture of their indicators. With it the graph is
# complete, $\lambda_2 > 0$, and *which* component is separated first is decided by volumes:
#
# :::{prf:proposition} Two components
# :label: thm-eps
# Let $G_\tau$ consist of two components of $n_1$ and $n_2$ nodes with volumes $v_1$ and $v_2$ (measured with $\varepsilon$ in place). Then
# ```{math}
# :label: eq-eps
# \lambda_2 \le \varepsilon\, n_1 n_2 \left( \frac{1}{v_1} + \frac{1}{v_2} \right),
# ```
# and the ratio of both sides tends to 1 for $\varepsilon \to 0$ if $n_1, n_2 \geq 2$ or nodes carry self-loops.
# :::
#
# ::::{prf:proof}
# The right side is the Ncut of the split into the components, since exactly $n_1 n_2$ pairs of weight $\varepsilon$ are severed: {prf:ref}`thm-lower`. For the limit,
# let $y$ be the Fiedler vector with $y^\top D y = 1$. Its quotient is $O(\varepsilon)$, so $y$ is constant on each component up to
# $O(\sqrt{\varepsilon})$: the components on their own have a second eigenvalue above 0. With $y^\top D 1 = 0$, that makes $y$ the
# two-valued vector {eq}`eq-two-valued` up to $O(\sqrt\varepsilon)$, and the severed edges alone contribute $\varepsilon\, n_1 n_2 (1/v_1 + 1/v_2) (1 + O(\sqrt{\varepsilon}))$
# to the quotient; the others contribute nothing negative.
# ::::
#
# (sec-self-loops)=
# ### The diagonal: self-loops
#
# Every patch is similar to itself, so {eq}`eq-threshold` gives $w_{ii} = 1$, and TokenCut keeps it. SEMPART sets $w_{ii} = 0$, on the
# ground that no cut ever severs a self-loop, and reports that it helps (its section 4.1). What is the effect?
#
# :::{prf:proposition} Self-loops
# :label: thm-loops
# Add self-loops $c_i \ge 0$ to a graph with zero diagonal. Then
# 1. no Ncut rises and no eigenvalue $\lambda_k$ rises;
# 2. a single node costs
# ```{math}
# :label: eq-single
# \operatorname{Ncut}(\{i\}, V \setminus \{i\}) = \frac{d_i}{d_i + c_i} + \frac{d_i}{\operatorname{vol}(V \setminus \{i\})} ,
# ```
# where $d_i$ is its degree without the loop. Without self-loops that is above 1 for every connected node, with self-loops it is near 0
# for nodes with $d_i \ll c_i$.
# :::
#
# ::::{prf:proof}
# *1.* Loops leave $w(A, B)$ and $D - W$ unchanged and add to volumes and to $D$. So every Ncut and every quotient $R(y)$ falls or stays. By
# the Courant-Fischer formula $\lambda_k = \min_{\dim U = k} \max_{0 \ne y \in U} R(y)$, and so does every $\lambda_k$.
# *2.* is {eq}`eq-ncut` with $w(A, B) = d_i$ and $\operatorname{vol}(A) = d_i + c_i$.
# ::::
#
# Now put the two together. A patch that resembles no other has $d_i = \varepsilon (N - 1)$. With its self-loop it can be cut off at a price of
# about $\varepsilon N$: nearly free, cheaper than any object, and the smaller $\varepsilon$, the cheaper. Without the loop the same cut costs more than 1. **The loop is a
# floor under the volume, and the wrong one**: it turns a stray patch into a perfect cluster of one. The coffee picture has such
# a patch, once the graph {eq}`eq-threshold` is built from centred colours and places with a strict threshold:

# %% tags=["nbval-check-output"]
x = torch.cat([lab - lab.mean(0), 0.3 * (place - place.mean(0))], 1)[None]  # 1 x N x 5
tau = 0.8
graph = affinity.threshold_affinity(x, tau=tau, eps=0.0)[0]
count, label = sparse.csgraph.connected_components(graph.numpy() > 0)
print("components of G_tau:", count, " sizes:", *sorted(np.bincount(label).tolist()))

print("eps      loops   lambda_2   lambda_3   cuts off the stray patch alone")
for eps in (1e-5, 1e-6):
    for loops in (True, False):
        W_tau = affinity.threshold_affinity(x, tau=tau, eps=eps, self_loops=loops)[0]
        e = spectral.fiedler(W_tau, k=2)
        side = int((e.vectors[0] > e.vectors[0].mean()).sum())
        print(
            f"{eps:.0e}   {loops!s:5s}   {e.values[0]:.2e}   {e.values[1]:.2e}   {side in (1, rows * cols - 1)}"
        )

# %% tags=["hide-input", "remove-output"]
grid_eps = np.logspace(-8, -2, 13)
series = {}
for loops in (True, False):
    first = [
        spectral.fiedler(
            affinity.threshold_affinity(x, tau=tau, eps=e, self_loops=loops)[0], k=2
        ).values.tolist()
        for e in grid_eps
    ]
    tag = "with" if loops else "without"
    series[rf"$\lambda_2$ {tag} self-loops"] = (grid_eps, [v[0] for v in first])
    series[rf"$\lambda_3$ {tag} self-loops"] = (grid_eps, [v[1] for v in first])
fig = plots.curves(series, r"$\varepsilon$", "eigenvalue", logx=True, logy=True, size=(6.2, 3.6))
notebook.glue("fig-eps", fig)

# %% tags=["remove-cell"]
hand_loops, hand_none = (
    float(soft_ncut(affinity.threshold_affinity(x, tau=tau, eps=1e-5, self_loops=k)[0], hand))
    for k in (True, False)
)
notebook.glue("hand-loops", hand_loops)
notebook.glue("hand-none", hand_none)
notebook.glue("n-patches", rows * cols)
notebook.glue("mean-degree", float(affinity.degree(graph).mean()))

# %% [markdown]
# ```{glue:figure} fig-eps
# :name: fig-eps
# :alt: Eigenvalues over epsilon on logarithmic axes. With self-loops the second eigenvalue falls in proportion to epsilon below about 1e-5; without self-loops both curves are flat.
#
# The two smallest non-trivial eigenvalues of the binary graph of the coffee picture over $\varepsilon$. With self-loops one of them is
# the stray patch, falls like $\varepsilon N$ and takes the second place as soon as $\varepsilon$ is small. Without self-loops there is no such branch.
# ```
#
# At $\varepsilon = 10^{-6}$, SEMPART's value, the Fiedler vector of the graph with loops separates one patch from
# {glue:text}`n-patches:d`; without loops it separates regions. On ordinary cuts the diagonal changes little: your mask costs
# {glue:text}`hand-loops:.4f` with and {glue:text}`hand-none:.4f` without loops, because a loop of 1 is small against a mean degree
# of {glue:text}`mean-degree:.0f`. It is the rare patch that makes the difference, and larger pictures have more of them.
#
# (sec-failures)=
# ## When it fails
#
# ### Long things are cut in half
#
# Both volumes stand in {eq}`eq-ncut`, so the criterion likes balance. Put a compact blob next to a long strip: the longer the strip, the
# cheaper it is to cut it through the middle, since the severed weight stays the same while both volumes grow. Along the way the
# two steps of the method fail one after the other: first the threshold, then the criterion itself.


# %% tags=["nbval-check-output"]
def blob_and_strip(gap, length):
    """A blob of 3 x 3 nodes left of a strip of length x 3 nodes, half a unit between neighbours."""
    strip = torch.cartesian_prod(torch.arange(length) * 0.5, torch.arange(3) * 0.5)
    blob = torch.cartesian_prod(torch.arange(3) * 0.5 - 1.0 - gap, torch.arange(3) * 0.5)
    return torch.cat([blob, strip]).double(), torch.arange(9 + 3 * length) < 9


cases = {"easy": (1.75, 12), "threshold fails": (1.5, 24), "criterion fails": (1.25, 60)}
print("case              blob     at 0     best sweep")
shown = []
for name, (gap_, length) in cases.items():
    xy, blob = blob_and_strip(gap_, length)
    G = gaussian(xy, 1.0)
    fied = spectral.fiedler(G).vectors[0]
    fied = fied * torch.sign(fied[0])
    t, along = sweep(G, fied)
    at0, bestsw = (fied > 0), (fied > t[along.argmin()])
    values_ = [float(soft_ncut(G, s.double())) for s in (blob, at0, bestsw)]
    print(f"{name:16s}", *(f"{v:8.4f}" for v in values_))
    shown.append((name, xy, at0, bestsw, values_))

# %% tags=["hide-input", "remove-output"]
fig, axes = plt.subplots(3, 2, figsize=(8.6, 2.4), layout="constrained", sharex=True)
for row, (name, xy, at0, bestsw, values_) in zip(axes, shown, strict=True):
    for ax, side, v, what in zip(row, (at0, bestsw), values_[1:], ("at 0", "best of the sweep"), strict=True):
        ax.scatter(*xy[side].T, marker="s", s=11, c=plots.COLORS[0], edgecolors="black", linewidths=0.4)
        ax.scatter(*xy[~side].T, marker="o", s=11, c=plots.COLORS[1], edgecolors="black", linewidths=0.4)
        ax.set(xticks=[], yticks=[], aspect="equal", ylim=(-0.7, 1.7), title=f"{name}, {what}: Ncut {v:.4f}")
        ax.title.set_fontsize(9)
        ax.spines[:].set_visible(False)
notebook.glue("fig-strip", fig)

# %% [markdown]
# ```{glue:figure} fig-strip
# :name: fig-strip
# :alt: Three rows, two columns of a blob of nine points beside a strip of points. In the easy case both columns separate the blob. In the second row the cut at zero halves the strip and the sweep separates the blob. In the third row both halve the strip.
#
# Blob and strip, split by the Fiedler vector at 0 (left) and at the best place of its sweep (right). In the second row the threshold is to blame,
# in the third the criterion: halving the strip *has* the smaller Ncut.
# ```
#
# ### Ties
#
# A square of four nodes with equal sides can be halved in two ways, equally well. Its eigenvalues are 0, 1, 1, 2: $\lambda_2$ is double, every unit vector of a
# plane is "the" Fiedler vector, and which one a solver returns depends on rounding. Near ties behave the same to the eye. If the matrix $L_{\mathrm{sym}}$ is changed by
# a small $E$, the vector turns by an angle of about $\lVert E \rVert$ over the distance to the next eigenvalue at most, here $\lambda_3 - \lambda_2$ {cite:p}`davis1970rotation`: small gap, unstable cut. The same gap stands in the
# denominator of the gradient when one differentiates through the eigenvector, as equation 7 of Differentiable Normalized Cuts does.


# %% tags=["nbval-check-output"]
def square(extra=0.0):
    """Cycle of four nodes; the two horizontal sides get `extra` more weight."""
    w = torch.zeros(4, 4, dtype=torch.float64)
    for i, j, horizontal in ((0, 1, True), (1, 2, False), (2, 3, True), (3, 0, False)):
        w[i, j] = w[j, i] = 1 + extra * horizontal
    return w


print(
    "eigenvalues:",
    *(f"{abs(v):.3f}" for v in np.linalg.eigvalsh(affinity.normalized_laplacian(square()).numpy())),
)
for extra in (0.01, -0.01):
    side = (spectral.fiedler(square(extra)).vectors[0] > 0).tolist()
    print(
        f"{extra:+.2f} on the horizontal sides: node 0 goes with node",
        next(i for i in (1, 2, 3) if side[i] == side[0]),
    )

# %% [markdown]
# One percent decides between two perpendicular cuts. A photograph of a centred object on a plain ground is closer to this than one would like, and it is why
# some methods read more than one eigenvector.
#
# ### Disconnected graphs
#
# With components, $\lambda_2 = 0$: the split is perfect and says nothing about what lies inside the components. {prf:ref}`thm-eps` and {prf:ref}`thm-loops` describe the
# repair by $\varepsilon$ and its side effect. The library's answer without the repair is a vector that is constant on every component:

# %% tags=["nbval-check-output"]
squares = torch.block_diag(square(), square(), square())
pairs = spectral.fiedler(squares, k=3)
print("lambda_2, lambda_3, lambda_4:", *(f"{abs(v):.3f}" for v in pairs.values))
inside = pairs.vectors[0].reshape(3, 4)
print("constant on components:", bool((inside - inside.mean(1, keepdim=True)).abs().max() < 1e-6))

# %% [markdown]
# ### The sign means nothing
#
# If $y$ solves {eq}`eq-generalised`, so does $-y$, and {eq}`eq-ncut` is symmetric in $A$ and $B$. No eigenvector and no value of the loss says which side is the *object*.
# Every method adds a rule: the side that holds the most extreme entry (TokenCut), the smaller side (Deep Spectral Methods), fewer corners of the picture, a more central place, more
# attention (SEMPART's list). These rules use knowledge about photographs that is not in the graph, and part of every method's score is theirs.
#
# (sec-graph-exercises)=
# ## Exercises
#
# ```{exercise-start} A grid and its corner
# :label: ex-corner
# ```
# A picture of $n \times n$ patches, each joined to its horizontal and vertical neighbours with weight 1, no self-loops. Compute by hand the cut and the Ncut of (a) one corner against the
# rest and (b) the left half against the right half, $n$ even. For which $n$ does each criterion prefer the half? Check with code.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-corner
# :class: dropdown
# ```
# The grid has $2 n (n - 1)$ edges, so $\operatorname{vol}(V) = 4 n (n - 1)$. The corner severs 2 edges and has volume 2: $\operatorname{Ncut} = 1 + 2 / (4 n (n-1) - 2)$, always above 1. The halves sever $n$ edges and have volume
# $2 n (n - 1)$ each: $\operatorname{Ncut} = 2 n / (2 n (n - 1)) = 1 / (n - 1)$. The plain cut prefers the corner for all $n > 2$, the normalized cut prefers the half for all even $n \ge 2$ (for $n = 2$ they are 4/3 and 1).


# %% tags=["nbval-check-output"]
def grid(n):
    """Affinity of the n x n grid with 4 neighbours."""
    xy = torch.cartesian_prod(torch.arange(n), torch.arange(n)).double()
    return (torch.cdist(xy, xy, p=1).round() == 1).double()


for n in (2, 6, 10):
    G = grid(n)
    corner = torch.zeros(n, n, dtype=torch.float64)
    corner[0, 0] = 1
    halves = torch.zeros(n, n, dtype=torch.float64)
    halves[:, : n // 2] = 1
    pair = torch.stack([corner.ravel(), halves.ravel()])
    print(n, "cut", cut(G, pair).tolist(), " Ncut", *(f"{v:.4f}" for v in soft_ncut(G, pair)))

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Everything resembles everything
# :label: ex-complete
# ```
# Let $\tau$ be so low that all pairs are similar: $w_{ij} = 1$ for $i \ne j$. Find all eigenvalues with and without self-loops. What does a Fiedler vector of such a graph tell about the
# photograph, and what does {prf:ref}`thm-soft` say about training SEMPART on it?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-complete
# :class: dropdown
# ```
# With loops $W = 1 1^\top$ and $D = N I$, so $D^{-1} W$ has the eigenvalue 1 once and 0 otherwise: $\lambda = 0, 1, \dots, 1$. Without loops $W = 1 1^\top - I$ and $D = (N - 1) I$, so
# $\lambda = 0$ and then $1 + 1/(N - 1) = N / (N - 1)$. In both cases all other eigenvalues tie: every vector orthogonal to $1$ is a Fiedler vector, it tells nothing. For the soft loss, with loops $z^\top W z = 0$ for all
# admissible $z$: the loss is 1 everywhere and there is no gradient. Without loops $z^\top W z = -z^\top z < 0$: constants are the *minimum*, and the network is taught to stay undecided, which is the right answer.

# %% tags=["nbval-check-output"]
ones = torch.ones(6, 6, dtype=torch.float64)
for name, G in (("with loops", ones), ("without", ones - torch.eye(6, dtype=torch.float64))):
    print(
        f"{name:10s}",
        *(f"{abs(v):.3f}" for v in np.linalg.eigvalsh(affinity.normalized_laplacian(G).numpy())),
    )

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Leaving the saddle
# :label: ex-saddle
# ```
# Start gradient descent on the soft Ncut of the fourteen points at $S = \operatorname{sigmoid}(\ell)$ with $\ell$ a tiny random vector. Predict from {prf:ref}`thm-soft` which direction grows first, and check it. To what
# does the descent converge?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-saddle
# :class: dropdown
# ```
# Near a constant the loss is $1 - z^\top W z / (m (1-m) v)$ with $z \approx \tfrac14 (\ell - \text{mean})$. Its curvature along $y_k$ is proportional to $-(1 - \lambda_k)$ in the metric of $D$. Plain gradient descent uses the
# Euclidean metric instead, so the fastest direction is the leading eigenvector of $W$ on vectors with $z^\top D 1 = 0$, which is close to the Fiedler vector but equal to it only for equal degrees; dividing the
# gradient by the degrees makes it exact. After 60 such steps the cosine in the metric of $D$ is close to 1, and the end is the best split.

# %% tags=["nbval-check-output"]
logit = 1e-3 * torch.randn(len(W), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
for step in range(3001):
    logit.requires_grad_(True)
    (gradient,) = torch.autograd.grad(soft_ncut(W, torch.sigmoid(logit)), logit)
    logit = (logit - 20.0 * gradient / d).detach()
    if step in (0, 60):
        soft = torch.sigmoid(logit)
        z = soft - (soft @ d) / d.sum()
        cosine = abs(z @ D @ torch.as_tensor(y2)) / torch.sqrt(z @ D @ z)
        print(f"step {step:4d}: cosine with the Fiedler vector {cosine:.2f}")
soft = torch.sigmoid(logit)
same = bool(((soft > 0.5) == (best > 0.5)).all() or ((soft > 0.5) != (best > 0.5)).all())
print("the end is the best split:", same, "  loss", f"{soft_ncut(W, soft):.3f}")

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The price of a component
# :label: ex-eps
# ```
# Build two cliques of 20 and 60 nodes with self-loops, weight $\varepsilon$ between them, and check {eq}`eq-eps` for $\varepsilon = 10^{-2}, 10^{-4}, 10^{-6}$. Then add one isolated node. For which $\varepsilon$ is it
# separated first, with and without self-loops?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-eps
# :class: dropdown
# ```
# The bound is attained here for every $\varepsilon$: within each clique all nodes are alike, so the two-valued vector is an eigenvector. With self-loops the isolated node costs about $\varepsilon N$ and the cliques about $\varepsilon\, n_1 n_2 (1/n_1^2 + 1/n_2^2)$, which
# is $\varepsilon$ times a number near 3.3: both fall with $\varepsilon$, and cliques go first for every small $\varepsilon$, because volume grows with the square of size. The isolated node comes next, as $\lambda_3$; it goes first where the cliques touch by even one edge. Without self-loops it is not among the first at all.


# %% tags=["nbval-check-output"]
def cliques(*sizes, eps=0.0, loops=True):
    """Complete graphs of the given sizes with weight eps between them."""
    w = torch.block_diag(*(torch.ones(n, n, dtype=torch.float64) for n in sizes)).clamp_min(eps)
    return w if loops else w.fill_diagonal_(0.0)


for eps in (1e-2, 1e-4, 1e-6):
    G = cliques(20, 60, eps=eps)
    v1, v2 = affinity.degree(G)[:20].sum(), affinity.degree(G)[20:].sum()
    bound = eps * 20 * 60 * (1 / v1 + 1 / v2)
    print(f"eps {eps:.0e}: lambda_2 / bound = {float(spectral.fiedler(G).values) / bound:.4f}")
for loops in (True, False):
    for bridges in (0, 1):
        G = cliques(20, 60, 1, eps=1e-6, loops=loops)
        if bridges:
            G[0, 20] = G[20, 0] = 1.0
        v = spectral.fiedler(G).vectors[0]
        alone = bool((v[:-1] - v[-1]).abs().min() > 10 * (v[:-1].max() - v[:-1].min()))
        print("loops" if loops else "no loops", "| bridges", bridges, "| isolated node first:", alone)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The cockroach
# :label: ex-roach
# ```
# Two paths of 12 nodes lie side by side; the last 6 nodes of one are joined to the last 6 of the other by rungs. {cite:t}`guattery1998quality` call this graph the cockroach. Draw the Fiedler vector. Which edges does the cut
# at 0 sever, which the sweep? Why does this not contradict {prf:ref}`thm-cheeger`?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-roach
# :class: dropdown
# ```
# The vector has opposite signs on the two paths, so the cut at 0 goes lengthwise through all six rungs, at an Ncut several times that of the sweep, which cuts off one antenna by a single edge. The Cheeger inequality speaks of the best threshold
# and promises nothing for 0.

# %% tags=["nbval-check-output"]
n = 12
roach = torch.zeros(2 * n, 2 * n, dtype=torch.float64)
edges = [(r * n + i, r * n + i + 1) for r in (0, 1) for i in range(n - 1)]
edges += [(i, n + i) for i in range(n // 2, n)]
for i, j in edges:
    roach[i, j] = roach[j, i] = 1
lam_r, y_r = (q[0] for q in spectral.fiedler(roach))
_, along = sweep(roach, y_r)
zero_r = (y_r > 0).double()
print("opposite signs on the two paths:", bool(((y_r[:n] > 0) != (y_r[n:] > 0)).all()))
print(f"at 0: severs {cut(roach, zero_r):.0f} edges, Ncut {soft_ncut(roach, zero_r):.3f}")
print(f"best of the sweep: Ncut {along.min():.3f}   safety net {2 * np.sqrt(2 * float(lam_r)):.3f}")

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Which Laplacian?
# :label: ex-which-laplacian
# ```
# Find a graph for which the second eigenvector of $D - W$ and that of {eq}`eq-generalised` split the nodes differently, and explain it by what the two relaxations divide by. Which of the two did the
# authors of Differentiable Normalized Cuts print, and which is in their code?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-which-laplacian
# :class: dropdown
# ```
# $D - W$ relaxes the ratio cut $w(A, B) (1/|A| + 1/|B|)$, which counts nodes; a single node of small degree is then a cheap side. Move the straggler of the fourteen points a little further away and $D - W$ cuts it off. The paper prints the
# normalised matrix (its equation 6), the code takes $D - W$.

# %% tags=["nbval-check-output"]
further = points.clone()
further[-1, 1] += 1.0
W_far = gaussian(further, sigma=1.0)
plain = spectral.fiedler(W_far, laplacian="unnormalized").vectors[0]
for label_, v in (("D - W", plain), ("normalised", spectral.fiedler(W_far).vectors[0])):
    size = int((v > v.mean()).sum())
    print(f"{label_:10s} smaller side at the mean: {min(size, len(v) - size)} of {len(v)} nodes")

# %% [markdown]
# ```{solution-end}
# ```
#
# ## In one paragraph
#
# A split is a two-valued vector, its normalized cut is that vector's Rayleigh quotient, and the smallest quotient over all vectors, $\lambda_2$, bounds every split from below. Its eigenvector, swept, gives a split that is never
# worse than $2 \sqrt{2 \lambda_2}$ and mostly the best or nearly so. What can go wrong is in the graph (colour is not meaning; stray patches with self-loops; components), in the threshold, in ties, and in the missing
# notion of foreground. The next chapter changes the graph.

# %% tags=["remove-cell"]
notebook.save(
    [
        Record(
            "theory_cuts",
            name,
            "ncut",
            float(soft_ncut(W_photo, s)),
            n=1,
            dataset="coffee",
            params={"sigma_c": 0.2, "sigma_p": 0.3},
        )
        for name, s in cuts.items()
    ]
    + [
        Record(
            "theory_cuts",
            "lambda_2",
            "value",
            float(lam),
            n=1,
            dataset="coffee",
            params={"sigma_c": 0.2, "sigma_p": 0.3},
        )
    ]
)
