"""What a notebook needs to talk to the book, without depending on Sphinx: start, glue, save.

The four names of the ``parameters`` cell become a :class:`sempart_core.profiles.Profile`; figures and
numbers are stored in the notebook under a name that the book's ``glue`` directives ask for; result rows
go to ``book/results``, except in the smoke profile, where they are checked and dropped.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import profiles
from .errors import SempartError
from .records import Record, write_rows

#: PNG bytes above which a figure is stored with a palette of 256 colours: a third of the size.
PALETTE_ABOVE = 100_000


@dataclass
class _Session:
    profile: profiles.Profile | None = None
    name: str = ""


_session = _Session()


def start(
    profile: str = "demo",
    data_root: str = "",
    device: str = "auto",
    seed: int = 0,
    *,
    name: str = "",
    **changes,
) -> profiles.Profile:
    """Validate the parameters cell, seed all generators, set the plotting style.

    Parameters
    ----------
    profile, data_root, device, seed
        The four names of the ``parameters`` cell.
    name : str
        The notebook's file name without suffix; the row's ``notebook`` field. Default: what
        ``book/tools/nb.py`` put into ``SEMPART_NOTEBOOK``.
    **changes
        Single keys of the profile that this notebook needs otherwise (``limit=20``).

    Raises
    ------
    SempartError
        Unknown profile or key, missing ``data_root``, a seed that is not a non-negative integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise SempartError(f"seed {seed!r} is not an integer between 0 and 2**32 - 1; give e.g. seed = 0")
    chosen = profiles.load(profile, data_root=data_root, device=device, seed=seed, **changes)
    _session.profile, _session.name = chosen, name or os.environ.get("SEMPART_NOTEBOOK", "")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that we call still read the global generator
    import torch

    torch.manual_seed(seed)
    try:
        from . import plots

        plots.style()
    except ModuleNotFoundError as e:
        if e.name != "matplotlib":
            raise
    return chosen


def figure_png(fig, **savefig) -> bytes:
    """PNG bytes of a matplotlib figure: equal for equal figures, no version or date inside.

    Figures with photographs are stored with a palette once they exceed :data:`PALETTE_ABOVE` bytes.
    """
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", metadata={"Software": None}, **savefig)
    data = buffer.getvalue()
    if len(data) <= PALETTE_ABOVE:
        return data
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        dpi = image.info.get("dpi")
        small = image.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True, **({"dpi": dpi} if dpi else {}))
    return min(data, out.getvalue(), key=len)


def glue(name: str, value: object) -> None:
    """Store ``value`` for the ``glue`` roles and directives of the book, in the format of MyST-NB.

    A matplotlib figure is also shown in Jupyter (tag its cell ``remove-cell`` or ``remove-output`` and
    show it in the book with ``{glue:figure}``) and closed. Other values are stored unseen. Outside
    Jupyter nothing happens, so that ``python notebooks/x.py`` runs.

    Parameters
    ----------
    name : str
        Unique in the book, e.g. ``fig-eigenvectors``.
    value : object
        Figure, number (numpy and torch scalars become Python numbers), text.
    """
    is_figure = hasattr(value, "savefig") and hasattr(value, "axes")
    png = figure_png(value) if is_figure else b""
    if is_figure:
        import matplotlib.pyplot as plt

        plt.close(value)
    elif hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()  # np.float64(0.25) would be stored as its repr and not format as a number
    if getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)() is None:
        return
    from IPython.core.formatters import format_display_data
    from IPython.display import display

    if is_figure:
        prefix, meta = "", {}
        data = {"image/png": base64.b64encode(png).decode(), "text/plain": f"<figure {name}>"}
    else:
        prefix = "application/papermill.record/"
        data, meta = format_display_data(value)
    meta["scrapbook"] = {"name": name, "mime_prefix": prefix}
    display({prefix + k: v for k, v in data.items()}, raw=True, metadata=meta)


def save(rows: Sequence[Record]) -> None:
    """Write rows under this notebook's name and profile; in the smoke profile only check them.

    Raises
    ------
    SempartError
        ``start`` was not called or has no name, a row carries another notebook or profile, or two rows
        share an address.
    """
    profile, name = _session.profile, _session.name
    if profile is None:
        raise SempartError(
            "save(rows) before start(...): call notebook.start in the cell after the parameters"
        )
    if not name:
        raise SempartError(
            "rows need their notebook's name: call notebook.start(..., name='30_first_methods')"
        )
    done = []
    for r in rows:
        if r.notebook not in ("", name):
            raise SempartError(
                f"row {r.row!r} says notebook {r.notebook!r}, but this is {name!r}; leave it out"
            )
        if r.profile not in ("demo", profile.name):  # "demo" is the field's default
            raise SempartError(f"row {r.row!r} says profile {r.profile!r}, but this run is {profile.name!r}")
        done.append(dataclasses.replace(r, notebook=name, profile=profile.name))
    if profile.write:
        write_rows(done)
        return
    with tempfile.TemporaryDirectory() as scratch:
        write_rows(done, scratch)
