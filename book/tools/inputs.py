"""What a notebook's outputs depend on, as one hash: its code, the modules it imports, the lock, the rows it reads.

The committed lists of photographs count for notebooks that import a module which reads them.
Comments, docstrings and blank lines of modules do not count, so that explaining code better does not
make the book stale. Only line positions of the syntax tree are used: the hash is the same on every
Python version.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import json
import pathlib
import re
import tokenize

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("sempart_core", "data_scripts")
LIST_READERS = {"sempart_core.samples", "sempart_core.photos"}  # they open files of book/lists


def directives(code: list[str]) -> dict[str, list[str]]:
    """``# nb: light``, ``# nb: alone``, ``# nb: reads table other`` lines of a notebook's code cells."""
    out: dict[str, list[str]] = {}
    for word, rest in re.findall(r"^# nb: (\w+)(.*)$", "\n".join(code), flags=re.M):
        if word not in ("light", "alone", "reads"):
            raise SystemExit(f"unknown line '# nb: {word}'; there are light, alone and reads")
        out.setdefault(word, []).extend(rest.split())
    return out


def bare(source: str) -> str:
    """Python source without comments, docstrings, blank lines and trailing space; other strings stay whole."""
    source = source.replace("\r\n", "\n")
    lines = source.split("\n")
    inside: set[int] = set()  # indices of lines that end within a string
    opened: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]  # from Python 3.12 on an f-string is several tokens
        if kind in ("FSTRING_START", "TSTRING_START"):
            opened.append(token.start[0])
        elif kind in ("FSTRING_END", "TSTRING_END"):
            inside.update(range(opened.pop() - 1, token.end[0] - 1))
        elif kind == "STRING":
            inside.update(range(token.start[0] - 1, token.end[0] - 1))
        if token.type == tokenize.COMMENT:
            row, col = token.start
            lines[row - 1] = lines[row - 1][:col]
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        named = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if not (named and isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
            continue
        if isinstance(first.value.value, str) and not lines[first.lineno - 1][: first.col_offset].strip():
            lines[first.lineno - 1 : first.end_lineno] = [""] * (first.end_lineno - first.lineno + 1)
            inside.difference_update(range(first.lineno - 1, first.end_lineno))
    return "\n".join(
        s if i in inside else s.rstrip() for i, s in enumerate(lines) if i in inside or s.strip()
    )


def _module_file(name: str, root: pathlib.Path) -> pathlib.Path | None:
    base = root.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _imports(source: str, package: str) -> set[str]:
    """Dotted names a source may import, relative ones resolved; names that are no modules do no harm."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            base = ".".join(parts[: len(parts) - node.level + 1] + ([node.module] if node.module else []))
            found |= {base} | {f"{base}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # importlib.import_module("sempart_core.methods.lost") and tables of module names
            if re.fullmatch(r"(sempart_core|data_scripts)(\.\w+)+", node.value):
                found.add(node.value)
    # importing a.b.c runs a and a.b first
    return {".".join(n.split(".")[:i]) for n in found for i in range(1, n.count(".") + 2)}


@functools.cache
def modules(name: str, root: pathlib.Path) -> frozenset[str]:
    """The local modules that ``import name`` may run, itself included."""
    seen, queue = set(), [name]
    while queue:
        name = queue.pop()
        path = _module_file(name, root)
        if name in seen or path is None or name.split(".")[0] not in PACKAGES:
            continue
        seen.add(name)
        inside = path.name == "__init__.py"
        source = path.read_text(encoding="utf-8")
        queue += _imports(source, name if inside else name.rpartition(".")[0])
        if inside and re.search(r"pkgutil|import_module|__path__", source):  # loads its folder by itself
            queue += [f"{name}.{p.stem}" for p in path.parent.glob("*.py")]
    return frozenset(seen)


@functools.cache
def _content(path: pathlib.Path, mtime: int) -> str:
    data = path.read_bytes()
    if path.suffix == ".py":
        data = bare(data.decode()).encode()
    return hashlib.sha256(data).hexdigest()


def dependencies(code: list[str], root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """Files the notebook's outputs depend on besides itself."""
    source = "\n".join(re.sub(r"^(\s*)[%!].*$", r"\1pass", c, flags=re.M) for c in code)
    names = frozenset().union(*[modules(n, root) for n in sorted(_imports(source, ""))] or [frozenset()])
    files = {_module_file(n, root) for n in names}
    for package in {n.split(".")[0] for n in names}:  # lists, checksums
        files |= {
            p
            for p in (root / package).rglob("*")
            if p.suffix in (".txt", ".json", ".csv", ".toml") and p.is_file()
        }
    if names & LIST_READERS:
        files |= set((root / "book" / "lists").rglob("*.txt"))
    for table in directives(code).get("reads", []):
        files |= set((root / "book" / "results").glob(f"*/{table}--*.json"))
    files |= {root / "requirements.txt"} & {p for p in [root / "requirements.txt"] if p.exists()}
    return sorted(files)


def digest(code: list[str], params: dict | None = None, root: pathlib.Path = ROOT) -> str:
    """16 hexadecimal digits over code cells, parameters and :func:`dependencies`."""
    h = hashlib.sha256(json.dumps(params or {}, sort_keys=True).encode())
    for cell in code:
        h.update(b"\0" + cell.strip().encode())
    for p in dependencies(code, root):
        h.update(f"\0{p.relative_to(root).as_posix()} {_content(p, p.stat().st_mtime_ns)}".encode())
    return h.hexdigest()[:16]
