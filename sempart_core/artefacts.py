"""Trained weights by what made them: the same call trains once and loads from then on.

An artefact is a folder ``trained/<16 hexadecimal digits>`` of the cache, named by the hash of all that
decides the weights: arguments, photographs, backbone, versions, and the code of the modules in
:data:`DECIDING` (of a fine-tuning: its own), comments and docstrings aside.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import filelock

from .errors import SempartError
from .paths import cache_dir, ensure
from .records import versions
from .training_files import STATE, load_state

T = TypeVar("T")
#: Modules that decide the weights, as files of the package.
DECIDING = (
    "affinity.py", "augment.py", "backbones.py", "bilateral.py", "binarise.py", "extraction.py", "guided.py",
    "hooks.py", "images.py", "losses.py", "models/configs.py", "models/sempart.py", "multiscale.py", "objective.py",
    "refine.py", "training_crops.py", "training_data.py", "training_loop.py", "training_step.py",
)  # fmt: skip
#: Seconds to wait for another process before saying so.
PATIENCE = 5.0
#: Names of values in those modules that do not count, because the arguments hold what was chosen of them.
PRESETS = ("CONFIGS", "CONSISTENCY_PRESETS", "OBJECTIVES")


def key_of(settings: dict, *, deciding: tuple[str, ...] | None = None, **more) -> str:
    """16 hexadecimal digits of everything that decides the weights; ``settings`` and ``more`` become JSON.

    ``deciding`` are the modules whose code counts, as files of the package; :data:`DECIDING` if None.
    """
    library = {k: v for k, v in versions().items() if k in ("torch", "timm")}
    if settings.get("augment"):
        library["kornia"] = importlib.metadata.version("kornia")
    said = {"settings": settings, "versions": library, "source": source_digest(deciding), **more}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def source_digest(deciding: tuple[str, ...] | None = None) -> str:
    """Hash of the code of some modules without comments, docstrings and the values of :data:`PRESETS`."""
    digest = hashlib.sha256()
    for name in deciding or DECIDING:
        tree = ast.parse((pathlib.Path(__file__).parent / name).read_bytes())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [n for n in body if not _silent(n)] or [ast.Pass()]
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()


def _silent(node: ast.stmt) -> bool:
    """A docstring, or a table of presets."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in PRESETS


def place_of(key: str) -> pathlib.Path:
    """The folder of an artefact; made if absent."""
    return ensure(cache_dir() / "trained" / key)


@contextlib.contextmanager
def lock(folder: pathlib.Path) -> Iterator[None]:
    """To be held while an artefact is trained, so that two notebooks do not train the same one.

    Raises
    ------
    SempartError
        The file of the lock cannot be written.
    """
    held = filelock.FileLock(folder.with_suffix(".lock"))
    try:
        try:
            held.acquire(timeout=PATIENCE)
        except filelock.Timeout:
            print(f"sempart: another process trains {folder.name}; waiting for it", file=sys.stderr)
            held.acquire()
    except OSError as e:
        raise SempartError(
            f"{held.lock_file}: cannot be written ({e.strerror}); set SEMPART_CACHE to a folder that can be written"
        ) from e
    try:
        yield
    finally:
        held.release()


def finished(folder: pathlib.Path, read: Callable[[pathlib.Path], T]) -> tuple[T, list[dict]] | None:
    """What a training made, and its log; None while the artefact is not whole.

    ``read`` gives what is written last, from the folder, or raises SempartError.
    """
    try:
        return read(folder), load_state(folder)["log"]
    except SempartError:
        return None


def discard_broken(folder: pathlib.Path, check: Callable[[list[dict]], object] = len) -> None:
    """Remove the state of an unfinished artefact that cannot be continued, so that it is trained from the start.

    Broken is a state that is damaged or of another version, or one for whose log ``check`` raises SempartError.
    """
    if not (folder / STATE).exists():
        return
    try:
        check(load_state(folder)["log"])
    except SempartError:
        (folder / STATE).unlink()
