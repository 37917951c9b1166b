"""Files: whole or not at all, strict JSON, and errors of the disk in words with an exit code."""

import errno
import json
import os
from pathlib import Path

import pytest

from striate import files
from striate.errors import ResourceError, UserError


def test_write_whole_replaces_the_content_and_leaves_no_other_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    for content in ("first", b"second, longer", ""):
        files.write_whole(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, ResourceError, "no room left while writing it"),
        (errno.EDQUOT, ResourceError, "no room left"),
        (errno.EFBIG, ResourceError, "no room left"),
        (errno.EACCES, UserError, "no permission"),
        (errno.EROFS, UserError, "no permission"),
        (errno.EIO, ResourceError, "Input/output error while writing it"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_c2_a_write_that_fails_keeps_the_old_file_and_has_an_exit_code(tmp_path, monkeypatch, number, kind, words, call):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(kind, match=words):
        files.write_json(path, {"new": 2})
    monkeypatch.undo()
    assert files.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_write_whole_has_the_data_on_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, real=real: (calls.append(name), real(*given))[1])
    files.write_whole(tmp_path / "a", "text")
    assert calls == ["fsync", "replace", "fsync"]


def test_e12_nan_and_infinity_become_null_at_any_depth():
    value = {"a": float("nan"), "b": [1.5, float("inf"), (float("-inf"), {"c": float("nan")})], 3: "three"}
    text = files.to_json(value)
    assert json.loads(text) == {"a": None, "b": [1.5, None, [None, {"c": None}]], "3": "three"}
    assert "NaN" not in text and "Infinity" not in text
    assert files.to_json({"a": "日"}, indent=None) == '{"a": "日"}'


def test_d26_file_names_that_are_not_utf8_survive_json(tmp_path: Path):
    odd = os.fsdecode(b"photo \xff.jpg")
    files.write_json(tmp_path / "a.json", {"key": odd, "other": "日"})
    assert files.read_json(tmp_path / "a.json") == {"key": odd, "other": "日"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1,\n "b": }', r"not valid JSON \(line 2"),
        (b"", r"not valid JSON \(line 1"),
        (b'{"a": NaN}', "NaN is no number in JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 5000, "not valid JSON"),
    ],
)
def test_g3_json_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)


def test_a_json_file_that_is_missing_or_a_folder_is_named(tmp_path: Path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            files.read_json(path)


def test_hashes_are_sha256(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert files.sha256_file(tmp_path / "a") == files.sha256_bytes(b"abc") == known


def test_free_bytes_looks_at_the_nearest_existing_folder(tmp_path: Path):
    assert files.free_bytes(tmp_path / "not" / "yet") == pytest.approx(files.free_bytes(tmp_path), rel=0.2)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STRIATE_CACHE", "/a")
    assert files.cache_folder() == Path("/a")
    monkeypatch.delenv("STRIATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert files.cache_folder() == Path("/b/striate")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache/striate"
