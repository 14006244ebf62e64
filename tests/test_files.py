"""Files are whole or absent."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthounlearn import files
from orthounlearn.errors import UsageError
from orthounlearn.files import digest, file_digest, read_json, write_json, write_text, writing

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


class InterruptedWriteError(Exception):
    pass


def test_interrupted_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "result.json"
    write_text(path, "old")

    def interrupted() -> None:
        with writing(path) as temporary:
            temporary.write_text("half of the new")
            raise InterruptedWriteError

    with pytest.raises(InterruptedWriteError):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_full_disk_and_missing_permission_are_explained(tmp_path: Path, code: int):
    def fails() -> None:
        with writing(tmp_path / "x.txt"):
            raise OSError(code, "no")

    with pytest.raises(UsageError, match="choose another folder"):
        fails()
    assert not list(tmp_path.iterdir())


WRITERS = {
    "torch": "import torch; write = lambda p: torch.save(torch.zeros(1 << 20), p)",
    "safetensors": (
        "import torch; from safetensors.torch import save_file; "
        "write = lambda p: save_file({'x': torch.zeros(1 << 20)}, p)"
    ),
    "numpy": "import numpy; write = lambda p: numpy.save(p, numpy.zeros(1 << 20))",
    "text": "write = lambda p: p.write_text('x' * (1 << 22))",
}

_ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from orthounlearn.errors import UsageError
from orthounlearn.files import writing
{writer}
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
(folder / "x.npy").write_text("old")
try:
    with writing(folder / "x.npy") as temporary:
        write(temporary)
except UsageError as error:
    assert [p.name for p in folder.iterdir()] == ["x.npy"]
    assert (folder / "x.npy").read_text() == "old"
    sys.exit(f"refused: {{error}}")
"""


@pytest.mark.parametrize("writer", WRITERS)
def test_disk_that_is_full_is_explained_whoever_writes(tmp_path: Path, writer: str):
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]  # gone with the process
    tmp_path = tmp_path.resolve()
    mount = ["mount", "-t", "tmpfs", "none", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*namespace, *mount], check=False).returncode:
        pytest.skip("needs a file system of its own, which only Linux gives")
    program = _ON_A_SMALL_DISK.format(writer=WRITERS[writer])
    command = [*namespace, sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "refused: Cannot write" in done.stderr
    assert f"{tmp_path}/x.npy: no space left" in done.stderr
    assert "paths.runs=FOLDER" in done.stderr


class WriterError(RuntimeError):
    pass


def test_errors_of_a_writer_that_finds_a_full_disk_alone_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails() -> None:
        with writing(tmp_path / "x.pt"):
            raise WriterError("PytorchStreamWriter failed writing file data/0")

    with pytest.raises(WriterError):  # the disk is not full: an error like any other
        fails()
    monkeypatch.setattr(files, "_write_error", lambda _: errno.ENOSPC)
    with pytest.raises(UsageError, match="no space left"):
        fails()
    assert not list(tmp_path.iterdir())


def test_parent_that_is_a_file_is_explained(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_written_files_are_readable_by_others(tmp_path: Path):
    write_text(tmp_path / "x", "x")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


@given(_JSON)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: object):
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_damaged_json_is_named(tmp_path: Path):
    path = tmp_path / "metrics.json"
    path.write_text('{"acc": 0.')
    with pytest.raises(UsageError, match=r"metrics\.json.*damaged"):
        read_json(path)
    with pytest.raises(UsageError, match="there is none"):
        read_json(tmp_path / "absent.json")


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=5))
def test_digest_ignores_the_order_of_keys(value: dict[str, int]):
    assert digest(value) == digest(dict(reversed(list(value.items()))))


@given(_JSON, _JSON)
def test_digest_tells_values_apart(one: object, other: object):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one) == digest(other)) == same


def test_file_digest_is_sha256(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert file_digest(tmp_path / "abc") == expected
