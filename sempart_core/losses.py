"""What SEMPART minimises: expected normalized cut, graph total variation and guided super-resolution.

All losses take soft masks ``S`` in [0, 1] (after the sigmoid, never logits) and return one value per image;
:class:`~sempart_core.objective.Objective` averages them over the batch and adds them up (equation 7).
Everything is computed in float32 or better, also under autocast. The only ``B x N x N`` array is the
affinity that the caller passes in.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .affinity import checked_tau
from .errors import SempartError
from .refine import refine

#: Neighbours ahead of a pixel, ``(rows, columns)``: each edge of the grid is listed once.
OFFSETS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}
REDUCTIONS = ("sum", "mean")
POOLS = ("average", "bilinear")
BORDERS = ("open", "reflect")


def one_of(value, name: str, known) -> None:
    """Raise SempartError unless ``value`` is one of the ``known``."""
    if value not in known:
        raise SempartError(f"unknown {name} {value!r}; choose one of: {', '.join(map(str, known))}")


def _single(t: Tensor) -> Tensor:
    """At least float32: sums of thousands of weights and ``1 - S`` near 1 need the digits."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) or not t.is_floating_point() else t


def _soft(S: Tensor, name: str, ndim: int) -> Tensor:
    if S.ndim != ndim or 0 in S.shape or not S.is_floating_point():
        shape = {2: "B x N", 3: "B x H x W"}[ndim]
        raise SempartError(
            f"{name} has shape {tuple(S.shape)} and type {S.dtype}: give a soft mask {shape}, none of them 0"
        )
    low, high = torch.aminmax(S.detach())
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise SempartError(
            f"{name} lies in [{low:.3g}, {high:.3g}] instead of [0, 1]: pass the mask after its sigmoid; "
            f"if it is NaN, lower the learning rate or train without mixed precision"
        )
    return _single(S)


def ncut_loss(S: Tensor, W: Tensor, self_loops: bool = True, clamp: float = 0.0) -> Tensor:
    """Expected normalized cut of a soft bipartition, SEMPART equation 4.

    Parameters
    ----------
    S : Tensor
        ``B x N`` in [0, 1]: the probability of each node to lie on the first side.
    W : Tensor
        ``B x N x N`` (or ``N x N``, shared by the batch), symmetric and ``>= 0``; no gradient is needed.
    self_loops : bool
        False ignores the diagonal of ``W`` (SEMPART section 4.1) without copying it.
    clamp : float
        Keep ``S`` in ``[clamp, 1 - clamp]``; no gradient beyond. The public re-implementation has 1e-6.

    Returns
    -------
    Tensor
        ``B`` values in [0, 2], differentiable in ``S``. Any constant ``S`` gives 1 and no gradient (up to
        rounding): a network that collapses to one grey stays there. A side without weight gives 1 too.

    Raises
    ------
    SempartError
        Shapes that do not fit, ``S`` outside [0, 1] or NaN, or ``clamp`` outside [0, 0.5).

    Notes
    -----
    With ``T = 1 - S`` and ``d`` the degrees, ``S'WT / S'd + T'WS / T'd``; both numerators are equal, so one
    product with ``W`` suffices.
    """
    S = _soft(S, "S", 2)
    if W.shape[-2:] != (S.shape[1],) * 2 or (W.ndim != 2 and W.shape[:-2] != S.shape[:1]):
        raise SempartError(f"W of shape {tuple(W.shape)} does not fit S of shape {tuple(S.shape)}: B x N x N")
    if not 0 <= clamp < 0.5:
        raise SempartError(f"clamp={clamp}: the distance kept from 0 and 1 lies in [0, 0.5)")
    with torch.autocast(S.device.type, enabled=False):  # a matmul in half precision would lose the cut
        W = _single(W)
        S = S.to(W.dtype) if W.dtype == torch.float64 else S
        W = W.to(S.dtype)
        if clamp:
            S = S.clamp(clamp, 1 - clamp)
        T = 1 - S
        across, d = (W @ T[..., None])[..., 0], W.sum(-1)
        if not self_loops:
            loops = W.diagonal(dim1=-2, dim2=-1)
            across, d = across - loops * T, d - loops
        cut = (S * across).sum(-1)
        one, two = (S * d).sum(-1), (T * d).sum(-1)
        filled = [torch.where(side > 0, side, torch.ones_like(side)) for side in (one, two)]
        # 0 of 0 is 1, the limit of constant masks: as 0, a saturated mask would look like a perfect cut.
        return sum(
            torch.where(side > 0, cut / safe, 1.0) for side, safe in zip((one, two), filled, strict=True)
        )


