"""Notebook plumbing: py -> ipynb, parallel papermill of what changed, pair and freshness checks.

python book/tools/nb.py sync                 notebooks/*.py -> *.ipynb, outputs of unchanged code kept
python book/tools/nb.py run [-j 2]           demo profile, in place, only what changed (sync first)
python book/tools/nb.py run --profile smoke  every notebook once into runs/smoke, no rows written
python book/tools/nb.py run --profile photos --data-root DIR   into runs/photos, rows into book/results
python book/tools/nb.py check                pairs equal, outputs fresh, run in order, sizes in budget
python book/tools/nb.py compare              light notebooks again, every output compared (nbval)
python book/tools/nb.py list [light]         names of the notebooks

Lines in a code cell steer a notebook: ``# nb: light`` (outputs are compared by nbval in ``make test``),
``# nb: alone`` (times something: nothing runs beside it), ``# nb: reads main_table other`` (reads rows of
these tables: runs after all others, and is stale when they change).

Only this direction: ``jupytext --sync`` believes time stamps and can throw away an edit of the .py file.
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import jupytext
import nbformat
from inputs import ROOT, digest, directives, modules

from sempart_core import records

BOOK = ROOT / "notebooks"
BUDGET = 600_000  # bytes of one committed notebook


def code_of(nb) -> list[str]:
    return [c.source for c in nb.cells if c.cell_type == "code"]


def cells(nb) -> list[tuple]:
    return [(c.cell_type, c.source, tuple(sorted(c.metadata.get("tags", [])))) for c in nb.cells]


def sources() -> list[pathlib.Path]:
    return sorted(p for p in BOOK.glob("*.py") if not p.name.startswith(("_", ".")))


def normalise(nb) -> None:
    """Drop everything that differs between two identical runs or tells of the machine."""
    for k in ("papermill", "widgets"):
        nb.metadata.pop(k, None)
    nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    nb.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    for i, c in enumerate(nb.cells):
        for k in ("papermill", "execution", "collapsed", "scrolled"):
            c.metadata.pop(k, None)
        tags = c.metadata.get("tags")
        if tags == []:
            del c.metadata["tags"]
        if tags and "injected-parameters" in tags and "hide-input" not in tags:
            tags.append("hide-input")
        if c.cell_type == "code":
            c.outputs = _normal_outputs(c.outputs)
        c["id"] = hashlib.sha256(f"{i}{c.source}".encode()).hexdigest()[:8]


def _normal_outputs(outputs: list) -> list:
    merged: list = []
    for o in outputs:  # how often a stream was flushed is chance
        if merged and o.output_type == "stream" == merged[-1].output_type and o.name == merged[-1].name:
            merged[-1].text += o.text
        else:
            merged.append(o)
    for o in merged:
        for bag in (o, o.get("data", {})):
            for k in ("text", "text/plain", "text/html", "text/markdown"):
                if isinstance(bag.get(k), str):
                    text = re.sub(r" at 0x[0-9a-f]+", "", bag[k])
                    bag[k] = text.replace(str(ROOT), ".").replace(str(pathlib.Path.home()) + "/", "~/")
    return merged


def sync() -> int:
    for py in sources():
        ipynb, new = py.with_suffix(".ipynb"), jupytext.read(py)
        old = nbformat.read(ipynb, 4) if ipynb.exists() else None
        if old is not None and cells(old) == cells(new):
            continue
        # prose and tags may change without making an output wrong
        if old is not None and code_of(old) == code_of(new):
            outputs = iter([c for c in old.cells if c.cell_type == "code"])
            for c in new.cells:
                if c.cell_type == "code":
                    o = next(outputs)
                    c.outputs, c.execution_count = o.outputs, o.execution_count
            new.metadata["companion"] = old.metadata.get("companion", {})
        normalise(new)
        write(new, ipynb)
        print("synced", ipynb.relative_to(ROOT), flush=True)
    return 0


def write(nb, path: pathlib.Path) -> None:
    """Whole or not at all, also with two writers at a time."""
    records.write_text(path, nbformat.writes(nb).rstrip("\n") + "\n")


def digest_now(src: pathlib.Path, params: dict) -> str:
    """Digest of the notebook and its inputs as they are on disk at this moment."""
    modules.cache_clear()
    return digest(code_of(nbformat.read(src, 4)), params)


def kept_of(name: str, params: dict) -> pathlib.Path:
    """Where a notebook stands while it runs, and stays if it fails; two profiles may run at once."""
    return ROOT / "runs" / "failed" / params.get("profile", "demo") / f"{name}.ipynb"


def execute(src: pathlib.Path, dst: pathlib.Path, params: dict, env: dict, timeout: int) -> str:
    """Run one notebook in its own kernel; on failure what was done stays in ``runs/failed``."""
    os.environ.update(env)
    import papermill as pm

    began = time.time()
    kept = kept_of(src.stem, params)
    kept.parent.mkdir(parents=True, exist_ok=True)
    log = kept.with_suffix(".log")
    with open(log, "w") as f:  # kernels announce their sockets on stderr at each start
        os.dup2(f.fileno(), 2)
    before = digest_now(src, params)
    known = pm.inspect_notebook(str(src))
    pm.execute_notebook(
        str(src),
        str(kept),
        parameters={k: v for k, v in params.items() if k in known},
        cwd=str(BOOK),
        kernel_name="python3",
        language="python",
        progress_bar=False,
        execution_timeout=timeout,
        autosave_cell_every=60,
    )
    if digest_now(src, params) != before:  # nobody can tell which version gave these outputs
        raise RuntimeError("inputs changed while it ran; run it again")
    nb = nbformat.read(kept, 4)
    normalise(nb)
    nb.metadata["companion"] = {"inputs": before, "parameters": params}
    write(nb, dst)
    kept.unlink()
    log.unlink()
    return f"{time.time() - began:.0f} s"


def stages(names: list[pathlib.Path]) -> list[tuple[str, list[pathlib.Path]]]:
    """Side by side; then those that time something, one by one; then the readers of rows."""
    marks = {p: directives(code_of(jupytext.read(p))) for p in names}
    readers = [p for p in names if "reads" in marks[p] or p.name.startswith("9")]
    alone = [p for p in names if "alone" in marks[p] and p not in readers]
    rest = [p for p in names if p not in readers and p not in alone]
    return [("together", rest), ("alone", alone), ("together", readers)]


def run(args) -> int:
    sync()
    params = {} if args.profile == "demo" else {"profile": args.profile}
    params |= {k: v for k, v in (("data_root", args.data_root), ("device", args.device)) if v}
    if args.data_root:
        params["data_root"] = str(pathlib.Path(args.data_root).resolve())
    chosen = [p for p in sources() if not args.only or p.stem in args.only]
    if missing := set(args.only) - {p.stem for p in chosen}:
        raise SystemExit(f"no notebook named {', '.join(sorted(missing))} in notebooks/")
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sempart-") as scratch:
        env = kernel_env(scratch, copy=args.profile == "smoke")  # smoke reads the book's rows and writes none
        for how, names in stages(chosen):
            jobs = 1 if how == "alone" else max(1, min(args.j, len(names)))
            threads = str(max(1, (os.cpu_count() or 1) // jobs))
            todo = {}
            for py in names:
                dst = BOOK if args.profile == "demo" else ROOT / "runs" / args.profile
                dst, src = dst / f"{py.stem}.ipynb", py.with_suffix(".ipynb")
                fresh = dst.exists() and stamp(dst) == digest(code_of(nbformat.read(src, 4)), params)
                if fresh and not args.force and args.profile != "smoke":
                    print(f"fresh   {py.stem}", flush=True)
                    continue
                own = {"SEMPART_NOTEBOOK": py.stem, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
                todo[py.stem] = (src, dst, params, env | own, args.timeout)
            failed += _together(todo, jobs)
    print(f"notebooks: {len(failed)} failed: {', '.join(failed)}" if failed else "notebooks: all run")
    return len(failed)


def kernel_env(scratch: str, copy: bool = True) -> dict[str, str]:
    """Of every kernel: it depends on nothing of the user's and sees a copy of the rows, or the rows themselves."""
    results = ROOT / "book" / "results"
    if copy and results.exists():
        shutil.copytree(results, f"{scratch}/results", dirs_exist_ok=True)
    return {
        "PYTHONHASHSEED": "0",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": f"{scratch}/ipython",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TQDM_DISABLE": "1",
        "SEMPART_RESULTS": f"{scratch}/results" if copy else "",
        # glibc hands large blocks back to the system at each free; to fault them in again takes half of a
        # convolution's time on small batches.
        "MALLOC_MMAP_THRESHOLD_": "2000000000",
        "MALLOC_TRIM_THRESHOLD_": "8000000000",
        "MALLOC_TOP_PAD_": "100000000",
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm misses widgets when a library imports it
    }


