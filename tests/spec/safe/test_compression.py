"""Files packed for the wire, and the cache that keeps them."""

import lzma
import os

import pytest

from edgesparse.spec.safe import compression as packing
from edgesparse.spec.safe.compression import packed, wire_bytes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgesparse" / "packed"


def write(path, content):
    path.write_bytes(content)
    return path


def test_what_gets_smaller_is_packed_once(tmp_path, cache):
    source = write(tmp_path / "zeros.tflite", bytes(100_000))
    found = packed(source)
    assert lzma.decompress(found.read_bytes()) == source.read_bytes()
    assert wire_bytes(source) == found.stat().st_size < 1000
    before = found.stat().st_ino
    assert packed(write(tmp_path / "same.tflite", bytes(100_000))).stat().st_ino == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("random.tflite", os.urandom(100_000)),
        ("small.tflite", bytes(1000)),
        ("zeros.whl", bytes(100_000)),
    ],
    ids=["random", "small", "packed already"],
)
def test_what_gains_nothing_goes_as_it_is(tmp_path, name, content):
    source = write(tmp_path / name, content)
    assert packed(source) is None
    assert packed(source) is None, "also when it was looked at before"
    assert wire_bytes(source) == len(content)


def test_the_cache_is_bounded(tmp_path, cache, monkeypatch):
    first = packed(write(tmp_path / "a.tflite", b"a" * 100_000))
    os.utime(first, (1, 1))
    monkeypatch.setattr(packing, "KEPT_BYTES", 100)
    second = packed(write(tmp_path / "b.tflite", b"b" * 100_000))
    assert not first.exists()
    assert second.exists()


def test_a_cache_that_cannot_be_written_costs_packing_only(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert packed(write(tmp_path / "zeros.tflite", bytes(100_000))) is None