def token_weights(
    x: Tensor, grid: tuple[int, int], neighbours: int = 4, tau: float = 0.0, eps: float = 1e-6
) -> tuple[Tensor, ...]:
    """Weights between adjacent patches, the ``A`` of GTV-coarse: ``W_ij`` where i and j touch, else nothing.

    Parameters
    ----------
    x : Tensor
        ``B x N x D`` features, row-major over ``grid``; normalised here. Half precision becomes float32.
    grid : (int, int)
        ``(h, w)`` with ``h * w == N``.
    neighbours : 4 or 8
    tau, eps : float
        Weight 1 where the cosine exceeds ``tau``, else ``eps``. SEMPART section 4.1: 0 and 1e-6.

    Returns
    -------
    tuple of Tensor
        One ``B x (h - dy) x (w - |dx|)`` tensor per offset of :data:`OFFSETS`; no ``N x N`` array is made.

    Raises
    ------
    SempartError
        Shapes that do not fit, an unknown neighbourhood, ``tau`` outside [-1, 1) or ``eps`` outside [0, 1).
    """
    one_of(neighbours, "neighbours", OFFSETS)
    checked_tau(tau)
    h, w = grid
    if x.ndim != 3 or x.shape[1] != h * w:
        raise SempartError(f"x has shape {tuple(x.shape)}: give B x N x D with N = {h} x {w}")
    if not 0 <= eps < 1:
        raise SempartError(f"eps={eps}: the weight of a missing edge lies in [0, 1)")
    x = F.normalize(_single(x), dim=-1).unflatten(1, (h, w))
    pairs = (_ends(x, dy, dx) for dy, dx in OFFSETS[neighbours])
    return tuple(((a * b).sum(-1) > tau).to(x.dtype).clamp_min(eps) for a, b in pairs)


