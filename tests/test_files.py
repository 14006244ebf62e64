"""Files are whole or absent."""

import errno
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
