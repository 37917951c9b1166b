"""Files of other programs: what is taken from them, and that nothing in them is run or believed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from striate.errors import CheckpointError, ResourceError
from striate.models import foreign, unpickle


@pytest.fixture(autouse=True)
def _no_temporary_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    yield
    assert list((tmp_path / "temporary").iterdir()) == []


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


class Touches:
    """Opened by an ordinary unpickler, this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


def test_a_nest_in_the_old_format_comes_through_to_the_bit(tmp_path: Path) -> None:
    tensors = {**network().state_dict(), "half": torch.randn(3).half(), "strided": torch.randn(4, 6).t()}
    held = {"epoch": 3, "optimizer": {"lr": 0.1}, "state_dict": tensors, "state_dict_ema": {}}
    torch.save(held, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found, nest = foreign.read(tmp_path / "old.pth")
    assert nest == "state_dict"
    assert found.keys() == tensors.keys()
    assert all(found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path, written = tmp_path / "evil.pth", tmp_path / "written"
    torch.save({"conv.weight": torch.zeros(2), "more": Touches(written)}, path)
    with pytest.raises(
        CheckpointError, match=r"evil\.pth: holds more than tensors: opening it would run posix\.system"
    ) as caught:
        foreign.read(path)
    assert caught.value.exit_code == 4
    assert not written.exists()
    pickle.loads(pickle.dumps(Touches(written)))  # the control: opened as pickles usually are, it does write
    assert written.exists()


def test_a_truncated_file_and_one_that_is_none(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:1500])
    with pytest.raises(CheckpointError, match=r"cut\.pth: cannot be read: cut short, damaged, or no weight file"):
        foreign.read(tmp_path / "cut.pth")
    (tmp_path / "advice.pth").write_bytes(pickle.dumps(print, protocol=4))
    with pytest.raises(CheckpointError) as caught:
        foreign.read(tmp_path / "advice.pth")
    assert "Fetch or save it again" in str(caught.value) and "weights_only" not in str(caught.value)  # torch advises to trust it
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><html>404</html>")
    with pytest.raises(CheckpointError, match=r"page\.pth: is a web page, not weights"):
        foreign.read(tmp_path / "page.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CheckpointError, match=r"empty\.pth: the file is empty"):
        foreign.read(tmp_path / "empty.pth")


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(network().state_dict(), tmp_path / "large.pth")
    monkeypatch.setattr(foreign, "MOST_BYTES", 1000)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(CheckpointError, match=r"large\.pth: [0-9,]+ bytes are too large for a weight file; 1,000 are taken"):
        foreign.read(tmp_path / "large.pth")


def test_a_child_that_dies_is_reported_with_its_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, -9, "", ""))
    with pytest.raises(CheckpointError, match=r"w\.pth: the process that read it was ended by SIGKILL"):
        foreign.read(tmp_path / "w.pth")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, '{"nest": null}', ""))
    with pytest.raises(ResourceError, match=r"w\.pth: cannot be converted in .*TMPDIR"):
        foreign.read(tmp_path / "w.pth")


# ---------------------------------------------------------------- the child's program, in this process


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.eye(3).to_sparse(), r"'w' is not a dense tensor \(sparse_coo\)"),
        (torch.zeros(4, dtype=torch.complex64), r"'w' holds complex64"),
        (torch.zeros(4, dtype=torch.bool), r"'w' holds bool"),
        (torch.zeros(1).expand(10**9), r"'w' makes its tensors larger than 1,000,000 bytes"),
        (torch.zeros(2, device="meta"), r"'w' is not a dense tensor \(on no device\)"),
        ([1, 2], r"'w' is a list; expected a dense tensor"),
    ],
)
def test_only_dense_tensors_of_numbers_are_taken(value: object, reason: str) -> None:
    with pytest.raises(unpickle.Refused, match=reason):
        unpickle._dense({"fine": torch.zeros(2), "w": value}, 1_000_000)


