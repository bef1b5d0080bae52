"""Trainings on two processes, for tests: how they are started, and what each of them notes of its weights."""

from __future__ import annotations

import hashlib
import os
import pathlib
import signal
import subprocess
import sys


def on_two_processes(script, *arguments):
    """What the script says on two processes: standard output and errors."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    with subprocess.Popen(
        [*command, *arguments], cwd=pathlib.Path(__file__).parents[1], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, process_group=0,
    ) as both:  # fmt: skip
        try:
            said, errors = both.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            os.killpg(both.pid, signal.SIGKILL)  # the workers too
            raise
    assert both.returncode == 0, errors
    return said, errors


def digest(parameters):
    """Of all weights, bit for bit."""
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in parameters)).hexdigest()


def note_each_step(folder):
    """From now on every step of SEMPART's training adds the digest of its weights to the file of its rank."""
    from sempart_core import training_loop

    follow = training_loop._follow

    def look(parts):
        with open(pathlib.Path(folder, os.environ["RANK"]), "a") as f:
            f.write(digest(parts["model"].parameters()) + "\n")
        follow(parts)

    training_loop._follow = look
