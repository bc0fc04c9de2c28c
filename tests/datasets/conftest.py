"""Small pictures on disk for the readers, and a web server that can misbehave."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``; ``server.breaks`` lists after how many bytes to hang up."""

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if server.errors:
            self.send_error(server.errors.pop(0))
            return
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start, status = 0, 200
        asked, tag = self.headers.get("Range"), self.headers.get("If-Range")
        if asked and server.ranges and tag in (None, server.etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            status = 206
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + server.breaks.pop(0) if server.breaks else len(body)
        self.wfile.write(body[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine; tests put files into ``server.files``."""
    monkeypatch.setattr("clip_adapter.datasets.download.fetch._WAIT", 0.0)
    # A proxy of the machine is not for an address on it.
    monkeypatch.setenv("no_proxy", "*")
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.files, running.redirects = {}, {}
    running.asked, running.errors, running.breaks = [], [], []
    running.ranges, running.etag, running.kind = True, '"1"', "application/x-tar"
    running.url = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()