def test_parameters_and_views_become_tensors_of_their_own() -> None:
    whole = torch.arange(6.0)
    taken = unpickle._dense({"a": nn.Parameter(whole), "b": whole[::2]}, 1_000_000)
    assert type(taken["a"]) is torch.Tensor and not taken["a"].requires_grad
    assert taken["b"].tolist() == [0, 2, 4] and taken["b"].is_contiguous() and taken["b"].untyped_storage().nbytes() == 12


@pytest.mark.parametrize(
    ("held", "nest"),
    [
        ({"a": torch.zeros(1)}, None),
        ({"model": {"a": torch.zeros(1)}, "epoch": 2}, "model"),
        ({"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}}, "state_dict_ema"),
        ({"model": "resnet50", "net": {"a": torch.zeros(1)}}, "net"),
    ],
)
def test_nests(held: dict[str, Any], nest: str | None) -> None:
    found, tensors = unpickle._tensors(held)
    assert found == nest and list(tensors) == ["a"]
    assert tensors["a"] is (held if nest is None else held[nest])["a"]


@pytest.mark.parametrize(("held", "reason"), [([1], "holds a list"), ({"epoch": 3}, "holds no named tensors; it has: epoch")])
def test_what_holds_no_tensors(held: object, reason: str) -> None:
    with pytest.raises(unpickle.Refused, match=reason):
        unpickle._tensors(held)


def test_programs_and_whole_networks_are_refused_with_the_way_out(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    with pytest.warns(Warning, match="deprecated"):
        torch.jit.script(Twice()).save(str(tmp_path / "script.pt"))
    with pytest.raises(unpickle.Refused, match=r"holds a program \(TorchScript.*torch\.save\(model\.state_dict\(\), FILE\)"):
        unpickle._open(tmp_path / "script.pt")
    torch.save(network(), tmp_path / "whole.pth")
    with pytest.raises(
        unpickle.Refused, match=r"opening it would run torch\.nn\.modules\.container\.Sequential\. Nothing was run"
    ):
        unpickle._open(tmp_path / "whole.pth")


ATTEMPTS = {
    "open": "open(place, 'w')",
    "append": "open(own, 'a')",
    "os.open": "os.open(place, os.O_CREAT | os.O_WRONLY)",
    "remove": "os.remove(own)",
    "mkdir": "os.mkdir(place)",
    "run": "subprocess.run(['true'])",
    "system": "os.system('true')",
    "fork": "os.fork()",
    "connect": "socket.create_connection(('127.0.0.1', 9))",
    "server": "socket.socket().bind(('127.0.0.1', 0))",
}


def test_the_second_line_stops_what_is_more_than_reading(tmp_path: Path) -> None:
    """The audit hook and the limit of memory alone, without torch's restricted reader before them."""
    (tmp_path / "own").write_text("kept")
    attempts = "".join(
        f"try:\n    {doing}\n    print('done', {name!r})\nexcept Refused:\n    pass\n" for name, doing in ATTEMPTS.items()
    )
    code = (
        "import os, socket, subprocess, sys\nfrom pathlib import Path\n"
        "from striate.models.unpickle import Refused, _limit, _watch\n"
        f"place, own, out = {str(tmp_path / 'new')!r}, {str(tmp_path / 'own')!r}, Path({str(tmp_path / 'out')!r})\n"
        f"sys.addaudithook(lambda event, arguments: _watch(event, arguments, out))\n{attempts}"
        "open(own).read(); open(out, 'w').write('x')\n"
        "_limit(1 << 20)\ntry:\n    bytearray(3 << 30)\n    print('memory')\nexcept MemoryError:\n    print('end')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "end\n", done.stdout + done.stderr
    assert (tmp_path / "own").read_text() == "kept" and not (tmp_path / "new").exists()


def test_what_the_second_line_lets_through() -> None:
    out = Path("/somewhere/out")
    unpickle._watch("open", ("/some/file", "rb", os.O_RDONLY), out)
    unpickle._watch("open", (str(out), "wb", os.O_WRONLY | os.O_CREAT), out)
    unpickle._watch("import", ("torch", None, None, None, None), out)
