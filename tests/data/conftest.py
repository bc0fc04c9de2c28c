"""Small pictures on disk for the readers of folders, tables and split files."""

import io

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def png_bytes():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (10, 20, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def put(tmp_path, png_bytes):
    """put("a/1.png", ...) makes the files under tmp_path, with the bytes of a picture."""

    def make(*names, data=png_bytes):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path

    return make
