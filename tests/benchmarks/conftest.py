"""Benchmarks run on request only: ``pytest tests/benchmarks --benchmark-only``."""

from __future__ import annotations

import pathlib

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    if config.getoption("benchmark_only", default=False):
        return
    slow = [i for i in items if HERE in i.path.parents and "benchmark" in getattr(i, "fixturenames", ())]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [i for i in items if i not in slow]
