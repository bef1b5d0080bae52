"""One picture with its truth, and a lazy sequence of them: what every data set of the package is."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import SempartError
from .images import EXTENSIONS
from .records import list_hash

#: Lists of names committed with the book; absent where only the package is installed.
LISTS = pathlib.Path(__file__).resolve().parents[1] / "book" / "lists"


@dataclass(frozen=True)
class Sample:
    """A picture and what is known of it.

    Parameters
    ----------
    name : str
        Without ending, unique in its data set.
    image : ndarray
        ``H x W x 3`` uint8 RGB.
    mask : ndarray, optional
        ``H x W`` bool, foreground.
    void : ndarray, optional
        ``H x W`` bool, pixels no metric counts.
    boxes : ndarray, optional
        ``n x 4`` float64 ``(x_min, y_min, x_max, y_max)``, right and bottom exclusive, pixels.
    classes : tuple of int
        Class id of each box (an index into :attr:`Dataset.class_names`).
    labels : ndarray, optional
        ``H x W`` uint8 class ids, 0 background, 255 void.
    alpha : ndarray, optional
        ``H x W`` uint8 exact matte.
    meta : dict
        Anything else (the demo set: ingredients and controls).
    """

    name: str
    image: np.ndarray
    mask: np.ndarray | None = None
    void: np.ndarray | None = None
    boxes: np.ndarray | None = None
    classes: tuple[int, ...] = ()
    labels: np.ndarray | None = None
    alpha: np.ndarray | None = None
    meta: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("mask", "void", "labels", "alpha"):
            a = getattr(self, what)
            if a is not None and a.shape != self.image.shape[:2]:
                h, w = self.image.shape[:2]
                raise SempartError(
                    f"{self.name}: the {what} is {a.shape[1]} x {a.shape[0]} pixels but the picture {w} x {h}; "
                    "give files of one size"
                )


class Dataset(Sequence):
    """A lazy sequence of :class:`Sample`: files are read when an item is asked for.

    Parameters
    ----------
    name, split : str
        As written into records; ``name`` tells the split where a set has several ("demo-test").
    names : sequence of str
        The pictures, in order.
    read : callable
        ``read(name) -> Sample``.
    class_names : sequence of str
        By class id; 0 is the background.
    salt : str
        What else decides the content (the version of a generator); part of ``list_hash``.
    """

    def __init__(
        self,
        name: str,
        names: Iterable[str],
        read: Callable[[str], Sample],
        *,
        split: str = "",
        class_names: Sequence[str] = (),
        salt: str = "",
    ) -> None:
        self.name, self.split, self.salt = name, split, salt
        self.names = tuple(names)
        self.class_names = tuple(class_names)
        self._read = read

    @property
    def list_hash(self) -> str:
        """First 12 digits of the sha256 of the names, in order."""
        return list_hash([*([self.salt] if self.salt else []), *self.names])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int | slice) -> Sample | Dataset:
        """One sample, or a shorter data set for a slice."""
        if isinstance(i, slice):
            return Dataset(
                self.name, self.names[i], self._read,
                split=self.split, class_names=self.class_names, salt=self.salt,
            )  # fmt: skip
        return self._read(self.names[i])

    def spread(self, n: int) -> Dataset:
        """A shorter data set of ``n`` pictures spread evenly over this one, whose order is often that of classes.

        Parameters
        ----------
        n : int
            At least 1; from the length of the data set on, all pictures are in it.

        Raises
        ------
        SempartError
            ``n`` is no whole number of at least 1.
        """
        return Dataset(
            self.name, [self.names[i] for i in evenly(n, len(self))], self._read,
            split=self.split, class_names=self.class_names, salt=self.salt,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, split={self.split!r}, {len(self)} pictures, list {self.list_hash})"


def evenly(n: int, of: int) -> list[int]:
    """``n`` indices spread evenly over a list of length ``of``, from 0 on; all of them if it has no more.

    Raises
    ------
    SempartError
        ``n`` is no whole number of at least 1.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SempartError(f"n={n!r}: give how many pictures to take, a whole number of at least 1")
    n = min(n, of)
    return [i * of // n for i in range(n)]


def binarise(labels: np.ndarray, void: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Foreground and void of a mask file.

    With a ``void`` value the file is a label map: foreground is any other value above 0. Without, it is a
    grey mask: foreground is what lies above half the range of its type.

    Parameters
    ----------
    labels : ndarray
        ``H x W`` uint8 or uint16.
    void : int, optional
        In 1 .. 255 (65535 for sixteen bits); 0 is the background.

    Returns
    -------
    mask, void : ndarray and (ndarray or None)
        ``H x W`` bool.

    Raises
    ------
    SempartError
        A ``void`` that no pixel of such a file can hold, or 0.
    """
    if void is not None and not 1 <= void <= np.iinfo(labels.dtype).max:
        raise SempartError(
            f"void={void}: the label to ignore lies in 1..{np.iinfo(labels.dtype).max} for "
            f"{8 * labels.dtype.itemsize}-bit masks; most label maps have 255 (--void 255)"
        )
    if void is None:
        return labels > np.iinfo(labels.dtype).max // 2, None
    ignored = labels == void
    return (labels > 0) & ~ignored, ignored


def read_list(path: str | os.PathLike) -> list[str]:
    """Names of a list file, one a line; blank lines and lines that begin with ``#`` are skipped.

    Image endings are dropped; a ``#`` further on is part of the name.

    Raises
    ------
    SempartError
        No such file, a folder, an empty file, or a name that stands twice.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise SempartError(f"list {path}: this is a folder; give a text file with one name a line")
    if not path.is_file():
        raise SempartError(f"list {path}: no such file")
    try:  # utf-8-sig: editors on Windows put a mark before the first name
        lines = [s.strip() for s in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as e:
        raise SempartError(f"list {path}: not a text file in UTF-8") from e
    out = [without_ending(s) for s in lines if s and not s.startswith("#")]
    if not out:
        raise SempartError(f"list {path}: holds no name; give one name without ending a line")
    if len(set(out)) < len(out):
        twice = next(n for n in out if out.count(n) > 1)
        raise SempartError(f"list {path}: {twice} stands there twice; every name may stand once")
    return out


def without_ending(name: str) -> str:
    """The name without an image ending; other dots are part of the name."""
    p = pathlib.PurePosixPath(name)
    return str(p.with_suffix("")) if p.suffix.lower() in EXTENSIONS else name


def by_stem(
    folder: pathlib.Path, recursive: bool = False, prefer: str | None = None
) -> dict[str, pathlib.Path]:
    """Image files of a folder by name without ending, sorted.

    Parameters
    ----------
    folder : Path
    recursive : bool
        Look below too; names then hold their sub-folder.
    prefer : str, optional
        Of two files with one stem take the one with this ending (DUTS-TR's masks hold such doubles).

    Raises
    ------
    SempartError
        No such folder, no image in it, or two files of one stem.
    """
    if not folder.is_dir():
        raise SempartError(f"{folder}: no such folder")
    found: dict[str, pathlib.Path] = {}
    for p in sorted(folder.rglob("*") if recursive else folder.iterdir()):
        if p.suffix.lower() in EXTENSIONS and p.is_file() and not p.name.startswith("."):
            stem = p.relative_to(folder).with_suffix("").as_posix()
            if stem in found and prefer is not None:
                if found[stem].suffix.lower() == prefer:
                    continue
            elif stem in found:
                raise SempartError(f"{p} and {found[stem].name} have the same stem; keep one of them")
            found[stem] = p
    if not found:
        raise SempartError(f"{folder}: holds no image ({', '.join(EXTENSIONS)})")
    return found


def find_root(
    root: str | os.PathLike | None, dataset: str, folders: Sequence[str], needs: Sequence[str]
) -> pathlib.Path:
    """The data set's own folder, whether ``root`` is it or holds it.

    Parameters
    ----------
    root : path
        As the user gave it.
    dataset : str
        For messages.
    folders : sequence of str
        Where below ``root`` it may lie.
    needs : sequence of str
        Entries that tell it; all must exist.

    Raises
    ------
    SempartError
        No ``root``, or the entries are in none of the places.
    """
    if root is None or not str(root):
        raise SempartError(
            f"data set {dataset} needs root: the folder of its photographs (data_root in a notebook)"
        )
    root = pathlib.Path(root).expanduser()
    if not root.is_dir():
        raise SempartError(f"root {root} is not a folder; give the one that holds {dataset}")
    for place in (root, *(root / f for f in folders)):
        if all((place / n).exists() for n in needs):
            return place
    raise SempartError(
        f"no {dataset} below {root}: expected {' and '.join(needs)} there or in {folders[0]}"
        if folders
        else f"no {dataset} in {root}: expected {' and '.join(needs)}"
    )


def pick(available: Iterable[str], wanted: Sequence[str] | None, limit: int | None, where: str) -> list[str]:
    """The names to use, in the order of the list (or of the folder).

    Raises
    ------
    SempartError
        A listed picture is absent; the first five are named.
    """
    available = list(available)
    if wanted is not None:
        have = set(available)
        missing = [n for n in wanted if n not in have]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise SempartError(
                f"{where} lacks {len(missing)} of {len(wanted)} listed pictures: {', '.join(missing[:5])}{more}"
            )
        available = list(wanted)
    if limit is not None and limit < 1:
        raise SempartError(f"limit is {limit}; give 1 or more, or leave it out for all pictures")
    return available[:limit]
