"""Files are written whole or not at all."""

import pytest

from clip_adapter.errors import DataError
from clip_adapter.files import replacing, write_file


def test_written_with_its_folder_and_nothing_beside_it(tmp_path):
    path = write_file(tmp_path / "new" / "a.bin", b"one")
    assert write_file(path, b"two").read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_file(tmp_path / "a.bin", b"old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b"ne")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    file = write_file(tmp_path / "file", b"")
    with pytest.raises(DataError, match="cannot be written"):
        write_file(file / "below" / "a.bin", b"")
    with pytest.raises(DataError, match="cannot be written"):
        write_file(tmp_path, b"")  # a folder is there
