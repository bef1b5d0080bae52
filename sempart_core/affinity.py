"""From features or colours to a weighted graph: affinities, degrees, Laplacians and the value of a cut.

Everything here is a pure function of tensors. ``W`` is always ``... x N x N``, symmetric and
non-negative; its rows follow the grid row-major.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy import sparse
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F

from .errors import SempartError


def _features(x: Tensor, name: str = "x") -> Tensor:
    if not isinstance(x, Tensor):
        x = torch.as_tensor(x)
    if x.ndim not in (2, 3) or not x.is_floating_point():
        raise SempartError(
            f"{name} has shape {tuple(x.shape)} and type {x.dtype}: give floats of shape B x N x D or N x D"
        )
    if not torch.isfinite(x).all():
        raise SempartError(f"{name} holds NaN or infinity: check the image and the backbone's precision")
    return x


def _gram(x: Tensor, normalise: bool) -> Tensor:
    """Gram matrix at single precision or better: half precision moves similarities across tau."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if normalise:
        x = F.normalize(x, dim=-1)
    return x @ x.mT


def checked_tau(tau: float) -> float:
    """``tau`` if it can part cosines: finite, ``-1 <= tau < 1``.

    Raises
    ------
    SempartError
        It is not; no edge exceeds 1, and every one exceeds what lies below -1.
    """
    if not -1 <= tau < 1:  # false for NaN
        raise SempartError(f"tau={tau}: the threshold of a cosine lies in [-1, 1); give such a number")
    return tau


