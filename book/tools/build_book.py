"""Build the book from what is committed, with warnings as errors, and audit it; nothing to do if nothing changed.

python book/tools/build_book.py [--force] [--check-only]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

import check_site

from sempart_core import records

ROOT = pathlib.Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
STAMP = ROOT / "_build" / ".book-inputs"
#: What the pages are made of. The package is in it for the API pages and the cards.
INPUTS = (
    "_config.yml", "_toc.yml", "requirements.txt", "README.md", "LICENSE*", "CITATION.cff", "notebooks/*.ipynb",
    "notebooks/*.py", "book/**/*", "sempart_core/**/*", "data_scripts/**/*",
)  # fmt: skip


def fingerprint() -> str:
    h = hashlib.sha256()
    for p in sorted({p for pattern in INPUTS for p in ROOT.glob(pattern) if p.is_file()}):
        if "__pycache__" not in p.parts and ".running." not in p.name:
            h.update(f"{p.relative_to(ROOT).as_posix()}\0".encode() + hashlib.sha256(p.read_bytes()).digest())
    return h.hexdigest()


def build() -> int:
    for folder in (SITE, ROOT / "_build" / ".doctrees", ROOT / "_build" / ".jupyter_cache"):
        shutil.rmtree(folder, ignore_errors=True)  # Sphinx never deletes a page that is gone
    tool = str(pathlib.Path(sys.executable).parent / "jupyter-book")
    command = [tool, "build", ".", "-W", "-n", "--keep-going"]
    env = {**os.environ, "PYTHONHASHSEED": "0", "MPLBACKEND": "agg", "JUPYTER_PREFER_ENV_PATH": "1"}
    return subprocess.run(command, cwd=ROOT, env=env).returncode


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--force", action="store_true", help="build even if nothing changed")
    ap.add_argument("--check-only", action="store_true", help="audit what is built")
    args = ap.parse_args()
    began, now = time.time(), fingerprint()
    if args.check_only:
        return check_site.report(SITE)
    if not args.force and (SITE / "index.html").exists() and STAMP.exists() and STAMP.read_text() == now:
        print(f"book: up to date, _build/html/index.html ({time.time() - began:.1f} s to see that)")
        return 0
    STAMP.unlink(missing_ok=True)
    print("book: building", flush=True)
    if build():
        print("book: FAILED; warnings count as errors, the first one is above")
        return 1
    if not (SITE / "index.html").exists():
        print("book: FAILED; no index.html came out")
        return 1
    if check_site.report(SITE):
        return 1
    records.write_text(STAMP, now)
    print(f"book: _build/html/index.html ({time.time() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
