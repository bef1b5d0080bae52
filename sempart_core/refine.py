"""Refinement of a soft mask by the colours of its photograph, one interface for all filters."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .bilateral import VARIANTS, Sigmas, bilateral_solver, sigmas_of
from .binarise import BINARISERS, keep_if_close
from .errors import SempartError
from .guided import guided_filter, to_guide
from .registry import Card, Registry

REFINERS = Registry("refinement")


def refine(name: str, soft: Tensor, images: Tensor, **params) -> Tensor:
    """Refine soft masks.

    Parameters
    ----------
    name : str
        A name in :data:`REFINERS`.
    soft : Tensor
        ``B x h x w`` in [0, 1]. A coarser mask is first enlarged bilinearly to the size of the images.
    images : Tensor
        ``B x 3 x H x W`` RGB in [0, 1], not normalised by the backbone's mean.
    **params
        Parameters of the filter, see its function.

    Returns
    -------
    Tensor
        ``B x H x W`` in [0, 1], type and device of ``soft``; differentiable for ``none`` and ``guided``.

    Raises
    ------
    SempartError
        Unknown filter or parameter, shapes that do not fit, or values that are not finite.
    """
    function = REFINERS[name]
    known = list(inspect.signature(function).parameters)[2:]
    if unknown := set(params) - set(known):
        raise SempartError(
            f"refinement {name!r} has no parameter {sorted(unknown)[0]!r}; it has: {', '.join(known) or 'none'}"
        )
    if soft.ndim != 3 or images.ndim != 4 or len(soft) != len(images) or images.shape[1] != 3:
        raise SempartError(
            f"soft {tuple(soft.shape)} and images {tuple(images.shape)} must be B x h x w and B x 3 x H x W"
        )
    if not torch.isfinite(soft).all():
        raise SempartError("the soft mask holds NaN or infinity; look at the method before refining it")
    if soft.shape[-2:] != images.shape[-2:]:
        soft = F.interpolate(soft[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return function(soft, images, **params)


@REFINERS.register(Card("none", "leaves the mask as it is", cost="0"))
def none(soft: Tensor, images: Tensor) -> Tensor:
    """The mask itself."""
    return soft


@REFINERS.register(
    Card(
        "guided",
        "guided filter, differentiable",
        "He, Sun, Tang 2013; radius 9, eps 1e-3, mean of RGB: Two Tricks code",
        cost="a few box filters",
    )
)
def guided(
    soft: Tensor,
    images: Tensor,
    radius: int = 9,
    eps: float = 1e-3,
    guide: str = "mean",
    clamp: bool = True,
    subsample: int = 1,
) -> Tensor:
    """Guided filter; parameters as :func:`sempart_core.guided.guided_filter`.

    ``guide`` is ``"mean"``, ``"luminance"`` or ``"color"``. The filter overshoots slightly; ``clamp=False``
    keeps that, as Two Tricks' evaluation does (a threshold inside (0, 1) sees no difference).
    """
    out = guided_filter(to_guide(images, guide), soft[:, None], radius, eps, subsample)[:, 0]
    return out.clamp(0, 1) if clamp else out


@REFINERS.register(
    Card(
        "bilateral",
        "fast bilateral solver",
        "Barron and Poole 2016; as in TokenCut (sigmas 16/16/8), protocols 1.5",
        cost="one sparse linear system a photograph",
        extra={"sigmas": list(VARIANTS), "binarise": list(BINARISERS)},
    )
)
def bilateral(
    soft: Tensor,
    images: Tensor,
    sigmas: str | Sigmas | tuple[float, float, float] = "tokencut",
    binarise: str | None = None,
    keep_close: bool = False,
    iterations: int = 25,
    subsample: int = 1,
) -> Tensor:
    """Fast bilateral solver on the 8-bit photograph.

    Parameters
    ----------
    sigmas : str, Sigmas or (spatial, luma, chroma)
        ``"tokencut"`` (16/16/8) or ``"default"`` (24/4/4, segmentation-tricks).
    binarise : str, optional
        A rule of :data:`sempart_core.binarise.BINARISERS`, giving 0 and 1; by default the soft output,
        which is what TokenCut's metric sees.
    keep_close : bool
        With ``binarise``: FOUND's safeguard, the mask from before where the two have IoU of at most .5.
    iterations : int
        Of conjugate gradients.
    subsample : int
        Solve at ``1 / subsample`` of the size (means over blocks, the spatial sigma shrinks along) and enlarge
        the soft answer bilinearly; ours.
    """
    if keep_close and binarise is None:
        raise SempartError("keep_close compares binary masks: name a rule with binarise=")
    rule = BINARISERS[binarise] if binarise else None
    sigmas = sigmas_of(sigmas)
    size = soft.shape[-2:]
    if isinstance(subsample, bool) or not isinstance(subsample, int) or not 1 <= subsample <= min(size):
        raise SempartError(f"subsample={subsample!r}: give a whole number from 1 to the shorter side")
    if subsample > 1:
        if rule is not None:
            raise SempartError("subsample enlarges a soft mask: leave binarise out, or use subsample=1")
        small = [-(-n // subsample) for n in size]
        soft = F.interpolate(soft.detach()[:, None], small, mode="area")[:, 0]
        images = F.interpolate(images, small, mode="area")
        sigmas = Sigmas(sigmas.spatial / subsample, sigmas.luma, sigmas.chroma)
    out = []
    for before, image in zip(soft.detach().cpu().double().numpy(), eight_bit(images), strict=True):
        after = bilateral_solver(image, before, sigmas, iterations=iterations)
        if rule is not None:
            after = rule(after, before)
            after = keep_if_close(before, after)[0] if keep_close else after.astype(np.float64)
        out.append(np.clip(after, 0, 1))
    out = torch.from_numpy(np.stack(out)).to(soft)
    if subsample > 1:
        out = F.interpolate(out[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return out


@REFINERS.register(
    Card(
        "crf",
        "fully connected conditional random field",
        "Kraehenbuehl and Koltun 2011; parameters of Deep Spectral's code, which are pydensecrf's own",
        cost="five mean field steps a photograph; compiled extra: pip install sempart[crf]",
    )
)
def crf(
    soft: Tensor,
    images: Tensor,
    w1: float = 10,
    alpha: float = 80,
    beta: float = 13,
    w2: float = 3,
    gamma: float = 3,
    iterations: int = 5,
    floor: float = 1e-5,
) -> Tensor:
    """Dense CRF by ``pydensecrf``: an appearance kernel and a smoothness kernel over all pairs of pixels.

    Parameters
    ----------
    w1, alpha, beta : float
        Weight of the appearance kernel, its width in pixels and in grey levels. Deep Spectral's paper
        says "default settings"; its code passes 10, 80, 13, 3, 3 and 5 iterations (protocols, 1.3).
    w2, gamma : float
        Weight of the smoothness kernel and its width in pixels.
    iterations : int
        Mean field steps.
    floor : float
        Probabilities are kept this far from 0 and 1, so that no pixel's cost is infinite.
    """
    try:
        import pydensecrf.densecrf as dcrf
    except ImportError as e:
        raise SempartError("the dense CRF is not installed; run: pip install 'sempart[crf]'") from e
    out = []
    for p, image in zip(soft.detach().cpu().double().numpy(), eight_bit(images), strict=True):
        p = np.clip(p, floor, 1 - floor)
        model = dcrf.DenseCRF2D(p.shape[1], p.shape[0], 2)
        model.setUnaryEnergy(-np.log(np.stack([1 - p, p])).reshape(2, -1).astype(np.float32))
        model.addPairwiseGaussian(sxy=gamma, compat=w2)
        model.addPairwiseBilateral(sxy=alpha, srgb=beta, rgbim=image, compat=w1)
        out.append(np.asarray(model.inference(iterations))[1].reshape(p.shape))
    return torch.from_numpy(np.stack(out)).to(soft).clamp(0, 1)


def eight_bit(images: Tensor) -> np.ndarray:
    """``B x 3 x H x W`` in [0, 1] -> ``B x H x W x 3`` uint8, contiguous."""
    scaled = (images.detach().cpu().clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).numpy())
