"""Weight files: where they are looked for, how they are read, and how their names become timm's.

A checkpoint of the original authors differs from a timm file in three ways: wrappers around the
dictionary (``teacher``, ``state_dict``, ``model``), prefixes of the training code (``module.``,
``backbone.``), and names of single tensors. All three are undone here by data, not by model.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import SempartError
from .paths import cache_dir

SUFFIXES = (".pt", ".pth", ".safetensors", ".pth.tar")

#: Keys that hold the state dictionary, in the order tried. DINO, DINOv2 and iBOT train a student beside
#: the teacher; the teacher is what their authors release.
WRAPPERS = ("teacher", "state_dict", "model")
#: Prefixes of training code. If any name starts with one, only names that do belong to the encoder
#: (so that a momentum encoder, predictor or projection head beside it is left out).
PREFIXES = ("module.", "teacher.", "base_encoder.", "backbone.")
#: Parameters needed only in training: mask tokens (DINOv2, MAE, iBOT), decoder (MAE), heads, and fixed
#: buffers that timm recomputes (DINOv3).
TRAINING_ONLY = re.compile(
    r"mask_token$|masked_embed$|decoder_|head\.|fc\.|projectors\.|local_cls_norm\.|.*\.bias_mask$"
    r"|rope_embed\.|rope\."
)
#: Original name -> timm's name. Applied only where timm's model has the target.
RENAMES = (
    (re.compile(r"^(register|storage)_tokens$"), "reg_token"),
    (re.compile(r"\.ls([12])\.gamma$"), r".gamma_\1"),
    (re.compile(r"\.mlp\.w12\."), ".mlp.fc1."),
    (re.compile(r"\.mlp\.w3\."), ".mlp.fc2."),
)


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def checked(path: pathlib.Path, name: str, expected: str, weights: str | os.PathLike | None = None) -> str:
    """The sha256 of a weight file that :func:`find` gave for the same ``weights``.

    Parameters
    ----------
    expected : str
        As registered for the backbone ``name``; empty if none is known.

    Raises
    ------
    SempartError
        It is another one. Only a file that was fetched into a cache is to be deleted; the user's own
        file is merely the wrong one.
    """
    digest = sha256_of(path)
    if not expected or digest == expected:
        return digest
    said = weights if weights is not None else os.environ.get("SEMPART_WEIGHTS")
    own = bool(said) and path.is_relative_to(pathlib.Path(said).expanduser())
    if not own or path.parent == cache_dir() / "weights":
        raise SempartError(
            f"{path}: sha256 is {digest}, but {name!r} has {expected}; delete it and fetch it again"
        )
    place = "--weights at its own file" if weights is not None else "SEMPART_WEIGHTS at a folder"
    raise SempartError(
        f"{path} is not the weight file of {name!r} (sha256 {digest}, expected {expected}); choose another "
        f"--backbone or point {place}"
    )


def check_shipped(path: pathlib.Path, what: str, expected: str | None) -> None:
    """SempartError unless a file of the package is there, and the one that was shipped.

    Parameters
    ----------
    what : str
        Whose file it is, for the sentence.
    expected : str or None
        Its sha256; None where the package was installed without the list of them.
    """
    if expected is None or not path.is_file():
        lost = "file" if expected is not None else "checksum"
        raise SempartError(f"{path}: the {lost} of {what} is missing; install the package again")
    if (digest := sha256_of(path)) != expected:
        raise SempartError(
            f"{path}: sha256 is {digest}, but {what} has {expected}; install the package again"
        )


def find(
    name: str, original: str = "", hub: str = "", weights: str | os.PathLike | None = None
) -> pathlib.Path | None:
    """The weight file of a backbone, or ``None`` if there is none on this machine.

    Parameters
    ----------
    name : str
        Registered name; files are called ``<name>.pt``, ``.pth``, ``.safetensors`` or ``.pth.tar``.
    original : str
        File name given by the authors, accepted as well.
    hub : str
        ``owner/model`` on the hub, for a copy the hub client has downloaded before.
    weights : path, optional
        A file, or a folder of files; then nothing else is looked at. Default: ``SEMPART_WEIGHTS``
        (a folder may lack the file), then ``<cache>/weights``, then the hub client's own cache.

    Raises
    ------
    SempartError
        ``weights`` (or ``SEMPART_WEIGHTS``) is not there, or the folder ``weights`` lacks the file.
    """
    said = weights if weights is not None else os.environ.get("SEMPART_WEIGHTS") or None
    folders = []
    if said is not None:
        what = "weights" if weights is not None else "SEMPART_WEIGHTS"
        path = pathlib.Path(said).expanduser()
        if path.is_file():
            return path
        if not path.is_dir():
            raise SempartError(f"{what} {str(path)!r} does not exist; give a weight file or a folder of them")
        folders.append(path)
    if weights is None:
        folders.append(cache_dir() / "weights")
    for folder in folders:
        for file in [*(name + s for s in SUFFIXES), original]:
            if file and (folder / file).is_file():
                return folder / file
    if weights is not None:
        raise SempartError(
            f"the folder {str(folders[0])!r} given as weights has no {name}.pt, .pth or .safetensors"
            + (f" and no {original}" if original else "")
        )
    return _from_hub_cache(hub) if hub else None


def _from_hub_cache(hub: str) -> pathlib.Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(hub, "model.safetensors")
    return pathlib.Path(path) if isinstance(path, str) else None


def download(hub: str, timeout: float = 5.0) -> pathlib.Path:
    """Fetch ``model.safetensors`` of ``owner/model`` from the hub into the hub client's cache.

    Raises
    ------
    OSError
        Whatever went wrong while the hub was asked. It is asked once with a short timeout first: the
        client itself retries an unknown host for half a minute.
    """
    import requests
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    try:
        requests.head(constants.ENDPOINT, timeout=timeout)
        return pathlib.Path(hf_hub_download(hub, "model.safetensors"))
    except requests.RequestException as e:
        raise OSError("no connection") from e
    except Exception as e:  # the client's HTTP library differs between its versions, and so do its errors
        raise OSError(f"{type(e).__name__}: {_line(e)}") from e


def read_state(path: str | os.PathLike) -> dict:
    """Read a weight file without running any code in it.

    Returns
    -------
    dict
        As stored: names to tensors, possibly wrapped.

    Raises
    ------
    SempartError
        The file is damaged, or holds more than tensors and plain values.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise SempartError(
            f"{path}: refused, it is damaged or holds Python objects besides tensors; save it again as "
            f"a plain state dictionary (torch.save(model.state_dict(), ...)) or as safetensors"
        ) from e
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as e:
        raise SempartError(f"{path}: not a readable weight file ({_line(e)}); fetch it again") from e
    except Exception as e:
        if type(e).__name__ != "SafetensorError":
            raise
        raise SempartError(f"{path}: not a readable safetensors file ({_line(e)}); fetch it again") from e
    if not isinstance(state, Mapping):
        raise SempartError(f"{path}: holds a {type(state).__name__}, not a state dictionary of tensors")
    return dict(state)


