"""The training objective of SEMPART (equation 7) and its variants, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from .affinity import checked_tau, threshold_affinity
from .errors import SempartError
from .losses import (
    BORDERS,
    OFFSETS,
    POOLS,
    REDUCTIONS,
    colour_weights,
    graph_tv,
    ncut_loss,
    one_of,
    refined_target_loss,
    super_resolution_loss,
    token_weights,
)
from .models import Masks
from .multiscale import Zoomed, equivariance_loss
from .refine import REFINERS, refine

#: Names of all terms, in the order of the formulas.
TERMS = ("ncut", "gtv_coarse", "gtv_fine", "sr", "target", "ncut_crop", "eq", "eq_coarse")


@dataclass(frozen=True)
class Objective:
    """The training objective of SEMPART (equation 7) as data; calling it gives the terms.

    Parameters
    ----------
    tau, eps : float
        Threshold of the NCut graph and weight of its missing edges.
    self_loops : bool
        Keep ``W_ii``.
    clamp : float
        See :func:`ncut_loss`.
    cosine_floor : float, optional
        The NCut graph raises cosines to this before it compares them, so that a ``tau`` below it connects
        every pair (public re-implementation; its GTV does not).
    tau_gtv, eps_gtv : float
        Threshold and missing weight of the graph of GTV-coarse.
    neighbours, reduction, half, border
        Of both GTV terms, see :func:`graph_tv`.
    sigma, std
        Of GTV-fine, see :func:`colour_weights`.
    pool, reduction_sr
        Of :func:`super_resolution_loss`.
    target, target_params : str, dict
        Filter of :func:`refined_target_loss` and its parameters, needed where ``w_target`` is not 0.
    w_ncut, w_gtv_coarse, w_gtv_fine, w_sr, w_target : float
        Weights of the terms; a term of weight 0 is not computed.
    w_ncut_crop, w_eq, w_eq_coarse : float
        Weights of the terms of :meth:`consistency`, of which a training without ``crop`` has none.
    eq_filter, eq_params : str, dict
        Filter of the target of ``w_eq`` and ``w_eq_coarse``, and its parameters (Two Tricks: guided). While the
        coarse branch trains alone there are no pixels, and the target stays as it is.
    source : str
        Where the values were read.
    """

    tau: float = 0.2
    eps: float = 1e-6
    self_loops: bool = False
    clamp: float = 0.0
    cosine_floor: float | None = None
    tau_gtv: float = 0.0
    eps_gtv: float = 1e-6
    neighbours: int = 4
    reduction: str = "sum"
    half: bool = True
    border: str = "open"
    sigma: float = 1.0
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pool: str = "average"
    reduction_sr: str = "sum"
    w_ncut: float = 1.0
    w_gtv_coarse: float = 6e-4
    w_gtv_fine: float = 2e-4
    w_sr: float = 20.0
    target: str | None = None
    target_params: dict = field(default_factory=dict, hash=False)
    w_target: float = 0.0
    w_ncut_crop: float = 0.0
    w_eq: float = 0.0
    w_eq_coarse: float = 0.0
    eq_filter: str = "guided"
    eq_params: dict = field(default_factory=dict, hash=False)
    source: str = ""

    def __post_init__(self) -> None:
        one_of(self.neighbours, "neighbours", OFFSETS)
        checked_tau(self.tau)
        checked_tau(self.tau_gtv)
        for name, known in (
            ("reduction", REDUCTIONS),
            ("reduction_sr", REDUCTIONS),
            ("border", BORDERS),
            ("pool", POOLS),
        ):
            one_of(getattr(self, name), name, known)
        if self.w_target or self.target is not None:
            one_of(self.target, "target", REFINERS)
        one_of(self.eq_filter, "eq_filter", REFINERS)
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name.startswith("w_") and not 0 <= value < float("inf"):
                raise SempartError(f"{f.name}={value}: the weight of a term is a number not below 0")

    @staticmethod
    def preset(name: str, **changes) -> Objective:
        """A preset of :data:`OBJECTIVES` with some values changed; SempartError for unknown names."""
        one_of(name, "objective", OBJECTIVES)
        known = [f.name for f in fields(Objective)]
        if unknown := set(changes) - set(known):
            raise SempartError(f"the objective has no {sorted(unknown)[0]!r}; it has: {', '.join(known)}")
        return replace(OBJECTIVES[name], **changes)

    def affinity(self, x: Tensor) -> Tensor:
        """``B x N x N`` graph of the NCut term from ``B x N x D`` features; self-loops stay in it."""
        W = threshold_affinity(x, self.tau, self.eps)
        return W.fill_(1) if self.cosine_floor is not None and self.tau < self.cosine_floor else W

    def __call__(
        self,
        coarse: Tensor,
        fine: Tensor | None,
        x: Tensor,
        images: Tensor | None,
        W: Tensor | None = None,
        detach: bool = False,
    ) -> dict[str, Tensor]:
        """Terms of one batch.

        Parameters
        ----------
        coarse : Tensor
            ``B x h x w`` in [0, 1]. Without a coarse branch pass the pooled fine mask, with ``w_sr=0``.
        fine : Tensor or None
            ``B x H x W`` in [0, 1]; None trains the coarse branch alone.
        x : Tensor
            ``B x N x D`` features behind the graph, ``N = h * w``.
        images : Tensor or None
            ``B x 3 x H x W`` RGB in [0, 1] at the size of ``fine``; None together with ``fine``.
        W : Tensor, optional
            :meth:`affinity` of ``x`` if the caller has it already.
        detach : bool
            The coarse mask is a constant to the super-resolution loss, which then trains the fine one only.

        Returns
        -------
        dict
            Scalars, means over the batch: the unweighted terms ``"ncut"``, ``"gtv_coarse"``, ``"gtv_fine"``,
            ``"sr"``, ``"target"`` as far as they are computed, and ``"total"``, their weighted sum.

        Raises
        ------
        SempartError
            As the terms, or ``fine`` without ``images``.
        """
        if coarse.ndim != 3:
            raise SempartError(f"coarse has shape {tuple(coarse.shape)}: give B x h x w")
        if fine is not None and images is None and (self.w_gtv_fine or self.w_target):
            raise SempartError("GTV-fine needs images, and so does a target: the pixels behind the fine mask")
        gtv = {"reduction": self.reduction, "half": self.half, "border": self.border}
        terms = {}
        if self.w_ncut:
            W = self.affinity(x) if W is None else W
            terms["ncut"] = ncut_loss(coarse.flatten(1), W, self.self_loops, self.clamp)
        if self.w_gtv_coarse:
            A = token_weights(x, tuple(coarse.shape[1:]), self.neighbours, self.tau_gtv, self.eps_gtv)
            terms["gtv_coarse"] = graph_tv(coarse, A, **gtv)
        if fine is not None and self.w_gtv_fine:
            A = colour_weights(images, self.neighbours, self.sigma, self.std)
            terms["gtv_fine"] = graph_tv(fine, A, **gtv)
        if fine is not None and self.w_sr:
            target = coarse.detach() if detach else coarse
            terms["sr"] = super_resolution_loss(fine, target, self.pool, self.reduction_sr)
        if fine is not None and self.w_target:
            terms["target"] = refined_target_loss(fine, coarse, images, self.target, **self.target_params)
        if not terms:
            raise SempartError("every term of the objective has weight 0 or lacks its mask: nothing to train")
        return self._weighed(terms)

    def consistency(self, student: Masks, teacher: Masks, zoomed: Zoomed) -> dict[str, Tensor]:
        """Terms of the enlarged windows of one batch (Two Tricks, section 4).

        Parameters
        ----------
        student : Masks
            Of the whole inputs; the gradient of the consistency flows through these.
        teacher : Masks
            Of the windows, by the same network. Their coarse mask gets the gradient of its own normalized cut
            and no other.
        zoomed : Zoomed
            What the teacher saw.

        Returns
        -------
        dict
            ``"ncut_crop"``, ``"eq"`` (fine masks), ``"eq_coarse"`` as far as they have a weight and a mask, and
            ``"total"``; 0 where there is none.
        """
        terms = {}
        if self.w_ncut_crop:
            W = self.affinity(zoomed.x)
            terms["ncut_crop"] = ncut_loss(teacher.coarse.flatten(1), W, self.self_loops, self.clamp)
        for name, ours, theirs in zip(("eq", "eq_coarse"), student[::-1], teacher[::-1], strict=True):
            if getattr(self, f"w_{name}") and ours is not None and theirs is not None:
                target = theirs.detach()
                if zoomed.images is not None:
                    target = refine(self.eq_filter, target, zoomed.images, **self.eq_params).clamp(0, 1)
                terms[name] = equivariance_loss(ours, target, zoomed)
        return self._weighed(terms) if terms else {"total": student.coarse.new_zeros(())}

    @property
    def consistent(self) -> bool:
        """Whether any term of :meth:`consistency` has a weight."""
        return bool(self.w_ncut_crop or self.w_eq or self.w_eq_coarse)

    def _weighed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over the batch, and their weighted sum."""
        out = {k: v.mean() for k, v in terms.items()}
        out["total"] = sum(getattr(self, f"w_{k}") * v for k, v in out.items())
        return out


