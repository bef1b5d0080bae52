"""Mask consistency: two views of one place have one normalized cut (Differentiable NCut, sections 3.3 and 3.4).

Masks are soft, ``sigmoid(z / temperature)`` of the Fiedler vector. Its sign is arbitrary, so the second mask or
its complement is the target, whichever overlaps more; pairs that overlap too little give no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import SempartError
from .losses import one_of
from .ncut_layer import ncut_eigenvector
from .spectral import LAPLACIANS

#: ``code``: the first mask is the prediction, the second a constant target, the usual order. ``printed``: equation
#: 10 to the letter, where the first mask is the target, through which alone the gradient flows.
ORDERS = ("code", "printed")
#: ``means``: halves at the mean foreground and background of the mask. ``binary``: halves of 0 and 1 (figure 3).
TEMPLATES = ("means", "binary")
#: What two views have in common: the mask, or each pixel's feature (the baseline of table 5).
CONSISTENCIES = ("mask", "pixel")
#: Temperatures of the softmax over channels of prediction and target in the pixel baseline: DINO's.
PIXEL_TEMPERATURES = (0.1, 0.04)
#: The terms of structural regularisation, by the pattern they keep off.
PATTERNS = ("horizontal", "vertical", "uniform")


@dataclass(frozen=True)
class MaskConsistency:
    """The loss of a pair of views as data; calling it gives the terms of one direction.

    Parameters
    ----------
    laplacian : str
        ``unnormalized`` (public code) or ``normalized`` (equation 6).
    tau, floor : float
        Products of features above ``tau`` are edges, all others weigh ``floor``.
    solver : str
        Of :func:`~sempart_core.ncut_layer.ncut_eigenvector`.
    temperature : float
        Of the sigmoid; entries of a unit vector over ``N`` patches are about ``N ** -.5``.
    order, templates, consistency : str
        See :data:`ORDERS`, :data:`TEMPLATES`, :data:`CONSISTENCIES`.
    min_iou : float
        Pairs below it are left out.
    lower, enough : float, int
        While fewer than ``enough`` pairs remain, ``min_iou`` is lowered by ``lower``. The public code asks for
        20 whatever the batch, and never ends on fewer; here half of the batch is always enough.
    alpha_horizontal, alpha_vertical, alpha_uniform : float
        Weights of the regularisation, of which a positive one keeps masks off that pattern.
    source : str
        Where the values were read.
    """

    laplacian: str = "unnormalized"
    tau: float = 0.0
    floor: float = 1e-6
    solver: str = "iterative"
    temperature: float = 0.05
    order: str = "code"
    templates: str = "means"
    consistency: str = "mask"
    min_iou: float = 0.5
    lower: float = 0.05
    enough: int = 20
    alpha_horizontal: float = 0.05
    alpha_vertical: float = 0.05
    alpha_uniform: float = 0.05
    source: str = ""

    def __post_init__(self) -> None:
        for name, known in (
            ("laplacian", LAPLACIANS),
            ("solver", ("iterative", "closed")),
            ("order", ORDERS),
            ("templates", TEMPLATES),
            ("consistency", CONSISTENCIES),
        ):
            one_of(getattr(self, name), name, known)
        if not all(0 < v < float("inf") for v in (self.temperature, self.floor, self.lower)):
            raise SempartError(
                "temperature, floor and lower are positive numbers; the public code has .05, 1e-6, .05"
            )
        if not 0 <= self.tau < float("inf"):
            raise SempartError(
                f"tau={self.tau}: a weight is not negative; give a number from 0 on, as the code's 0"
            )
        if not 0 <= self.min_iou <= 1:
            raise SempartError(f"min_iou={self.min_iou}: an IoU lies in [0, 1]; the paper has .5")
        for name in ("alpha_horizontal", "alpha_vertical", "alpha_uniform"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SempartError(
                    f"{name}={getattr(self, name)}: the weight of a term is a number not below 0"
                )

    @staticmethod
    def preset(name: str, **changes) -> MaskConsistency:
        """A preset of :data:`CONSISTENCY_PRESETS` with some values changed; ``alpha`` sets all three weights."""
        one_of(name, "objective", CONSISTENCY_PRESETS)
        if "alpha" in changes:
            alpha = changes.pop("alpha")
            changes = {f"alpha_{p}": alpha for p in PATTERNS} | changes
        known = [f.name for f in fields(MaskConsistency)]
        if unknown := set(changes) - set(known):
            raise SempartError(
                f"the objective has no {sorted(unknown)[0]!r}; it has: alpha, {', '.join(known)}"
            )
        return replace(CONSISTENCY_PRESETS[name], **changes)

    def graph(self, f: Tensor) -> Tensor:
        """``B x N x N`` weights of ``B x N x D`` features, whose length counts: RoIAlign shortens unit vectors."""
        A = f @ f.mT
        return torch.where(A > self.tau, A, self.floor)

    def vectors(self, f: Tensor, degenerate: str = "warn") -> Tensor:
        """``B x N`` Fiedler vectors of ``B x h x w x D`` or ``B x N x D`` features."""
        W = self.graph(f.flatten(1, -2))
        return ncut_eigenvector(W, laplacian=self.laplacian, solver=self.solver, degenerate=degenerate)

    def __call__(self, z1: Tensor, z2: Tensor, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Terms of one direction: the gradient reaches ``z1`` only.

        Parameters
        ----------
        z1, z2 : Tensor
            ``B x N`` Fiedler vectors of the overlap in both views.
        grid : (int, int)
            ``(h, w)`` with ``h * w == N``.

        Returns
        -------
        dict
            Scalars: ``"mask"`` (mean over the pairs selected), ``"horizontal"``, ``"vertical"``, ``"uniform"``
            (binary cross-entropies, means over all pairs) and ``"total"``, from which the last three are taken
            off. Without gradient: ``"selected"`` (share), ``"iou"`` (mean over all pairs) and ``"min_iou"`` as
            it was used; ``"m1"``, ``"m2"`` (``B x h x w``, of which the second is the target).
        """
        if z1.shape != z2.shape or z1.ndim != 2 or z1.shape[1] != grid[0] * grid[1]:
            raise SempartError(
                f"z1 {tuple(z1.shape)} and z2 {tuple(z2.shape)} do not fit a grid of {grid[0]} x {grid[1]}"
            )
        m1, m2 = (torch.sigmoid(z / self.temperature) for z in (z1, z2.detach()))
        target, iou = same_side(m1.detach(), m2)
        used, chosen = self.select(iou)
        pair = cross_entropy(target, m1) if self.order == "code" else cross_entropy(m1, target)
        out = {"mask": (pair * chosen).sum() / chosen.sum().clamp(min=1)}
        total = out["mask"]
        for name in PATTERNS:
            out[name] = self.pattern(m1, grid, name).mean()
            total = total - getattr(self, f"alpha_{name}") * out[name]
        h, w = grid
        return {
            **out,
            "total": total,
            "selected": chosen.float().mean(),
            "iou": iou.mean(),
            "min_iou": m1.new_tensor(used),
            "m1": m1.detach().reshape(-1, h, w),
            "m2": target.reshape(-1, h, w),
        }

    def select(self, iou: Tensor) -> tuple[float, Tensor]:
        """The threshold after it was lowered, and which of ``B`` pairs exceed it."""
        need = min(self.enough, (len(iou) + 1) // 2)
        threshold, chosen = self.min_iou, iou > self.min_iou
        while chosen.sum() < need and threshold >= 0:  # below 0 every pair is chosen
            threshold -= self.lower
            chosen = iou > threshold
        return threshold, chosen

    def pattern(self, m: Tensor, grid: tuple[int, int], name: str) -> Tensor:
        """``B`` cross-entropies of masks ``B x N`` to the nearer polarity of a template."""
        fore = m.detach() > 0.5
        if self.templates == "means":
            low, high = (masked_mean(m.detach(), side)[:, None] for side in (~fore, fore))
            grey = m.detach().mean(1, keepdim=True).expand_as(m)
        else:
            low, high = m.new_zeros(len(m), 1), m.new_ones(len(m), 1)
            grey = torch.full_like(m, 0.5)
        if name == "uniform":
            return cross_entropy(grey, m)
        first = half_mask(grid, name, m.device).flatten()
        return torch.minimum(
            cross_entropy(torch.where(first, high, low), m), cross_entropy(torch.where(first, low, high), m)
        )

    def pixels(self, f1: Tensor, f2: Tensor) -> Tensor:
        """Cross-entropy of the softmax over channels, position by position: the baseline of table 5.

        ``B x h x w x D`` each; the gradient reaches ``f1`` only. Section 4.5 names the loss and no
        temperature, hence :data:`PIXEL_TEMPERATURES`.
        """
        t1, t2 = PIXEL_TEMPERATURES
        return -((f2.detach() / t2).softmax(-1) * (f1 / t1).log_softmax(-1)).sum(-1).mean()


def cross_entropy(a: Tensor, b: Tensor) -> Tensor:
    """``B`` means of ``-a log b - (1 - a) log(1 - b)`` over ``B x N``: equation 9, its arguments in its order.

    A vector that lives on one patch saturates the sigmoid; torch keeps logarithms above -100 and gradients finite.
    """
    return F.binary_cross_entropy(b, a, reduction="none").mean(1)


def same_side(m1: Tensor, m2: Tensor) -> tuple[Tensor, Tensor]:
    """``m2`` or ``1 - m2``, whichever overlaps ``m1`` more, and its IoU: ``B x N``, ``B``."""
    plain, other = binary_iou(m1 > 0.5, m2 > 0.5), binary_iou(m1 > 0.5, 1 - m2 > 0.5)
    keep = plain > other
    return torch.where(keep[:, None], m2, 1 - m2), torch.where(keep, plain, other)


def binary_iou(a: Tensor, b: Tensor) -> Tensor:
    """``B`` intersections over unions of bool masks ``B x N``; 0 where both are empty."""
    return (a & b).sum(1) / (a | b).sum(1).clamp(min=1)


def masked_mean(m: Tensor, where: Tensor) -> Tensor:
    """``B`` means over the true entries of each row, 0 where there are none."""
    return (m * where).sum(1) / where.sum(1).clamp(min=1)


def half_mask(grid: tuple[int, int], name: str, device: torch.device | None = None) -> Tensor:
    """``h x w`` bool: the upper half (``horizontal``: the edge runs so) or the left half (``vertical``)."""
    one_of(name, "pattern", PATTERNS[:2])
    out = torch.zeros(grid, dtype=torch.bool, device=device)
    if name == "horizontal":
        out[: grid[0] // 2] = True
    else:
        out[:, : grid[1] // 2] = True
    return out


def pair_loss(
    objective: MaskConsistency, views: tuple[Tensor, Tensor, Tensor, Tensor], degenerate: str = "warn"
) -> dict[str, Tensor]:
    """Both directions of one batch of pairs.

    Parameters
    ----------
    views : tuple of Tensor
        ``q1, p1, q2, p2``, each ``B x h x w x D``: predictor's and projector's features of the overlap in the
        first and the second view.

    Returns
    -------
    dict
        As :meth:`MaskConsistency.__call__`: ``total`` is the sum of both directions, all else their mean, and
        ``m1``, ``m2`` are those of the first direction.
    """
    q1, p1, q2, p2 = views
    grid, B = tuple(q1.shape[1:3]), len(q1)
    # One batch of graphs: those that give a gradient first, since the spectrum of the others needs none.
    moving = objective.vectors(torch.cat([q1, q2]), degenerate)
    with torch.no_grad():
        still = objective.vectors(torch.cat([p2, p1]), degenerate)
    both = [objective(moving[:B], still[:B], grid), objective(moving[B:], still[B:], grid)]
    if objective.consistency == "pixel":
        for terms, (f1, f2) in zip(both, ((q1, p2), (q2, p1)), strict=True):
            terms["total"] = terms["mask"] = objective.pixels(f1, f2)
    out = {k: (both[0][k] + both[1][k]) / 2 for k in both[0] if k not in ("total", "m1", "m2")}
    return {**out, "total": both[0]["total"] + both[1]["total"], "m1": both[0]["m1"], "m2": both[0]["m2"]}


#: Objectives by name.
CONSISTENCY_PRESETS = {
    "code": MaskConsistency(source="DiffNCuts, network/eigen_pred_iou.py (protocols 1.9)"),
    # The paper prints neither how z becomes a mask nor the sign rule, the floor, or the polarity of a template. Its
    # equation 11 takes the logarithm of the template, infinite for one of 0 and 1: here that of the mask is taken.
    "paper": MaskConsistency(
        laplacian="normalized",
        order="printed",
        templates="binary",
        source="Differentiable NCut, equations 6, 9, 10, 12, and 11 with its arguments swapped; the rest as in the code",
    ),
}
