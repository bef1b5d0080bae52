"""Where a number is born: tidy result rows with provenance, one idempotent file per table and dataset.

``book/results/<profile>/<table>--<dataset>.json`` holds a list of rows. Writing a table replaces the
rows of the same writer (``notebook``) in that file, so a renamed row does not survive its rename, and
unchanged rows leave the file untouched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import platform
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata

from .errors import SempartError

#: Folder of the book's rows in a checkout; ``SEMPART_RESULTS`` overrides it (the smoke profile does).
RESULTS = pathlib.Path(__file__).resolve().parents[1] / "book" / "results"


def results_folder() -> pathlib.Path:
    """The folder rows are read from and written to."""
    return pathlib.Path(os.environ.get("SEMPART_RESULTS") or RESULTS)


def versions() -> dict[str, str]:
    """Versions of what can move a number."""
    out = {"python": platform.python_version()}
    for name in ("torch", "timm", "numpy", "scipy"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


@dataclass(frozen=True)
class Record:
    """One measured number and all that is needed to measure it again.

    Parameters
    ----------
    table, row, metric : str
        Address of the number: ``{measured}`table/row/metric``` in the book.
    value : float
        The number, as a fraction or in ``unit`` (``ms``, ``MB``, ``x``; ``count`` of how many things).
    ci : (float, float), optional
        95 % interval of the mean over images (bootstrap), or ``None``.
    n : int
        Images, scenes or repetitions behind the number.
    dataset, list_hash : str
        Dataset name and the first 12 digits of the sha256 of its file list.
    profile : str
        ``smoke``, ``demo``, ``photos`` or ``paper``.
    backbone, backbone_sha256 : str
        Registered name and hash of the weight file ("" where no network is used).
    params : dict
        Parameters of the method (size, feature, tau, variant, ...).
    preset : str
        Metric preset and thereby family: ``tokencut``, ``move``, ``selfmask``, ``sempart_star``,
        ``corloc_ge`` ... or "" for a time or a size.
    kind : str
        ``unsupervised``, ``pseudo-labels``, ``label-tuned`` or ``supervised``.
    """

    table: str
    row: str
    metric: str
    value: float
    ci: tuple[float, float] | None = None
    n: int = 0
    unit: str = ""
    dataset: str = ""
    list_hash: str = ""
    profile: str = "demo"
    backbone: str = ""
    backbone_sha256: str = ""
    params: dict = field(default_factory=dict)
    preset: str = ""
    kind: str = "unsupervised"
    seed: int = 0
    device: str = "cpu"
    notebook: str = ""
    versions: dict = field(default_factory=versions)

    def __post_init__(self) -> None:
        for name in ("table", "dataset"):
            if not re.fullmatch(r"[a-z0-9_.-]*", getattr(self, name)):
                raise SempartError(
                    f"record {name} {getattr(self, name)!r}: use lower case letters, digits, '_', '.' and '-'"
                )
        if "/" in self.metric or "|" in self.row + self.metric:
            raise SempartError(f"record {self.row!r}/{self.metric!r}: '/' in a metric and '|' are reserved")
        if not math.isfinite(self.value):
            raise SempartError(f"record {self.table}/{self.row}/{self.metric}: the value is {self.value}")
        if self.ci is not None and not all(map(math.isfinite, self.ci)):
            raise SempartError(f"record {self.table}/{self.row}/{self.metric}: the interval is {self.ci}")


def list_hash(names: Iterable[str]) -> str:
    """First 12 hexadecimal digits of the sha256 of the names, one a line."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def write_text(path: pathlib.Path, text: str) -> bool:
    """Write atomically and only if the content differs; True if the file changed."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, data: bytes) -> bool:
    """As :func:`write_text`, for bytes: pictures, inventories."""
    path = pathlib.Path(path)
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, tmp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
        os.chmod(tmp, 0o644)
        os.replace(tmp, path)
    except BaseException:
        pathlib.Path(tmp).unlink(missing_ok=True)
        raise
    return True


def write_rows(records: Sequence[Record], folder: str | os.PathLike | None = None) -> list[pathlib.Path]:
    """Write rows, replacing those the same notebook wrote before in the same tables.

    Values are rounded to 6 significant digits, so that a rerun on the same machine leaves no diff.
    Raises SempartError if two records share an address.
    """
    folder = pathlib.Path(folder) if folder is not None else results_folder()
    files: dict[pathlib.Path, list[dict]] = {}
    for r in records:
        row = dataclasses.asdict(r)
        row["value"] = _rounded(r.value)
        row["ci"] = None if r.ci is None else [_rounded(v) for v in r.ci]
        files.setdefault(folder / r.profile / f"{r.table}--{r.dataset or 'none'}.json", []).append(row)
    texts: dict[pathlib.Path, str] = {}  # all of them before the first is written: all or nothing
    for path, new in files.items():
        writers = {r["notebook"] for r in new}
        kept = [r for r in _read(path) if r["notebook"] not in writers] if path.exists() else []
        rows = kept + new
        keys = [(r["row"], r["metric"], r["seed"], r["backbone"], r["preset"]) for r in rows]
        if twice := {k for k in keys if keys.count(k) > 1}:
            raise SempartError(f"{path.name}: two rows for {sorted(twice)[0]}; give each its own row name")
        lines = (json.dumps(r, sort_keys=True, ensure_ascii=False, default=_plain) for r in rows)
        texts[path] = "[\n" + ",\n".join(lines) + "\n]\n"
    return [path for path, text in texts.items() if write_text(path, text)]


def load_rows(
    folder: str | os.PathLike | None = None,
    *,
    table: str | None = None,
    profile: str | None = None,
    dataset: str | None = None,
) -> list[dict]:
    """All rows below ``folder``, in order of file name, optionally of one table, profile or dataset."""
    folder = pathlib.Path(folder) if folder is not None else results_folder()
    rows = [r for p in sorted(folder.glob("*/*.json")) for r in _read(p)]
    want = {"table": table, "profile": profile, "dataset": dataset}
    return [r for r in rows if all(v is None or r[k] == v for k, v in want.items())]


def _read(path: pathlib.Path) -> list[dict]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as e:
        raise SempartError(f"{path}: not valid JSON ({e}); delete it and run its notebook again") from e


def _plain(v: object) -> object:
    """What :mod:`json` cannot write by itself: scalars of numpy and torch, and paths."""
    if callable(item := getattr(v, "item", None)):
        return item()
    if isinstance(v, os.PathLike):
        return os.fspath(v)
    raise SempartError(f"a record holds {v!r}, which is no number or text; convert it before writing")


def _rounded(v: float) -> float:
    return float(f"{float(v):.6g}")
