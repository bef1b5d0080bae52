"""Options that several commands share, each with its help; symbols are those of the papers."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from .cli_common import BACKBONE

MethodName = Annotated[str, typer.Option("--method", help="Method by name; see 'sempart list methods'.")]
BackboneName = Annotated[
    str, typer.Option("--backbone", help="Feature extractor by name; see 'sempart list backbones'.")
]
Size = Annotated[
    int, typer.Option(min=16, help="Side in pixels of the square the network sees; tau depends on it.")
]
NetBackbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help=f"Feature extractor by name; see 'sempart list backbones'. Default: the one the head of method "
        f"sempart was trained on, {BACKBONE} for the other methods.",
    ),
]
NetSize = Annotated[
    int | None,
    typer.Option(
        "--size",
        min=16,
        help="Side in pixels of the square the network sees; tau depends on it. Default: the side the head of "
        "method sempart was trained on, 224 for the other methods.",
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        metavar="FILE_OR_NAME",
        help="Head of method sempart: a file made by 'sempart train', or a name of 'sempart list heads'. "
        "Default: the one that ships.",
    ),
]
Branch = Annotated[
    str | None,
    typer.Option(
        help="Branch of method sempart: fine or coarse. Default: coarse before a refinement, else fine, as far as the "
        "head has them."
    ),
]
Feature = Annotated[
    str | None,
    typer.Option(
        metavar="KIND@BLOCK",
        help="Features of the graph: tokens, queries, keys or values of a block counted from 0, e.g. "
        "queries@11. Default: the head's for method sempart, the backbone's for the others.",
    ),
]
Tau = Annotated[
    float | None,
    typer.Option(
        help="Threshold tau on the cosine of two features: an edge is W_ij = 1 above it and eps below. "
        "Default: the one of backbone and feature."
    ),
]
Refine = Annotated[
    str | None,
    typer.Option(help="Edge-aware refinement of the mask: none, guided, bilateral or crf."),
]
Variant = Annotated[
    str | None, typer.Option(help="Named parameters of a method, e.g. paper or code for deep-spectral.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")]
Weights = Annotated[
    pathlib.Path | None, typer.Option(help="Weight file of the backbone, if not the registered one.")
]
Images = Annotated[pathlib.Path, typer.Option(help="Folder of the photographs.")]
Masks = Annotated[pathlib.Path, typer.Option(help="Folder of the true masks, same names, PNG.")]
ListFile = Annotated[
    pathlib.Path | None,
    typer.Option("--list", help="Text file with one name (without ending) a line; default: all photographs."),
]
Void = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65535,
        help="Masks are label maps: any value above 0 is foreground and this one is ignored. Without "
        "it, foreground is what lies above half the range.",
    ),
]
Metric = Annotated[
    str, typer.Option(help="Metric preset (Acc, IoU, max F-beta); see 'sempart list presets'.")
]
Foreground = Annotated[
    str | None,
    typer.Option(
        help="Which side of the cut is the object: least-corners, centrality, framing or attention. "
        "Default: the method's own rule."
    ),
]
Resample = Annotated[
    str,
    typer.Option(
        help="How a mask is enlarged to the photograph: bilinear or nearest. TokenCut's code uses nearest. "
        "Interpolation makes a binary mask soft at its rim, which raises max F-beta."
    ),
]