def _together(todo: dict[str, tuple], jobs: int) -> list[str]:
    """Run jobs in processes (kernels of threads would wait for each other), telling what goes on."""
    if not todo:
        return []
    failed, began = [], time.time()
    print(f"running {', '.join(todo)} ({jobs} at a time)", flush=True)
    with cf.ProcessPoolExecutor(jobs, max_tasks_per_child=1) as pool:
        waiting = {pool.submit(execute, *job): name for name, job in todo.items()}
        while waiting:
            done, _ = cf.wait(waiting, timeout=30, return_when=cf.FIRST_COMPLETED)
            if not done:
                print(f"  ... {', '.join(waiting.values())}: {time.time() - began:.0f} s", flush=True)
            for f in done:
                name = waiting.pop(f)
                try:
                    print(f"ran     {name}: {f.result()}", flush=True)
                except Exception as e:
                    failed.append(name)
                    text = re.sub(r"\x1b\[[0-9;]*m", "", str(e))[-1500:]
                    seen = kept_of(name, todo[name][2]).relative_to(ROOT)
                    print(f"FAILED  {name}: {type(e).__name__}\n{text}\nsee {seen}", flush=True)
    return failed


def stamp(ipynb: pathlib.Path) -> str:
    return nbformat.read(ipynb, 4).metadata.get("companion", {}).get("inputs", "")


