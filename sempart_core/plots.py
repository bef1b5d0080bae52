"""The book's pictures: one style, colours that survive colour blindness and a grey printer.

Importing this module needs no matplotlib; drawing does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .errors import SempartError

#: Okabe and Ito's colours in an order of falling darkness contrast, so that neighbours differ in grey too.
COLORS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#D55E00", "#56B4E9")
#: Curves differ by dash and marker as well as by colour.
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
#: Mask colour laid over photographs.
MASK = "#E69F00"
#: Sequential map, monotone in lightness; the diverging one is for signed vectors (eigenvectors).
SEQUENTIAL, DIVERGING = "cividis", "PuOr_r"


def style() -> None:
    """Set matplotlib up: no window, the same bytes for the same figure, readable at book width."""
    import os

    import matplotlib as mpl

    if not os.environ.get("MPLBACKEND") and "ipykernel" not in __import__("sys").modules:
        mpl.use("Agg")
    mpl.rcParams.update(mpl.rcParamsDefault | {"backend": mpl.rcParams["backend"]})
    mpl.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "savefig.bbox": "tight",
            "savefig.pad_inches": 0.05,
            "figure.facecolor": "white",
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "axes.prop_cycle": mpl.cycler(color=COLORS, linestyle=DASHES, marker=MARKERS),
            "lines.markersize": 5,
            "lines.linewidth": 1.6,
            "image.cmap": SEQUENTIAL,
            "image.interpolation": "nearest",
            "legend.frameon": False,
            "svg.hashsalt": "sempart",
        }
    )


def _array(x) -> np.ndarray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


def _picture(x) -> np.ndarray:
    """``3 x H x W`` or ``H x W x 3`` float in [0, 1] or uint8 -> ``H x W x 3`` float; 2-d stays 2-d."""
    x = _array(x)
    if x.ndim == 3 and x.shape[0] in (3, 4) and x.shape[-1] not in (3, 4):
        x = np.moveaxis(x, 0, -1)
    return x / 255.0 if x.dtype == np.uint8 and x.ndim == 3 else x


def overlay(image, mask, color: str = MASK, alpha: float = 0.5) -> np.ndarray:
    """The image with a tinted mask and a white-on-black outline.

    Parameters
    ----------
    image : array
        ``H x W x 3`` or ``3 x H x W``, uint8 or float in [0, 1].
    mask : array
        ``H x W`` bool, or float in [0, 1] (above .5 is the mask).

    Returns
    -------
    ndarray
        ``H x W x 3`` float in [0, 1].
    """
    import matplotlib.colors
    from scipy import ndimage

    picture, inside = _picture(image).astype(float).copy(), _array(mask).astype(float) > 0.5
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    if picture.shape[:2] != inside.shape:
        raise SempartError(
            f"mask {inside.shape} and image {picture.shape[:2]} differ in size; resize one first"
        )
    tint = np.asarray(matplotlib.colors.to_rgb(color))
    picture[inside] = (1 - alpha) * picture[inside] + alpha * tint
    picture[ndimage.binary_dilation(inside, iterations=2) & ~inside] = 0.0
    picture[inside & ~ndimage.binary_erosion(inside, border_value=1)] = 1.0
    return picture


def mask_grid(
    rows: Sequence[Sequence],
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    notes: Mapping[tuple[int, int], str] | None = None,
    boxes: Mapping[tuple[int, int], Sequence] | None = None,
    width: float = 8.0,
):
    """A grid of pictures: photographs, masks over photographs, soft maps, eigenvectors.

    Parameters
    ----------
    rows : sequence of sequences
        Each cell: an image (3-d), a 2-d map (bool: black and white; signed: diverging map around 0;
        else: sequential), a pair ``(image, mask)`` to overlay, or ``None`` for an empty cell.
    columns, labels : sequences of str
        Titles above the columns, labels left of the rows.
    notes : dict
        ``(row, column) -> text`` under a cell, e.g. its IoU.
    boxes : dict
        ``(row, column) -> (x_min, y_min, x_max, y_max)`` or several of them, in pixels, 0-based,
        right and bottom exclusive.
    width : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.patches
    import matplotlib.pyplot as plt

    n = max(len(r) for r in rows)
    side = width / n
    fig, axes = plt.subplots(
        len(rows), n, figsize=(width, side * len(rows) * 1.08), squeeze=False, layout="constrained"
    )
    for i, row in enumerate(rows):
        for j in range(n):
            ax, cell = axes[i, j], row[j] if j < len(row) else None
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if isinstance(cell, tuple):
                ax.imshow(overlay(*cell))
            elif cell is not None:
                _show(ax, _picture(cell))
            if i == 0 and j < len(columns):
                ax.set_title(columns[j])
            if j == 0 and i < len(labels):
                ax.set_ylabel(labels[i])
            if notes and (i, j) in notes:
                ax.set_xlabel(notes[i, j], fontsize=8)
            for x0, y0, x1, y1 in np.reshape((boxes or {}).get((i, j), []), (-1, 4)):
                for color, line in (("black", 3.0), ("white", 1.2)):
                    ax.add_patch(
                        matplotlib.patches.Rectangle(
                            (x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=color, lw=line
                        )
                    )
    return fig


def _show(ax, x: np.ndarray) -> None:
    if x.ndim == 3:
        ax.imshow(np.clip(x, 0, 1))
    elif x.dtype == bool:
        ax.imshow(x, cmap="gray", vmin=0, vmax=1)
    elif np.nanmin(x) < 0 < np.nanmax(x):
        top = np.nanmax(np.abs(x))
        ax.imshow(x, cmap=DIVERGING, vmin=-top, vmax=top)
    else:
        ax.imshow(x, cmap=SEQUENTIAL)


def curves(
    series: Mapping[str, tuple],
    xlabel: str,
    ylabel: str,
    *,
    bands: Mapping[str, tuple] | None = None,
    logx: bool = False,
    logy: bool = False,
    size: tuple[float, float] = (6.0, 3.6),
):
    """Lines named in a legend, told apart by colour, dash and marker.

    Parameters
    ----------
    series : dict
        ``name -> (x, y)``.
    bands : dict
        ``name -> (low, high)``, an interval around the line of that name.
    size : (float, float)
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=size, layout="constrained")
    for name, (x, y) in series.items():
        (line,) = ax.plot(_array(x), _array(y), label=name)
        if bands and name in bands:
            low, high = map(_array, bands[name])
            ax.fill_between(_array(x), low, high, color=line.get_color(), alpha=0.18, lw=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_xscale("log" if logx else "linear")
    ax.set_yscale("log" if logy else "linear")
    ax.grid(True, color="0.9", lw=0.8)
    ax.set_axisbelow(True)
    if len(series) > 1:
        ax.legend()
    return fig


#: Names of a training log's terms in a plot.
TERMS = {
    "total": "total loss",
    "ncut": "expected Ncut",
    "gtv_coarse": "GTV-coarse",
    "gtv_fine": "GTV-fine",
    "sr": "super-resolution",
    "target": "refined target",
    "ncut_crop": "expected Ncut of the window",
    "eq": "consistency, fine",
    "eq_coarse": "consistency, coarse",
    "decided": "mean of |S - 1/2|",
}


def training_curves(log: Sequence[Mapping[str, float]], width: float = 9.0):
    """The terms of a training by epoch, on its photographs and on those held out.

    Parameters
    ----------
    log : sequence of dict
        Rows of :class:`~sempart_core.train.TrainResult`. A term that an epoch lacks leaves a gap.
    width : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        Made without a window, so that a training in a notebook shows nothing by itself.
    """
    from matplotlib.figure import Figure

    shown = [k for k in TERMS if any(k in row for row in log)]
    if not shown:
        raise SempartError("the log holds no term of a training; give the rows of a TrainResult")
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    fig = Figure(figsize=(width, 2.2 * rows), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    epochs = [row["epoch"] for row in log]
    # Solid circles against dashed squares: told apart without colour as well.
    for prefix, name, color, line, marker in (
        ("", "training", COLORS[0], "-", "o"),
        ("held_out_", "held out", COLORS[5], "--", "s"),
    ):
        for ax, key in zip(axes, shown, strict=False):
            y = [row.get(prefix + key, np.nan) for row in log]
            ax.plot(epochs, y, label=name, color=color, linestyle=line, marker=marker, markersize=3)
            ax.set_title(TERMS[key])
            ax.grid(True, color="0.9", lw=0.8)
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(shown) - columns) : len(shown)]:
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.tick_params(labelbottom=True)
    axes[0].legend(fontsize=8, frameon=False)
    return fig


def heatmap(
    values,
    xticks: Sequence[str] = (),
    yticks: Sequence[str] = (),
    xlabel: str = "",
    ylabel: str = "",
    *,
    fmt: str = ".2f",
    annotate: bool | None = None,
    size: tuple[float, float] | None = None,
):
    """A matrix as colours, with its numbers printed where there are at most 200 of them.

    Parameters
    ----------
    values : array
        ``rows x columns``; NaN cells stay empty.
    fmt : str
        Format of the printed numbers.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt

    v = _array(values).astype(float)
    h, w = v.shape
    fig, ax = plt.subplots(figsize=size or (1.6 + 0.6 * w, 1.0 + 0.42 * h), layout="constrained")
    shown = ax.imshow(v, cmap=SEQUENTIAL, aspect="auto")
    ax.spines[:].set_visible(False)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(xticks):
        ax.set_xticks(range(w), xticks)
    if len(yticks):
        ax.set_yticks(range(h), yticks)
    fig.colorbar(shown, ax=ax, fraction=0.05, pad=0.02)
    if annotate if annotate is not None else v.size <= 200:
        middle = (np.nanmin(v) + np.nanmax(v)) / 2
        for (i, j), x in np.ndenumerate(v):
            if np.isfinite(x):
                ax.text(
                    j, i, format(x, fmt), ha="center", va="center", color="white" if x < middle else "black"
                )
    return fig
