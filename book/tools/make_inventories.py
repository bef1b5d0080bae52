"""Tiny intersphinx inventories for the outside names we mention, so that -n -W works with no network.

python book/tools/make_inventories.py
"""

from __future__ import annotations

import pathlib
import zlib

from sempart_core import records

NUMPY = [("numpy.ndarray", "class", "reference/generated/numpy.ndarray.html#$")]
PYTHON = [
    ("pathlib.Path", "class", "library/pathlib.html#$"),
    ("collections.abc.Mapping", "class", "library/collections.abc.html#$"),
    *((f"{n}", "class", f"library/{page}.html#{n}") for n, page in (
        ("int", "functions"), ("float", "functions"), ("bool", "functions"), ("str", "stdtypes"),
        ("dict", "stdtypes"), ("list", "stdtypes"), ("tuple", "stdtypes"), ("bytes", "stdtypes"))),
    ("None", "data", "library/constants.html#None"),
    ("ValueError", "exception", "library/exceptions.html#ValueError"),
]  # fmt: skip
TORCH = [
    ("torch.Tensor", "class", "tensors.html#$"),
    ("torch.Tensor.to", "method", "generated/torch.Tensor.to.html#$"),
    ("torch.nn.Module", "class", "generated/torch.nn.Module.html#$"),
]
WANT = {"numpy": NUMPY, "python": PYTHON, "torch": TORCH}

if __name__ == "__main__":
    out = pathlib.Path(__file__).resolve().parents[1] / "_inventories"
    for name, objects in WANT.items():
        head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        body = "".join(f"{n} py:{role} 1 {uri} -\n" for n, role, uri in objects)
        records.write_bytes(out / f"{name}.inv", head.encode() + zlib.compress(body.encode(), 9))
        print(name, len(objects))