def problems(py: pathlib.Path) -> list[str]:
    """What is wrong with one pair, as sentences; an empty list if nothing is."""
    ipynb, source = py.with_suffix(".ipynb"), jupytext.read(py)
    if not ipynb.exists():
        return [f"{py.name}: no .ipynb; run `nb.py sync`"]
    nb, bad = nbformat.read(ipynb, 4), []
    if cells(nb) != cells(source):
        bad.append(f"{py.name}: the pair differs; run `nb.py sync`")
    if nb.metadata.get("companion", {}).get("inputs") != digest(code_of(source)):
        bad.append(f"{py.name}: outputs are stale; run `nb.py run`")
    if (size := ipynb.stat().st_size) > BUDGET:
        bad.append(f"{ipynb.name}: {size:,} bytes, the budget is {BUDGET:,}")
    code = [c for c in nb.cells if c.cell_type == "code" and c.source]
    if [c.execution_count for c in code] != list(range(1, len(code) + 1)):
        bad.append(f"{ipynb.name}: not executed from top to bottom")
    for i, c in enumerate(code, 1):
        tags = set(c.metadata.get("tags", []))
        for o in c.outputs:
            if o.output_type == "error":
                bad.append(f"{ipynb.name} [{i}]: an error; catch and print it")
            if o.output_type == "stream" and o.name == "stderr":
                bad.append(
                    f"{ipynb.name} [{i}]: writes to stderr ({o.text.strip()[:60]!r}); silence the cause"
                )
            if (
                "image/png" in o.get("data", {})
                and "scrapbook" in o.metadata
                and not tags & {"remove-cell", "remove-output"}
            ):
                bad.append(f"{ipynb.name} [{i}]: a glued figure would show twice; tag the cell remove-output")
    text = ipynb.read_text(encoding="utf-8")
    for path in (str(ROOT), str(pathlib.Path.home()) + "/"):
        if len(path) > 2 and path in text:
            bad.append(f"{ipynb.name}: names a folder of this machine")
    return bad


def check() -> int:
    bad = [b for py in sources() for b in problems(py)]
    bad += [
        f"{p.name}: no .py source" for p in sorted(BOOK.glob("*.ipynb")) if not p.with_suffix(".py").exists()
    ]
    print("\n".join(bad) or f"notebooks ok: {len(sources())} pairs, fresh")
    return len(bad)


def show(which: list[str]) -> int:
    for py in sources():
        if not which or set(which) <= set(directives(code_of(jupytext.read(py)))):
            print(py.with_suffix(".ipynb").relative_to(ROOT))
    return 0


def compare() -> int:
    """nbval over the light notebooks: run them and compare every output with the committed one."""
    light = [
        str(p.with_suffix(".ipynb")) for p in sources() if "light" in directives(code_of(jupytext.read(p)))
    ]
    if not light:
        print("no notebook is marked '# nb: light'")
        return 0
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "--nbval",
        "--nbval-cell-timeout",
        "300",
    ]
    command += ["--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg"), *light]
    with tempfile.TemporaryDirectory(prefix="sempart-") as scratch:
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **kernel_env(scratch)}).returncode


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["sync", "run", "check", "compare", "list"])
    ap.add_argument("only", nargs="*", help="run: names of notebooks; list: a mark such as light")
    ap.add_argument("--profile", default="demo", choices=["smoke", "demo", "photos", "paper"])
    ap.add_argument("--data-root", default="")
    ap.add_argument("--device", default="")
    ap.add_argument("-j", type=int, default=2, help="notebooks at a time")
    ap.add_argument("--timeout", type=int, default=1800, help="seconds for one cell")
    ap.add_argument("--force", action="store_true")
    a = ap.parse_intermixed_args()
    todo = {
        "sync": sync,
        "check": check,
        "compare": compare,
        "run": lambda: run(a),
        "list": lambda: show(a.only),
    }
    return min(1, todo[a.what]())


if __name__ == "__main__":
    sys.exit(main())
