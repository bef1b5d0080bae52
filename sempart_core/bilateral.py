"""Fast bilateral solver (Barron and Poole 2016): smooth a mask in a coarse grid of place and colour.

Every pixel falls into a cell of a five-dimensional grid (x, y, luma, two chromas). The solver looks for
cell values that are close to the mask's and vary little between neighbouring cells, a sparse linear
system a thousand times smaller than the image, and reads them back at the pixels.

The numbers follow the one implementation that TokenCut, FOUND, MOVE and segmentation-tricks share
(protocols, 1.5), from its description; SciPy's ``cg`` lost the ``tol`` argument they call it with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

from .errors import SempartError

#: JPEG's YCbCr; luma, then the two chromas shifted by 128.
RGB_TO_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=np.float64
)
YUV_OFFSET = np.array([0.0, 128.0, 128.0])


@dataclass(frozen=True)
class Sigmas:
    """Side of a grid cell: in pixels, in luma and in chroma levels (0..255)."""

    spatial: float
    luma: float
    chroma: float


#: What the callers of the shared implementation pass.
VARIANTS = {
    "tokencut": Sigmas(16, 16, 8),  # TokenCut, FOUND, MOVE
    "default": Sigmas(24, 4, 4),  # segmentation-tricks, which passes none
}


class Grid:
    """The occupied cells of the bilateral grid of one image.

    Parameters
    ----------
    image : ``H x W x 3`` uint8, or float in 0..255
    sigmas : Sigmas

    Attributes
    ----------
    cell : ``H * W`` int, the cell of every pixel
    n : number of occupied cells
    neighbours : ``n x n`` sparse, 1 between cells that differ by one step in one dimension
    Dn, Dm : ``n`` float, the diagonals that make the blur doubly stochastic
    """

    DIMENSIONS = 5

    def __init__(self, image: np.ndarray, sigmas: Sigmas) -> None:
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3:
            raise SempartError(f"image of shape {image.shape}: the bilateral solver needs H x W x 3")
        if min(sigmas.spatial, sigmas.luma, sigmas.chroma) <= 0:
            raise SempartError(f"{sigmas}: all three must be positive")
        self.shape = image.shape[:2]
        # tensordot, not sums of products: neutral grey lies exactly on the edge of a chroma cell, and
        # another order of rounding moves 2.6 % of one test image's pixels (protocols, 1.5).
        yuv = np.tensordot(image, RGB_TO_YUV, ([2], [1])) + YUV_OFFSET
        y, x = np.indices(self.shape)
        scale = (sigmas.spatial, sigmas.spatial, sigmas.luma, sigmas.chroma, sigmas.chroma)
        steps = [
            (c / s).astype(np.int64).ravel()
            for c, s in zip((x, y, *yuv.transpose(2, 0, 1)), scale, strict=True)
        ]
        # One integer per cell; two spare digits in each dimension keep neighbours of border cells distinct.
        key, radix, weight = np.zeros(image.shape[0] * image.shape[1], np.int64), [], 1
        for s in steps:
            radix.append(weight)
            key += (s + 1) * weight
            weight *= int(s.max()) + 3
        cells, self.cell = np.unique(key, return_inverse=True)
        self.n = len(cells)
        ones, links = np.ones(self.n), []
        for step in radix:
            at = np.minimum(np.searchsorted(cells, cells + step), self.n - 1)
            here = np.flatnonzero(cells[at] == cells + step)
            links.append(sparse.csr_matrix((ones[here], (here, at[here])), (self.n, self.n)))
        up = sum(links)
        self.neighbours = (up + up.T).tocsr()
        self.Dn, self.Dm = self._bistochastize()

    def splat(self, values: np.ndarray) -> np.ndarray:
        """Sum pixel values into their cells: ``H * W -> n``."""
        return np.bincount(self.cell, values, self.n)

    def slice(self, values: np.ndarray) -> np.ndarray:
        """Read cell values at the pixels: ``n -> H x W``."""
        return values[self.cell].reshape(self.shape)

    def blur(self, values: np.ndarray) -> np.ndarray:
        """The kernel (1, 2, 1) along each dimension, summed over dimensions: ``n -> n``."""
        return 2 * self.DIMENSIONS * values + self.neighbours @ values

    def _bistochastize(self, iterations: int = 10) -> tuple[np.ndarray, np.ndarray]:
        m = self.splat(np.ones(self.cell.size))
        n = np.ones(self.n)
        for _ in range(iterations):
            n = np.sqrt(n * m / self.blur(n))
        return n, n * self.blur(n)  # m follows n, converged or not

    def solve(
        self,
        target: np.ndarray,
        *,
        lam: float = 256.0,
        confidence: float = 0.999,
        iterations: int = 25,
        tol: float = 1e-5,
    ) -> np.ndarray:
        """Smooth a mask over the grid.

        Parameters
        ----------
        target : ``H x W`` in [0, 1]
        lam : float
            Weight of smoothness against faithfulness.
        confidence : float
            Weight of every pixel of the target.
        iterations, tol
            Conjugate gradients stop at either; 25 steps rarely converge, and the result depends on it.

        Returns
        -------
        ``H x W`` float64, in [0, 1] up to rounding for a target in [0, 1] that is solved exactly.

        Raises
        ------
        SempartError
            The target has another size than the image, or holds NaN.
        """
        target = np.asarray(target, np.float64)
        if target.shape != self.shape or not np.isfinite(target).all():
            raise SempartError(
                f"mask {target.shape} must be finite and of the image's size {self.shape}: resize it first"
            )
        blur = sparse.diags(np.full(self.n, 2.0 * self.DIMENSIONS)) + self.neighbours
        Dn = sparse.diags(self.Dn)
        weight = self.splat(np.full(self.cell.size, confidence))
        A = (lam * (sparse.diags(self.Dm) - Dn @ blur @ Dn) + sparse.diags(weight)).tocsr()
        b = self.splat(target.ravel() * confidence)
        jacobi = sparse.diags(1 / np.maximum(A.diagonal(), 1e-5))
        y, _ = cg(A, b, x0=b / weight, M=jacobi, maxiter=iterations, rtol=tol, atol=0.0)
        return self.slice(y)


def sigmas_of(sigmas: str | Sigmas | tuple[float, float, float]) -> Sigmas:
    """By name in :data:`VARIANTS`, or from three numbers; SempartError for an unknown name."""
    if isinstance(sigmas, str):
        if sigmas not in VARIANTS:
            raise SempartError(f"sigmas {sigmas!r} are unknown; choose one of: {', '.join(VARIANTS)}")
        return VARIANTS[sigmas]
    return Sigmas(*sigmas) if isinstance(sigmas, tuple | list) else sigmas


def bilateral_solver(
    image: np.ndarray, target: np.ndarray, sigmas: Sigmas | str = "tokencut", **options
) -> np.ndarray:
    """Smooth ``target`` (``H x W``) along ``image`` (``H x W x 3``, 0..255); options as :meth:`Grid.solve`.

    ``sigmas`` is a :class:`Sigmas` or a name in :data:`VARIANTS`.
    """
    sigmas = sigmas_of(sigmas)
    return Grid(image, sigmas).solve(target, **options)
