"""Shapes of SEMPART's network, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from ..errors import SempartError


@dataclass(frozen=True)
class SempartConfig:
    """Shape of a :class:`~sempart_core.models.sempart.Sempart` network.

    Parameters
    ----------
    dim : int
        Length of a backbone feature.
    patch : int
        Side of a patch in pixels; with ``steps`` not given it decides how often the refiner doubles.
    width : int
        Length of a token in the encoder.
    depth, heads, dim_head, mlp : int
        Encoder layers, attention heads, their length, and hidden units of the perceptron. The paper prints
        only depth 1 and 2 heads.
    cls : bool
        A learned token among the patches (figure 6), dropped before both branches.
    final_norm : bool
        A LayerNorm after the last layer, as in a ViT.
    blocks : tuple of int
        Output channels of the refiner's blocks; the last number holds for all further ones.
    steps : int, optional
        Upsampling steps; the smallest number of doublings that reaches ``patch`` if not given: 3 for 8, 4
        for 14 and 16. One more block without upsampling follows the last.
    normalise : bool
        The photograph enters with the backbone's mean and deviation removed. The papers do not say.
    source : str
        Where the values were read.
    """

    dim: int = 384
    patch: int = 8
    width: int = 64
    depth: int = 1
    heads: int = 2
    dim_head: int = 32
    mlp: int = 256
    cls: bool = True
    final_norm: bool = True
    blocks: tuple[int, ...] = (192, 128)
    steps: int | None = None
    normalise: bool = True
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        whole = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "int"}
        whole |= {f"blocks[{i}]": b for i, b in enumerate(self.blocks)}
        if self.steps is not None:
            whole["steps"] = self.steps
        for name, value in whole.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SempartError(f"{name}={value!r}: give a whole number of at least 1")
        if not self.blocks:
            raise SempartError("blocks is empty: the refiner needs the channels of one block at least")

    @property
    def doublings(self) -> int:
        """Upsampling steps of the refiner."""
        return self.steps or max(1, math.ceil(math.log2(self.patch)))

    @staticmethod
    def preset(name: str, **changes) -> SempartConfig:
        """A preset of :data:`CONFIGS` with some values changed; SempartError for unknown names."""
        if name not in CONFIGS:
            raise SempartError(f"unknown configuration {name!r}; choose one of: {', '.join(CONFIGS)}")
        return CONFIGS[name].change(**changes)

    def change(self, **changes) -> SempartConfig:
        """The same with some values changed; SempartError names a value that does not exist."""
        known = [f.name for f in fields(self)]
        if unknown := set(changes) - set(known):
            raise SempartError(f"the network has no {sorted(unknown)[0]!r}; it has: {', '.join(known)}")
        return replace(self, **changes)


#: Networks by name. ``paper`` leaves 320 pixels a 40 x 40 grid of ViT-S/8; what it does not print follows the
#: ViT it cites: heads of ``width / heads``, a perceptron four times as wide, a norm at the end.
CONFIGS = {
    "paper": SempartConfig(source="SEMPART section 3.2, appendices B and C"),
    "sempart_star": SempartConfig(
        depth=2,
        dim_head=64,
        mlp=64,
        cls=False,
        final_norm=False,
        source="segmentation-tricks segmenter_model.py, protocols 1.4",
    ),
    "compact": SempartConfig(blocks=(64, 32, 16, 16), source="ours: the paper's with a refiner for a CPU"),
}
