"""What a run could not test is said at its end, under plain pytest and under xdist."""

from __future__ import annotations

import importlib.util

from parity_vectors import folder


def pytest_configure():
    folder()  # a wrong SEMPART_VECTORS ends the run here


def pytest_terminal_summary(terminalreporter):
    said = []
    if not folder().is_dir():
        said.append(
            "PARITY NOT TESTED: the folder of reference vectors is absent. "
            "Set SEMPART_VECTORS to it; without it nothing says that we agree with the public code."
        )
    if importlib.util.find_spec("pydensecrf") is None:
        said.append("DENSE CRF NOT TESTED: pydensecrf2 is not installed; it needs a C++ compiler.")
    for line in said:
        terminalreporter.write_line("")
        terminalreporter.write_line(line, red=True, bold=True)
