"""The feature cache: same numbers, no second forward pass, nothing stale, nothing fatal."""

from __future__ import annotations

import dataclasses
import pickle
import sqlite3

import diskcache
import pytest
import torch

from sempart_core import SempartError, cache
from sempart_core.backbones import BACKBONES, Backbone, build
from sempart_core.cache import extract_cached


@pytest.fixture
def net(monkeypatch):
    torch.manual_seed(0)
    card = BACKBONES.card("dino_vits16")
    extra = {**card.extra, "feature": "keys@0", "taus": {"keys@0": 0.2}}
    b = Backbone(build(card, depth=1), dataclasses.replace(card, extra=extra), sha256="a" * 64)
    b.seen = 0
    forward = b.extract

    def counted(images, **kw):
        b.seen += len(images)
        return forward(images, **kw)

    monkeypatch.setattr(b, "extract", counted)
    return b


def pictures(n, seed=0, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def same(a, b):
    assert (a.grid, a.patch, a.size, a.tau, a.name) == (b.grid, b.patch, b.size, b.tau, b.name)
    assert (
        torch.equal(a.x, b.x) and torch.equal(a.attention, b.attention) and a.layers.keys() == b.layers.keys()
    )
    assert all(torch.equal(a.layers[k], b.layers[k]) for k in a.layers) and torch.equal(a.images, b.images)


def test_a_second_call_reads_and_gives_the_same(net, tmp_path):
    x = pictures(3)
    first = extract_cached(net, x, ["keys@0", "tokens@0"], directory=tmp_path)
    assert net.seen == 3
    same(first, extract_cached(net, x, ["keys@0", "tokens@0"], directory=tmp_path))
    assert net.seen == 3
    plain = net.extract(x, layers=["keys@0", "tokens@0"])
    assert torch.allclose(first.x, plain.x, rtol=2e-3, atol=1e-3) and not torch.equal(first.x, plain.x)
    assert first.x.dtype == torch.float32 and first.name == plain.name


def test_only_new_images_pass_the_network_and_order_is_kept(net, tmp_path):
    x = pictures(4)
    extract_cached(net, x[1:3], directory=tmp_path)
    mixed = extract_cached(net, x.flip(0), directory=tmp_path)
    assert net.seen == 4
    whole = extract_cached(net, x.flip(0), directory=tmp_path / "other")
    # another batch, another order of summation: half precision may round to the neighbour
    torch.testing.assert_close(mixed.x, whole.x, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(mixed.attention, whole.attention, atol=2e-3, rtol=2e-3)
    assert torch.equal(mixed.images, whole.images)


@pytest.mark.parametrize("policy", ["resize", "pad", "crop"])
def test_cached_geometry_equals_fresh_geometry(net, tmp_path, policy):
    x = pictures(1, size=39)
    for _ in range(2):
        got = extract_cached(net, x, policy=policy, directory=tmp_path)
        want = net.extract(x, policy=policy)
        assert (got.grid, got.size) == (want.grid, want.size) and torch.equal(got.images, want.images)


def test_what_changes_the_features_changes_the_key(net, tmp_path):
    x = pictures(1)
    extract_cached(net, x, directory=tmp_path)
    variants = [{"layers": ["tokens@0"]}, {"policy": "pad"}, {"attention": False}]
    for n, kw in enumerate(variants, start=2):
        extract_cached(net, x, directory=tmp_path, **kw)
        assert net.seen == n
    extract_cached(net, x + torch.where(x > 0.5, -1e-3, 1e-3), directory=tmp_path)
    extract_cached(net, x[..., :16], directory=tmp_path)
    net.sha256 = "b" * 64
    extract_cached(net, x, directory=tmp_path)
    assert net.seen == 7


def damage(path, what):
    files = [p for p in path.rglob("*.val")]
    assert files
    if what == "flipped":
        data = bytearray(files[0].read_bytes())
        data[len(data) // 2] ^= 1
        files[0].write_bytes(data)
    elif what == "cut":
        files[0].write_bytes(files[0].read_bytes()[:50])
    elif what == "gone":
        files[0].unlink()
    elif what == "no database":
        (path / "cache.db").write_bytes(b"this is no database at all" * 99)
        for p in path.glob("cache.db-*"):
            p.unlink()


@pytest.mark.parametrize("what", ["flipped", "cut", "gone", "no database"])
def test_damage_costs_a_computation_not_a_run(net, tmp_path, what):
    x = pictures(1, size=112)  # large enough for a file of its own
    first = extract_cached(net, x, directory=tmp_path)
    damage(tmp_path, what)
    same(first, extract_cached(net, x, directory=tmp_path))
    assert net.seen == 2
    same(first, extract_cached(net, x, directory=tmp_path))
    assert net.seen == 2


class Evil:
    def __reduce__(self):
        return (print, ("run from the cache",))


def test_pickles_in_the_folder_are_not_read(net, tmp_path, capsys):
    x = pictures(1)
    extract_cached(net, x, directory=tmp_path)
    with sqlite3.connect(tmp_path / "cache.db") as db:
        db.execute("UPDATE Cache SET mode = 4, value = ?, filename = NULL", (pickle.dumps(Evil()),))
    extract_cached(net, x, directory=tmp_path)
    assert net.seen == 2 and "run from" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_used_is_no_error(net, tmp_path, monkeypatch):
    def refuse(*a, **kw):
        raise PermissionError("read-only")

    monkeypatch.setattr(diskcache, "Cache", refuse)
    for n in (1, 2):
        extract_cached(net, pictures(1), directory=tmp_path / "x")
        assert net.seen == n


def test_the_size_limit_holds(net, tmp_path):
    limit = 400_000
    for i in range(20):
        extract_cached(net, pictures(1, seed=i, size=112), directory=tmp_path, size_limit=limit)
    with diskcache.Cache(tmp_path) as store:
        assert store.volume() < limit + 150_000 and 0 < len(store) < 20  # culled after an entry is written
    extract_cached(net, pictures(1, seed=19, size=112), directory=tmp_path, size_limit=limit)
    assert net.seen == 20  # the newest is there


def test_values_beyond_half_precision_survive(net, tmp_path):
    with torch.no_grad():
        net.model.blocks[0].attn.qkv.bias[384] = 1e6
    extract_cached(net, pictures(1), directory=tmp_path)
    assert extract_cached(net, pictures(1), directory=tmp_path).x.max() > 9e5


def test_off_clear_and_bad_input(net, tmp_path):
    x = pictures(1)
    extract_cached(net, x, directory=tmp_path / "c", size_limit=0)
    assert not (tmp_path / "c").exists()
    extract_cached(net, x, directory=tmp_path / "c")
    cache.clear(tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(SempartError, match=r"not 0\.\.255"):
        extract_cached(net, x * 255, directory=tmp_path)
    with pytest.raises(SempartError, match="policy"):
        extract_cached(net, x, policy="stretch", directory=tmp_path)


def test_a_network_without_a_hash_is_not_cached(net, tmp_path):
    net.sha256 = ""
    for _ in range(2):
        extract_cached(net, pictures(1), directory=tmp_path)
    assert net.seen == 2 and not list(tmp_path.iterdir())


def test_a_busy_cache_is_left_alone_and_a_broken_one_loses_only_its_own(net, tmp_path, monkeypatch):
    x = pictures(1)
    extract_cached(net, x, directory=tmp_path)
    (tmp_path / "precious.txt").write_text("mine")
    with monkeypatch.context() as m:

        def locked(*args, **kw):
            raise sqlite3.OperationalError("database is locked")

        m.setattr(cache.diskcache.Cache, "get", locked)
        extract_cached(net, x, directory=tmp_path)
    assert net.seen == 2
    extract_cached(net, x, directory=tmp_path)
    assert net.seen == 2, "the entry outlived the lock"
    for f in tmp_path.glob("cache.db*"):
        f.write_bytes(b"no database at all" * 100)
    extract_cached(net, x, directory=tmp_path)
    assert net.seen == 3 and (tmp_path / "precious.txt").read_text() == "mine"