def colour_weights(
    images: Tensor, neighbours: int = 4, sigma: float = 1.0, std: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> tuple[Tensor, ...]:
    """Weights between adjacent pixels, the ``A`` of GTV-fine: ``exp(-||X_i - X_j||^2 / sigma)``.

    Parameters
    ----------
    images : Tensor
        ``B x 3 x H x W`` RGB in [0, 1].
    neighbours : 4 or 8
    sigma : float
        Width, in squared units of ``X``; 1 in SEMPART section 4.1.
    std : (float, float, float)
        Each channel is divided by this first: the backbone's deviations give differences of the normalised
        image (its means cancel), as in the public re-implementation (protocols 1.4).

    Returns
    -------
    tuple of Tensor
        One ``B x (H - dy) x (W - |dx|)`` tensor in (0, 1] per offset of :data:`OFFSETS`.

    Raises
    ------
    SempartError
        Not ``B x 3 x H x W``, an unknown neighbourhood, or ``sigma`` or ``std`` not positive.
    """
    one_of(neighbours, "neighbours", OFFSETS)
    if images.ndim != 4 or images.shape[1] != len(std):
        raise SempartError(f"images have shape {tuple(images.shape)}: give B x {len(std)} x H x W")
    if sigma <= 0 or min(std) <= 0:
        raise SempartError(f"sigma={sigma}, std={std}: widths of colours are positive")
    x = (_single(images) / images.new_tensor(std, dtype=_single(images).dtype)[:, None, None]).permute(
        0, 2, 3, 1
    )
    pairs = (_ends(x, dy, dx) for dy, dx in OFFSETS[neighbours])
    return tuple((-(a - b).square().sum(-1) / sigma).exp() for a, b in pairs)


def _ends(x: Tensor, dy: int, dx: int) -> tuple[Tensor, Tensor]:
    """Both ends of all edges with this offset, views of ``B x h x w (x D)``."""
    h, w = x.shape[1:3]
    left, right = max(-dx, 0), max(dx, 0)
    return x[:, : h - dy, left : w - right], x[:, dy:, right : w - left]


def _multiplicity(h: int, w: int, dy: int, dx: int, border: str, like: Tensor) -> Tensor:
    """How often an edge counts when each pixel looks at all its neighbours, ``(h - dy) x (w - |dx|)``.

    Twice, once from each end. With a reflected border a pixel on the border sees the neighbour inside
    once more in place of the missing one outside.
    """
    looks = []
    for n, step in ((h, dy), (w, dx)):
        once = torch.ones(n, dtype=like.dtype, device=like.device)
        if step and border == "reflect":
            once[0] += 1
            once[-1] += 1
        looks.append(once)
    sees = looks[0][:, None] * looks[1]
    a, b = _ends(sees[None], dy, dx)
    return (a + b)[0]


def graph_tv(
    S: Tensor,
    A: tuple[Tensor, ...],
    reduction: str = "sum",
    half: bool = True,
    border: str = "open",
) -> Tensor:
    """Graph total variation, SEMPART equation 6: ``1/2 sum over edges (i, j) of A_ij (s_i - s_j)^2``.

    Parameters
    ----------
    S : Tensor
        ``B x H x W`` in [0, 1].
    A : tuple of Tensor
        Weights of the edges from :func:`token_weights` or :func:`colour_weights`: two tensors connect 4
        neighbours, four tensors 8.
    reduction : "sum" or "mean"
        Over the edges of one image, each counted from both ends. Sum is the paper's, mean the public code's.
    half : bool
        The 1/2 of equation 6; with the sum it gives the quadratic form ``s'Ls`` of the graph's Laplacian.
    border : "open" or "reflect"
        ``"reflect"``: a pixel on the border sees its neighbour inside twice, as reflection padding does
        (public code).

    Returns
    -------
    Tensor
        ``B`` values ``>= 0``; 0 for a constant mask. Linear in ``A``.

    Raises
    ------
    SempartError
        ``S`` outside [0, 1] or NaN, weights of another size, unknown options, or a mask without edges.
    """
    S = _soft(S, "S", 3)
    one_of(reduction, "reduction", REDUCTIONS)
    one_of(border, "border", BORDERS)
    h, w = S.shape[1:]
    offsets = OFFSETS.get(2 * len(A))
    if offsets is None or min(h, w) < 2:
        raise SempartError(
            f"{len(A)} sets of weights on a {h} x {w} mask: give 2 or 4 of them, and 2 x 2 pixels or more"
        )
    total, count = 0, 0
    for (dy, dx), a in zip(offsets, A, strict=True):
        one, two = _ends(S, dy, dx)
        if a.shape[1:] != one.shape[1:] or len(a) not in (1, len(S)):
            raise SempartError(
                f"weights of shape {tuple(a.shape)} do not fit a mask of shape {tuple(S.shape)}: "
                f"compute them on an image or grid of the mask's size"
            )
        times = _multiplicity(h, w, dy, dx, border, S)
        total = total + (times * a * (one - two).square()).sum((1, 2))
        count = count + times.sum()
    return total * (0.5 if half else 1) / (count if reduction == "mean" else 1)


def super_resolution_loss(
    fine: Tensor, coarse: Tensor, pool: str = "average", reduction: str = "sum"
) -> Tensor:
    """Squared distance of the pooled fine mask to the coarse one, SEMPART equation 5.

    Parameters
    ----------
    fine : Tensor
        ``B x H x W`` in [0, 1].
    coarse : Tensor
        ``B x h x w`` in [0, 1]; gradients reach both masks. Detach one to train only the other.
    pool : "average" or "bilinear"
        The mean of all pixels of a patch (paper), or bilinear sampling without antialiasing, which is the
        mean of the four central pixels of an even patch (public re-implementation).
    reduction : "sum" or "mean"
        Over patches: the paper's squared norm, or the public code's mean square.

    Returns
    -------
    Tensor
        ``B`` values ``>= 0``.

    Raises
    ------
    SempartError
        Masks outside [0, 1] or NaN, batches that differ, a fine mask smaller than the coarse one, or
        unknown options.
    """
    fine, coarse = _soft(fine, "fine", 3), _soft(coarse, "coarse", 3)
    one_of(pool, "pool", POOLS)
    one_of(reduction, "reduction", REDUCTIONS)
    size = coarse.shape[1:]
    if len(fine) != len(coarse) or fine.shape[1] < size[0] or fine.shape[2] < size[1]:
        raise SempartError(
            f"fine {tuple(fine.shape)} does not refine coarse {tuple(coarse.shape)}: give as many, no smaller"
        )
    if pool == "average":
        pooled = F.adaptive_avg_pool2d(fine[:, None], size)[:, 0]
    else:
        pooled = F.interpolate(fine[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    square = (pooled - coarse).square()
    return square.sum((1, 2)) if reduction == "sum" else square.mean((1, 2))


def refined_target_loss(fine: Tensor, coarse: Tensor, images: Tensor, name: str, **params) -> Tensor:
    """Mean squared distance of the fine mask to the coarse one after an edge-aware filter; ours.

    The network learns to do in one pass what the filter does to one photograph (``bilateral``: SEMPART
    table 1, +BF). The filtered mask is a constant: gradients reach the fine mask only.

    Parameters
    ----------
    fine : Tensor
        ``B x H x W`` in [0, 1].
    coarse : Tensor
        ``B x h x w`` in [0, 1], enlarged bilinearly before it is filtered.
    images : Tensor
        ``B x 3 x H x W`` RGB in [0, 1].
    name : str
        A name in :data:`sempart_core.refine.REFINERS`.
    **params
        Of the filter. Widths in pixels belong to the size of ``images``, not to the photograph's.

    Returns
    -------
    Tensor
        ``B`` values in [0, 1].

    Raises
    ------
    SempartError
        Masks outside [0, 1] or NaN, batches or sizes that differ, or an unknown filter.
    """
    fine, coarse = _soft(fine, "fine", 3), _soft(coarse, "coarse", 3)
    if fine.shape[0] != coarse.shape[0] or fine.shape[1:] != images.shape[2:]:
        raise SempartError(
            f"fine {tuple(fine.shape)}, coarse {tuple(coarse.shape)} and images {tuple(images.shape)}: give "
            f"B x H x W, B x h x w and B x 3 x H x W"
        )
    target = refine(name, coarse.detach(), _single(images).detach(), **params).clamp(0, 1)
    return (fine - target).square().mean((1, 2))