def unwrap(state: Mapping) -> dict[str, Tensor]:
    """The encoder's tensors without wrappers and prefixes of training code."""
    while inner := next((state[k] for k in WRAPPERS if isinstance(state.get(k), Mapping)), None):
        state = inner
    out = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    while prefix := next((p for p in PREFIXES if any(k.startswith(p) for k in out)), None):
        out = {k.removeprefix(prefix): v for k, v in out.items() if k.startswith(prefix)}
    return out


def to_timm(state: Mapping, model: nn.Module) -> dict[str, Tensor]:
    """Rename an original checkpoint (or a timm one) to the names of ``model``.

    Understands timm, DINO, DINOv2 with and without registers, DINOv3, MAE, MoCo v3, iBOT and torchvision
    ResNets. Nothing is invented: what does not fit stays, and strict loading reports it.
    """
    target = model.state_dict()
    out = {}
    for k, v in unwrap(state).items():
        for pattern, name in RENAMES:
            if k not in target and (new := pattern.sub(name, k)) in target:
                k = new
        if k not in target and TRAINING_ONLY.match(k):
            continue
        if k not in target and k.endswith(".attn.qkv.bias"):
            # DINOv3 in timm has no bias on keys: it is zero by construction (and masked in the original).
            block = k.removesuffix("qkv.bias")
            q, _, v = v.chunk(3)
            if block + "q_bias" in target:
                out[block + "q_bias"], out[block + "v_bias"] = q, v
                continue
        out[k] = v
    pos, cls = out.get("pos_embed"), out.get("cls_token")
    if pos is not None and cls is not None and "pos_embed" in target:
        if "reg_token" in target and pos.shape[1] == target["pos_embed"].shape[1] + 1:
            # DINOv2 with registers adds a position to CLS; timm keeps positions of patches only.
            out["cls_token"], out["pos_embed"] = cls + pos[:, :1], pos[:, 1:]
    return out


def load(model: nn.Module, path: str | os.PathLike, name: str) -> None:
    """Load a weight file of either naming scheme strictly into ``model``.

    Raises
    ------
    SempartError
        Names or shapes differ; the first few are named.
    """
    state, target = to_timm(read_state(path), model), model.state_dict()
    lists = {
        "missing": [k for k in target if k not in state],
        "unknown": [k for k in state if k not in target],
        "of another shape": [
            f"{k} {tuple(state[k].shape)} for {tuple(v.shape)}"
            for k, v in target.items()
            if k in state and state[k].shape != v.shape
        ],
    }
    if any(lists.values()):
        said = "; ".join(f"{len(v)} {k} (such as {v[0]})" for k, v in lists.items() if v)
        raise SempartError(
            f"{path} does not fit the backbone {name!r}: {said}; give that backbone's own file"
        )
    model.load_state_dict(state, strict=True)


def _line(e: Exception) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0][:200]
