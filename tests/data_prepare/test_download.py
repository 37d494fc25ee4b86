"""The download against a small hub of our own on loopback, through the real huggingface_hub."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMIT = "c" * 40
LOGS = {"train_origin.jsonl": b'{"session_id": 1}\n', "test_origin.jsonl": b'{"session_id": 2}\n'}


class Hub(BaseHTTPRequestHandler):
    """Speaks the part of the hub's protocol that snapshot_download uses."""

    files = LOGS

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/datajuicer/RealMedConv/revision/"):
            known = path.rpartition("/")[2] in ("main", "v1", COMMIT)
            siblings = [{"rfilename": name} for name in self.files]
            info = {"id": "datajuicer/RealMedConv", "sha": COMMIT, "siblings": siblings}
            self.send(200 if known else 404, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
            return
        name = path.rpartition("/")[2]
        content = self.files.get(name)
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
        self.send(404 if content is None else 200, content or b"", headers, body)

    def send(self, status, content, headers, body):
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "RevisionNotFound")
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(request):
    handler = type("SomeHub", (Hub,), {"files": getattr(request, "param", LOGS)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def download(tmp_path, *flags, **env):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tuner.learn_to_ask.data_prepare.download",
            "--local_dir",
            str(tmp_path / "data"),
            *flags,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", **env},
    )


@pytest.mark.parametrize("flags", [[], ["--revision", "v1"]])
def test_the_raw_logs_land_where_they_are_asked_for(hub, tmp_path, flags):
    done = download(tmp_path, *flags, HF_ENDPOINT=hub)

    assert done.returncode == 0, done.stderr
    assert {name: (tmp_path / "data" / name).read_bytes() for name in LOGS} == LOGS
    assert "train_origin.jsonl  18 bytes" in done.stdout
    assert "CC BY-NC-SA 4.0" in done.stdout


def test_what_is_there_already_serves_without_a_network(hub, tmp_path):
    download(tmp_path, HF_ENDPOINT=hub)

    again = download(tmp_path, HF_ENDPOINT="http://127.0.0.1:1", HF_HUB_OFFLINE="1")

    assert again.returncode == 0, again.stderr


def test_a_hub_that_cannot_be_reached_is_one_clear_line(tmp_path):
    done = download(tmp_path, HF_ENDPOINT="http://127.0.0.1:1", HF_HUB_OFFLINE="1")

    assert done.returncode == 2
    assert "HF_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1


def test_an_unknown_revision_is_one_clear_line(hub, tmp_path):
    done = download(tmp_path, "--revision", "gone", HF_ENDPOINT=hub)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: datajuicer/RealMedConv")


@pytest.mark.parametrize("hub", [{"README.md": b"moved"}], indirect=True)
def test_a_data_set_without_the_logs_is_named(hub, tmp_path):
    done = download(tmp_path, HF_ENDPOINT=hub)

    assert done.returncode == 2
    assert "train_origin.jsonl, test_origin.jsonl is not in it" in done.stderr
