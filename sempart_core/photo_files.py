"""Which photographs are meant, and what the files made of them are called."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from .images import EXTENSIONS

#: What is written of each photograph, as ``<name>_<kind>.png``.
KINDS = ("mask", "cutout", "overlay")


def find_photos(paths: Iterable[str | os.PathLike]) -> tuple[list[pathlib.Path], list[str]]:
    """Photographs among files and folders (folders: image endings only, sorted, not below).

    Returns
    -------
    photos : list of Path
        Each once, in the order given.
    problems : list of str
        One sentence for each path that does not exist and each folder without a photograph.
    """
    photos: dict[pathlib.Path, pathlib.Path] = {}
    problems = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
            if not inside:
                problems.append(
                    f"{path}: no photograph in this folder; the endings known are {', '.join(EXTENSIONS)}"
                )
        elif path.exists():
            inside = [path]
        else:
            problems.append(f"{path}: no such file or folder; check the name")
            continue
        for p in inside:
            photos.setdefault(p.resolve(), p)
    return list(photos.values()), problems


def output_names(photos: Sequence[pathlib.Path], taken: dict[str, str], out: pathlib.Path) -> list[str]:
    """A name for the outputs of each photograph: its stem, made longer where two would collide.

    Parameters
    ----------
    photos : sequence of Path
    taken : dict
        Name -> photograph (relative to ``out``) of an earlier run into the same folder. Its own
        photograph keeps its name, another one does not get it.
    out : Path
        The folder of the outputs.

    Returns
    -------
    list of str
        ``a``, then ``folder_a``, ``folder_a_png``, ``folder_a_png_2`` ... All differ, also on file
        systems that ignore case, and none would overwrite a photograph.
    """
    inputs = {p.resolve() for p in photos}
    used = {name.lower(): photo for name, photo in taken.items()}
    known = {photo: name for name, photo in taken.items()}
    names = []
    for p in photos:
        source = relative(p, out)
        name = known.get(source)
        if name is None:
            folder = p.resolve().parent.name
            for name in _candidates(p.stem, folder, p.suffix[1:].lower()):
                files = {(out / f"{name}_{kind}.png").resolve() for kind in KINDS}
                if name.lower() not in used and not files & inputs:
                    break
        used[name.lower()] = source
        names.append(name)
    return names


def _candidates(stem: str, folder: str, ending: str) -> Iterator[str]:
    yield stem
    yield f"{folder}_{stem}"
    long = f"{folder}_{stem}_{ending}"
    yield long
    number = 2
    while True:
        yield f"{long}_{number}"
        number += 1


def relative(path: pathlib.Path, out: pathlib.Path) -> str:
    """``path`` as seen from ``out``, with forward slashes; absolute where there is no such way."""
    try:
        return pathlib.Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()