#: Objectives by name. Protocols 1.4 lists every difference of the public re-implementation.
OBJECTIVES = {
    "paper": Objective(source="SEMPART sections 3.2-3.4 and 4.1"),
    "sempart_star": Objective(
        tau=0.4,
        self_loops=True,
        clamp=1e-6,
        cosine_floor=1e-9,
        tau_gtv=0.4,
        neighbours=8,
        reduction="mean",
        half=False,
        border="reflect",
        std=(0.229, 0.224, 0.225),
        pool="bilinear",
        reduction_sr="mean",
        w_gtv_coarse=1.0,
        w_gtv_fine=1.0,
        w_sr=1.0,
        w_ncut_crop=0.01,
        w_eq=0.01,
        source="segmentation-tricks, protocols 1.4; Two Tricks section 5.1",
    ),
    # Means do not grow with the size of the input, so one set of weights serves every size. Those of the windows
    # were chosen among five by the IoU on demo training scenes (label-tuned); a training without crop has none.
    "compact": Objective(
        reduction="mean",
        reduction_sr="mean",
        w_gtv_coarse=0.2,
        w_gtv_fine=1.0,
        w_sr=3.0,
        w_ncut_crop=0.3,
        w_eq=3.0,
        source="ours",
    ),
    # The fine mask learns the bilateral solver's answer to the coarse one, in place of equation 5 and GTV-fine.
    "refined": Objective(
        reduction="mean",
        w_gtv_coarse=0.2,
        w_gtv_fine=0.0,
        w_sr=0.0,
        target="bilateral",
        w_target=10.0,
        source="ours",
    ),
}
