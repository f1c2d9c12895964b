"""Live streams: a server on this machine that sends a video as it comes, stops, or breaks off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from scene_track import api
from scene_track.data import container
from scene_track.data.footage import open_footage
from scene_track.predict import predict
from tests.compose import MINIMAL
from tests.test_predict import checkpoint_of
from tests.videos import squares, write_video

FRAMES = 60
PARTS = 60
"""Of the file, which are sent one after the other."""


@contextmanager
def server(folder: Path, pause_s: float, until: dict[int, int | None]) -> Iterator[str]:
    """The address of a stream that begins when somebody connects.

    Args:
        folder: for the file.
        pause_s: between two parts.
        until: by connection, from 1: the part after which it breaks off; None = after which it
            sends nothing more and stays open. Others go on to the end, and say so.
    """
    options = {"g": "5", "crf": "10", "tune": "zerolatency"}
    content = write_video(folder / "a.ts", squares(FRAMES), options=options).read_bytes()
    size = -(-len(content) // PARTS // 188) * 188
    parts = iter([content[n : n + size] for n in range(0, len(content), size)])
    over, connections = threading.Event(), iter(range(1, 100))

    class Sender(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            number = next(connections)
            limit = until.get(number, PARTS)
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for count, part in enumerate(parts, start=1):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                if count == (PARTS // 2 if limit is None else limit):
                    break
                time.sleep(pause_s)
            if limit is None:
                over.wait(30)
            if limit == PARTS:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Sender)
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/live.ts?key=1"
    finally:
        over.set()
        http.shutdown()
        http.server_close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    words = [*MINIMAL, f"dataset.root={folder}", "dataset.size=[64,96]"]
    return checkpoint_of(folder / "a.ckpt", *words)


@pytest.fixture(scope="module")
def run(checkpoint: Path) -> api.Run:
    return api.load(checkpoint, device="cpu")


def test_a_slow_model_drops_frames_and_keeps_their_times(run: api.Run, tmp_path: Path) -> None:
    with server(tmp_path, 0.02, {}) as address:
        footage = open_footage(address)
        assert footage.live and footage.name == "live"
        found = []
        for frame in run.follow(footage):
            found.append(frame)
            time.sleep(0.1)
    numbers = np.array([frame.number for frame in found])
    assert len(found) < FRAMES and (np.diff(numbers) > 0).all() and numbers[-1] == FRAMES
    seconds = [frame.seconds for frame in found]
    assert seconds == pytest.approx((numbers - 1) / 20, abs=2e-3)


def test_a_connection_that_breaks_off_is_made_anew(run: api.Run, tmp_path: Path) -> None:
    with server(tmp_path, 0.01, {1: PARTS // 2}) as address:
        footage = open_footage(address)
        numbers = [frame.number for frame in run.follow(footage)]
    assert numbers[-1] > 0.9 * FRAMES


def test_a_stream_that_goes_silent_has_ended(
    checkpoint: Path,
    tmp_path: Path,
    composed: Callable,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(container, "_SILENT_S", 1.0)
    with server(tmp_path, 0.01, {1: None}) as address:
        words = (f"checkpoint={checkpoint}", f"source='{address}'", f"output={tmp_path}/o")
        predict(composed("predict", *words))
    content = json.loads((tmp_path / "o" / "tracks.json").read_text())
    assert content["complete"] and 10 < content["frames"][-1]["frame"] < FRAMES - 10
    assert "nothing came for 1 s" in caplog.text


def test_ctrl_c_ends_a_stream_that_is_silent(run: api.Run, tmp_path: Path) -> None:
    stop = threading.Event()
    with server(tmp_path, 0.0, {1: None}) as address:
        frames = run.follow(open_footage(address), stop=stop)
        first = next(frames).number  # a busy machine has dropped some before
        threading.Timer(0.3, stop.set).start()
        began = time.monotonic()
        assert all(first < frame.number < FRAMES for frame in frames)
        assert time.monotonic() - began < container._SILENT_S / 2
