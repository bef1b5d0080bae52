"""A disk cache of features, so that a study or a second run of a chapter does not run the network again.

One entry an image: half-precision tensors with a digest, keyed by the image's pixels and size, the weight
file's sha256, the policy, the layers and the arithmetic. Entries hold raw tensors (safetensors), no pickles;
one that cannot be read or does not match its digest is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import sqlite3
from collections.abc import Sequence

import diskcache
import torch
from diskcache.core import MODE_BINARY, MODE_RAW
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from . import backbones
from .backbones import Backbone
from .features import Features
from .paths import cache_dir, ensure
from .records import versions

#: Bytes kept by default; the entries used longest ago go first.
SIZE_LIMIT = 4 * 2**30
#: Raised when the meaning of an entry changes, so that old ones are not read.
FORMAT = 2


def extract_cached(
    backbone: Backbone,
    images: Tensor,
    layers: Sequence[str] | None = None,
    attention: bool = True,
    policy: str = "resize",
    *,
    batch: int = 16,
    amp: torch.dtype | None = None,
    directory: str | os.PathLike | None = None,
    size_limit: int = SIZE_LIMIT,
) -> Features:
    """:meth:`Backbone.extract <sempart_core.backbones.Backbone.extract>` with a disk cache.

    Features are rounded to half precision (float32 where that overflows) whether they come from the
    network or from the disk, so that a first and a second run give equal numbers.

    Parameters
    ----------
    backbone, images, layers, attention, policy, batch, amp
        As for ``extract``. Only images that are not in the cache pass through the network.
    directory : path, optional
        Default: ``features`` in the cache folder.
    size_limit : int
        Bytes; the least recently used entries beyond it are removed. 0 switches the cache off.

    Returns
    -------
    Features
        float32 on the backbone's device.

    Raises
    ------
    SempartError
        As ``extract``, and where the default folder cannot be made.
    """
    layers = [backbone.default_layer] if layers is None else list(layers)
    options = {"layers": layers, "attention": attention, "policy": policy, "batch": batch, "amp": amp}
    if size_limit <= 0 or not backbone.sha256:  # without a hash nothing tells two networks of one name apart
        return backbone.extract(images, **options)
    images = backbones.checked(images)
    pixels = backbones.fit(images.to(backbone.device), backbone.patch, policy)[1]
    arithmetic = "float32"
    if backbone.device.type == "cuda":
        arithmetic = f"cuda {amp} {torch.cuda.is_bf16_supported()}"
    library = {k: v for k, v in versions().items() if k in ("torch", "timm")}
    common = (FORMAT, backbone.name, backbone.sha256, policy, sorted(layers), attention, arithmetic, library)
    keys = [_key(image, common) for image in images]
    with _open(pathlib.Path(directory or _folder()), size_limit) as store:
        entries = [_unpack(store.get(k)) for k in keys]
        if missing := [i for i, e in enumerate(entries) if e is None]:
            fresh = backbone.extract(images[missing], **options)
            for j, i in enumerate(missing):
                entries[i] = _half(fresh, j)
                store.set(keys[i], _pack(entries[i]))
    found = {k: torch.stack([e[k].float() for e in entries]).to(backbone.device) for k in entries[0]}
    size = tuple(pixels.shape[-2:])
    return Features(
        x=found[layers[0]],
        grid=tuple(-(-s // backbone.patch) for s in size),
        patch=backbone.patch,
        size=size,
        attention=found.get("attention"),
        images=pixels,
        layers={k: found[k] for k in layers},
        tau=backbone.tau(layers[0]),
        name=f"{backbone.name}/{layers[0]}",
    )


def clear(directory: str | os.PathLike | None = None) -> None:
    """Remove all cached features."""
    shutil.rmtree(directory if directory is not None else cache_dir() / "features", ignore_errors=True)


def _folder() -> pathlib.Path:
    """The default folder. One that cannot be made is an error; one that cannot be written is only no help."""
    folder = cache_dir() / "features"
    remedy = "set SEMPART_CACHE to a folder that can be written, or do without the feature cache (--no-cache)"
    return folder if folder.is_dir() else ensure(folder, remedy)


def _key(image: Tensor, common: tuple) -> str:
    pixels = image.detach().cpu().contiguous().numpy()
    digest = hashlib.sha256(f"{common} {pixels.shape} {pixels.dtype}".encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def _half(f: Features, i: int) -> dict[str, Tensor]:
    """The tensors of image ``i`` on the CPU, float16 unless a value would overflow."""
    out = {}
    for name, t in {**f.layers, **({} if f.attention is None else {"attention": f.attention})}.items():
        t = t[i].cpu()
        half = t.half()
        out[name] = (half if torch.isfinite(half).all() else t).contiguous()
    return out


def _pack(entry: dict[str, Tensor]) -> bytes:
    data = safetensors.save(entry)
    return hashlib.sha256(data).digest() + data


def _unpack(data: bytes | None) -> dict[str, Tensor] | None:
    """The entry, or None if there is none or it is damaged."""
    if not isinstance(data, bytes) or hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    try:
        return safetensors.load(data[32:])
    except SafetensorError:
        return None


class _Store:
    """A diskcache that answers "not there" and keeps nothing when the disk fails, is full or is locked."""

    def __init__(self, directory: pathlib.Path, size_limit: int) -> None:
        self.cache = None
        for _ in range(2):
            try:
                # No waiting for other processes that write: to compute again is the worst that can happen.
                self.cache = diskcache.Cache(
                    directory,
                    timeout=5,
                    disk=_Bytes,
                    size_limit=size_limit,
                    eviction_policy="least-recently-used",
                    cull_limit=2,  # the default of 10 at a time empties a small cache
                )
                self.cache.get("")  # reads the table: a damaged file shows here
                return
            except _DISK as e:
                self.close()
                if not _damaged(e):  # locked or full: another process may be using it
                    return
                _discard(directory)

    def get(self, key: str) -> bytes | None:
        with contextlib.suppress(*_DISK):
            return None if self.cache is None else self.cache.get(key)

    def set(self, key: str, value: bytes) -> None:
        with contextlib.suppress(*_DISK):
            if self.cache is not None:
                self.cache.set(key, value)

    def close(self) -> None:
        with contextlib.suppress(*_DISK):
            if self.cache is not None:
                self.cache.close()
        self.cache = None


_DISK = (OSError, sqlite3.Error, diskcache.Timeout)


def _damaged(e: Exception) -> bool:
    """Whether the database itself is beyond use, rather than busy or out of reach."""
    words = ("malformed", "not a database", "no such table", "no such column")
    return isinstance(e, sqlite3.DatabaseError) and any(w in str(e) for w in words)


def _discard(directory: pathlib.Path) -> None:
    """Remove the database and its folders of two hexadecimal digits, and nothing else."""
    for path in pathlib.Path(directory).glob("*"):
        if path.name.startswith("cache.db"):
            path.unlink(missing_ok=True)
        elif path.is_dir() and re.fullmatch(r"[0-9a-f]{2}", path.name):
            shutil.rmtree(path, ignore_errors=True)


class _Bytes(diskcache.Disk):
    """Raw bytes only: a pickle that somebody put into the folder is not read."""

    def fetch(self, mode, filename, value, read):
        if mode not in (MODE_RAW, MODE_BINARY):
            raise OSError("not a cache entry of ours")
        return super().fetch(mode, filename, value, read)


def _open(directory: pathlib.Path, size_limit: int) -> contextlib.closing:
    return contextlib.closing(_Store(directory, size_limit))
