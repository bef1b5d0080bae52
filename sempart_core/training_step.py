"""One batch of a training: masks of the branches that train, their loss, and what the log says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import TrainingError
from .models import Masks
from .multiscale import Zoomed
from .objective import Objective

#: What is trained: ``joint`` is the paper; ``coarse`` the coarse branch alone; ``detached`` both, but the
#: losses of the fine mask do not reach the encoder and the coarse branch (SEMPART table 4, figure 7b);
#: ``fine`` the fine mask directly, its means over patches in the place of the coarse mask (figure 7c).
BRANCHES = ("joint", "coarse", "detached", "fine")
#: A mask whose values span less than this is constant: no threshold that survives an epoch splits it.
CONSTANT = 0.05


class Meter:
    """Means over photographs of what a batch says."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.n = 0

    def add(self, terms: dict[str, Tensor], coarse: Tensor) -> None:
        """Enter the terms (means over the batch) and the ``B x h x w`` masks of one batch."""
        S = coarse.detach().flatten(1)
        said = {k: v.item() for k, v in terms.items()}
        said["constant"] = ((S.amax(1) - S.amin(1)) < CONSTANT).float().mean().item()
        said["decided"] = (S - 0.5).abs().mean().item()
        for k, v in said.items():
            self.sums[k] = self.sums.get(k, 0.0) + v * len(S)
        self.n += len(S)

    def means(self, over: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """By name, over all photographs entered; ``over`` adds up what several processes entered."""
        said = torch.tensor([*self.sums.values(), self.n], dtype=torch.float64)
        *sums, n = (said if over is None else over(said)).tolist()
        return {k: v / n for k, v in zip(self.sums, sums, strict=True)}


class Pass(nn.Module):
    """One forward pass of student and teacher, which are one network (Two Tricks, section 4).

    They are one module because processes that share their gradients expect one forward pass a step. The teacher
    runs in training mode too: the refiner normalises the windows by their own batch, and they enter its running
    statistics, as in the public code.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        x: Tensor,
        images: Tensor | None,
        grid: tuple[int, int],
        detach: bool = False,
        zoomed: Zoomed | None = None,
        target: bool = False,
    ) -> tuple[Masks, Masks | None]:
        """Masks of the inputs, and those of the windows, whose fine mask (if a ``target``) is a constant."""
        student = self.network(x, images, grid, detach=detach)
        if zoomed is None:
            return student, None
        coarse = self.network(zoomed.x, None, grid).coarse
        fine = None
        if target and zoomed.images is not None:
            with torch.no_grad():
                fine = self.network(zoomed.x, zoomed.images, grid).fine
        return student, Masks(coarse, fine)


def loss(
    model: nn.Module,
    objective: Objective,
    x: Tensor,
    images: Tensor | None,
    grid: tuple[int, int],
    *,
    branches: str,
    meter: Meter,
    epoch: int,
    amp: bool = False,
    zoomed: Zoomed | None = None,
) -> Tensor:
    """The loss of one batch, entered into ``meter``.

    Parameters
    ----------
    model : Module
        A :class:`Pass`, or what wraps it.
    x, images : Tensor
        ``B x N x D`` features and ``B x 3 x H x W`` RGB in [0, 1]; without ``branches="coarse"`` both.
    grid : (int, int)
        ``(h, w)`` with ``h * w == N``.
    branches : str
        One of :data:`BRANCHES`.
    epoch : int
        For the sentence of the error.
    amp : bool
        Run the network in bfloat16 where torch's autocast does; the losses stay in float32.
    zoomed : Zoomed, optional
        Windows of the same photographs, for :meth:`~sempart_core.objective.Objective.consistency`.

    Raises
    ------
    TrainingError
        The masks or the loss are not finite.
    """
    images = None if branches == "coarse" else images
    with torch.autocast(x.device.type, torch.bfloat16, enabled=amp):
        fine = images is not None and objective.w_eq > 0
        masks, teacher = model(x, images, grid, branches == "detached", zoomed, fine)
    total = None
    if all(m is None or torch.isfinite(m).all() for m in masks):
        if branches == "fine":
            # The coarse layer gets no gradient: its mask is replaced, and nothing else reads it.
            masks = Masks(F.adaptive_avg_pool2d(masks.fine[:, None], grid)[:, 0], masks.fine)
            objective = replace(objective, w_sr=0.0, w_gtv_coarse=0.0, w_target=0.0)
        terms = objective(masks.coarse, masks.fine, x, images, detach=branches == "detached")
        if teacher is not None:
            more = objective.consistency(masks, teacher, zoomed)
            terms = {**terms, **more, "total": terms["total"] + more["total"]}
        total = terms["total"]
    if total is None or not math.isfinite(total.item()):
        raise TrainingError(
            f"epoch {epoch}: the masks or the loss are not finite (NaN or infinite), so the weights have blown "
            f"up; train again, into another folder, with a lower learning rate"
        )
    meter.add(terms, masks.coarse)
    return total


@torch.no_grad()
def held_out_means(
    model: nn.Module, objective: Objective, batches: Iterable[tuple], grid: tuple[int, int], **options
) -> dict[str, float]:
    """The same numbers on photographs that give no gradient, in evaluation mode; options as :func:`loss`."""
    model.eval()
    meter = Meter()
    model = Pass(model)
    for x, images in batches:
        loss(model, objective, x, images, grid, meter=meter, **options)
    return meter.means()
