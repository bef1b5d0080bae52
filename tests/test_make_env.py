"""Setting up: what may fail without a compiler, and what may not."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "book" / "tools"))

import make_env

LOCK = "numpy==2.0\n    # via sempart (pyproject.toml)\npydensecrf2==1.1\n    # via x\npygments==2.21.0\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An environment that seems to exist; ``breaks`` names the requirement whose installation fails."""
    (tmp_path / "requirements.txt").write_text(LOCK)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    monkeypatch.setattr(make_env, "ROOT", tmp_path)
    monkeypatch.setattr(make_env, "fingerprint", lambda: "new")
    monkeypatch.setattr(make_env.shutil, "which", lambda name: None)
    breaks, asked = [], []

    def call(*command, **env):
        last = pathlib.Path(command[-1])
        asked.append(last.read_text() if last.is_file() else str(command[-1]))
        if any(b in asked[-1] for b in breaks):
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(make_env, "call", call)
    return tmp_path / ".venv" / ".sempart-env", breaks, asked


def test_the_lock_is_parted():
    rest, optional = make_env.split_lock(LOCK)
    assert optional == "pydensecrf2==1.1"
    assert "numpy==2.0" in rest and "pygments==2.21.0" in rest and "pydensecrf2" not in rest
    real = (pathlib.Path(__file__).resolve().parents[1] / "requirements.txt").read_text()
    assert make_env.split_lock(real)[1].startswith("pydensecrf2==")


def test_without_a_compiler_the_rest_is_installed(project, capsys):
    stamp, breaks, asked = project
    breaks.append("pydensecrf2")
    assert make_env.main(".venv") == 0
    assert len(asked) == 3 and "numpy==2.0" in asked[0] and asked[1:] == [".", "pydensecrf2==1.1"]
    assert "C++ compiler" in capsys.readouterr().out
    assert stamp.read_text() == "new" and [p.name for p in stamp.parent.glob(".*")] == [stamp.name]


def test_a_failed_installation_leaves_no_stamp(project, capsys):
    stamp, breaks, _ = project
    stamp.write_text("old")
    breaks.append("numpy")
    assert make_env.main(".venv") == 1 and not stamp.exists()
    breaks.clear()
    assert make_env.main(".venv") == 0 and stamp.read_text() == "new"
    assert "C++" not in capsys.readouterr().out