def threshold_affinity(
    x: Tensor,
    tau: float = 0.2,
    eps: float = 1e-5,
    self_loops: bool = True,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Binary graph of TokenCut: weight 1 where the cosine exceeds ``tau``, ``eps`` elsewhere.

    Parameters
    ----------
    x : Tensor
        ``B x N x D`` (or ``N x D``) features; rows are L2-normalised here. A zero row has cosine 0.
    tau : float
        Threshold of the cosine, compared with strict ``>`` at the precision of ``x`` (as TokenCut
        does: the Gram matrix stays float32 even where the weights become float64).
    eps : float
        Weight of a missing edge; keeps the graph connected.
    self_loops : bool
        Keep ``W_ii = 1`` (TokenCut, Two Tricks' code); False sets the diagonal to 0 (SEMPART section 3).
    dtype : torch.dtype, optional
        Type of the weights; that of ``x`` (at least float32) if not given.

    Returns
    -------
    Tensor
        ``B x N x N`` (``N x N``) weights in ``{eps, 1}``.

    Raises
    ------
    SempartError
        Wrong shape, NaN or infinity, ``eps`` outside [0, 1), or ``tau`` outside [-1, 1).

    Notes
    -----
    Source: TokenCut equation 5 of its paper; protocols 1.1 and 1.4.
    """
    x = _features(x)
    checked_tau(tau)
    if not 0 <= eps < 1:
        raise SempartError(f"eps={eps}: the weight of a missing edge lies in [0, 1)")
    gram = _gram(x, normalise=True)
    dtype = dtype or gram.dtype
    # In place and without a second N x N array where the types allow: page faults cost more than sums.
    W = gram.gt_(tau) if dtype == gram.dtype else (gram > tau).to(dtype)
    # BLAS may round (i, j) and (j, i) differently, which the threshold turns from 1e-8 into 1: such an edge
    # exists. Counts of rows and columns tell (exactly, in float32) and cost less than a transposed copy.
    if not torch.equal(W.sum(-1), W.sum(-2)):
        W = torch.maximum(W, W.mT)
    W.clamp_(min=eps)
    if not self_loops:
        W.diagonal(dim1=-2, dim2=-1).zero_()
    return W


def cosine_affinity(x: Tensor, normalise: bool = True, divide_by_max: bool = False) -> Tensor:
    """Similarity clipped at zero, Deep Spectral equation 2.

    Parameters
    ----------
    x : Tensor
        ``B x N x D`` or ``N x D`` features.
    normalise : bool
        Cosine (True) or plain inner product (False: LOST, DeepCut).
    divide_by_max : bool
        Divide each graph by its largest weight, as Deep Spectral's code does (protocols 1.3). It changes
        no normalised cut, only the weight of a colour term added later.

    Returns
    -------
    Tensor
        ``B x N x N`` or ``N x N``, ``>= 0``.

    Raises
    ------
    SempartError
        Wrong shape, NaN or infinity, or no positive weight to divide by.
    """
    W = _gram(_features(x), normalise).clamp_(min=0)
    if divide_by_max:
        top = W.amax(dim=(-2, -1), keepdim=True)
        if (top <= 0).any():
            raise SempartError("all features are zero, so the affinity has no maximum: check the image")
        W = W / top
    return W


#: Neighbour sets of the two colour terms: (number of neighbours, weight of the position).
#: "code" is Deep Spectral's own (protocols 1.3); "paper" is its equation 1 with KNN matting's usual pair.
KNN = {"code": ((20, 2.0), (10, 0.1)), "paper": ((20, 2.0), (10, 0.1))}


def knn_color_affinity(
    image: np.ndarray | Tensor,
    grid: tuple[int, int],
    variant: Literal["code", "paper"] = "code",
) -> Tensor:
    """Nearest neighbours in colour and position as a graph, the colour term of Deep Spectral.

    Parameters
    ----------
    image : array or Tensor
        ``H x W x 3`` RGB in [0, 1]. If it is larger than ``grid`` it is averaged down to it.
    grid : (int, int)
        ``(h, w)`` of the graph's nodes.
    variant : "code" or "paper"
        ``"code"``: RGB and position, every edge weighs 1. ``"paper"``: ``cos(hue), sin(hue), S, V`` and
        position, an edge weighs ``1 - ||psi(u) - psi(v)||`` and never less than 0. Both take the
        neighbours of :data:`KNN` (the point itself is its own first neighbour) and add every edge in
        both directions; the paper does not print its numbers of neighbours, so the code's are used.

    Returns
    -------
    Tensor
        ``N x N`` float32 with ``N = h * w``, symmetric and ``>= 0``.

    Raises
    ------
    SempartError
        Wrong shape or range, NaN, or an unknown variant.

    Notes
    -----
    Source: Deep Spectral equation 1 and protocols 1.3. The reference for the neighbours is pymatting.
    """
    if variant not in KNN:
        raise SempartError(f"unknown colour variant {variant!r}; choose one of: {', '.join(KNN)}")
    rgb = _on_grid(image, grid)
    h, w = grid
    n = h * w
    pixels = rgb.reshape(n, 3)
    xy = np.stack([np.tile(np.linspace(0, 1, w), h), np.repeat(np.linspace(0, 1, h), w)], axis=1)
    colour = pixels if variant == "code" else _hue_on_a_circle(pixels)
    total = sparse.csr_matrix((n, n))
    for k, weight in KNN[variant]:
        k = min(k, n)
        psi = np.concatenate([colour, weight * xy], axis=1, dtype=np.float32)
        distance, j = cKDTree(psi).query(psi, k=k)
        distance, j = distance.reshape(n, k), j.reshape(n, k)
        value = np.ones_like(distance) if variant == "code" else np.maximum(1 - distance, 0)
        edges = sparse.coo_matrix((value.ravel(), (np.repeat(np.arange(n), k), j.ravel())), (n, n)).tocsr()
        total = total + edges + edges.T
    return torch.from_numpy(total.toarray().astype(np.float32))


def _on_grid(image: np.ndarray | Tensor, grid: tuple[int, int]) -> np.ndarray:
    rgb = image if isinstance(image, Tensor) else torch.as_tensor(np.asarray(image))
    if rgb.ndim != 3 or rgb.shape[-1] != 3:
        raise SempartError(f"image has shape {tuple(rgb.shape)}: give H x W x 3")
    rgb = rgb.detach().cpu().to(torch.float64)
    if not torch.isfinite(rgb).all() or rgb.min() < -1e-4 or rgb.max() > 1 + 1e-4:
        raise SempartError("image must hold finite RGB values in [0, 1]: divide 8-bit pixels by 255")
    if tuple(rgb.shape[:2]) != tuple(grid):
        rgb = F.interpolate(
            rgb.permute(2, 0, 1)[None], tuple(grid), mode="bilinear", align_corners=False, antialias=True
        )[0].permute(1, 2, 0)
    return rgb.numpy()


def _hue_on_a_circle(rgb: np.ndarray) -> np.ndarray:
    """``N x 3`` RGB to ``N x 4``: cos and sin of the hue, saturation, value. Grey has hue 0."""
    from skimage.color import rgb2hsv

    hsv = rgb2hsv(np.clip(rgb, 0, 1)[None])[0]
    angle = 2 * np.pi * hsv[:, 0]
    return np.stack([np.cos(angle), np.sin(angle), hsv[:, 1], hsv[:, 2]], axis=1)


def combined_affinity(
    x: Tensor,
    grid: tuple[int, int],
    image: np.ndarray | Tensor | None = None,
    color_grid: tuple[int, int] | None = None,
    lambda_knn: float = 10.0,
    variant: Literal["code", "paper"] = "code",
) -> Tensor:
    """``W = W_feat + lambda_knn W_knn``, Deep Spectral equation 3, for one image.

    Parameters
    ----------
    x : Tensor
        ``N x D`` features on ``grid``.
    grid : (int, int)
        ``(h, w)`` with ``h * w == N``.
    image : array or Tensor, optional
        ``H x W x 3`` RGB in [0, 1]; not needed where ``lambda_knn`` is 0.
    color_grid : (int, int), optional
        Finer grid of the result; the normalised features are brought to it bilinearly.
    lambda_knn : float
        Weight of the colour term. The paper ablates 10; its command line defaults to 0 (protocols 1.3).
    variant : "code" or "paper"
        See :func:`knn_color_affinity`; the feature term of ``"code"`` is divided by its maximum.

    Returns
    -------
    Tensor
        ``M x M`` with ``M`` the number of nodes of ``color_grid`` (or of ``grid``).

    Raises
    ------
    SempartError
        Features that do not fit the grid, a missing image, a negative weight, and as the two terms.
    """
    x = _features(x)
    if x.ndim != 2 or x.shape[0] != grid[0] * grid[1]:
        raise SempartError(f"x has shape {tuple(x.shape)}: give N x D with N = {grid[0]} x {grid[1]}")
    if lambda_knn < 0:
        raise SempartError(f"lambda_knn={lambda_knn}: the weight of the colour term is not negative")
    color_grid = tuple(color_grid or grid)
    x = F.normalize(x.float() if x.dtype.itemsize < 4 else x, dim=-1)
    if color_grid != tuple(grid):
        maps = x.T.reshape(1, -1, *grid)
        x = F.interpolate(maps, color_grid, mode="bilinear", align_corners=False)[0].flatten(1).T
    # Interpolated features are not normalised again: neither paper nor code does.
    W = cosine_affinity(x, normalise=False, divide_by_max=variant == "code")
    if lambda_knn:
        if image is None:
            raise SempartError("lambda_knn > 0 needs image: the pixels of the colour term")
        W = W + lambda_knn * knn_color_affinity(image, color_grid, variant).to(W)
    return W


def degree(W: Tensor) -> Tensor:
    """Row sums ``... x N`` of ``W``, self-loops included."""
    return W.sum(-1)


def laplacian(W: Tensor) -> Tensor:
    """``D - W``, ``... x N x N``; self-loops cancel on its diagonal."""
    return torch.diag_embed(degree(W)) - W


def normalized_laplacian(W: Tensor) -> Tensor:
    """``I - D^-1/2 W D^-1/2``, ``... x N x N``, eigenvalues in [0, 2]; SempartError at a node without edges."""
    d = degree(W)
    if (d <= 0).any():
        raise SempartError("a node has no edges: keep self-loops, raise eps or lower tau")
    s = d.rsqrt()
    eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    return eye - s[..., :, None] * W * s[..., None, :]


def ncut_value(W: Tensor, mask: Tensor) -> Tensor:
    """Normalized cut of a bipartition, in [0, 2]: cut/assoc(A) + cut/assoc(B).

    Parameters
    ----------
    W : Tensor
        ``B x N x N`` or ``N x N``.
    mask : Tensor
        ``B x N`` or ``N``; True, or a soft membership in [0, 1], for the first side.

    Returns
    -------
    Tensor
        ``B`` (or a scalar). A side without any weight makes it 1: nothing is separated from all.

    Raises
    ------
    SempartError
        Shapes that do not fit.

    Notes
    -----
    Source: SEMPART equation 3 (Shi and Malik's normalized cut, linear in soft memberships).
    """
    if mask.shape != W.shape[:-1]:
        raise SempartError(f"mask of shape {tuple(mask.shape)} does not fit W of shape {tuple(W.shape)}")
    m = mask.to(W.dtype)
    d = degree(W)
    inside = (m * (W @ m[..., None])[..., 0]).sum(-1)
    volume = (m * d).sum(-1)
    cut = volume - inside
    rest = d.sum(-1) - volume
    safe = torch.finfo(W.dtype).tiny
    one = torch.where(volume > 0, cut / volume.clamp_min(safe), torch.zeros_like(cut))
    two = torch.where(rest > 0, cut / rest.clamp_min(safe), torch.zeros_like(cut))
    return torch.where((volume > 0) & (rest > 0), one + two, torch.ones_like(cut))
