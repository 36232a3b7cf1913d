"""The smoke test of an image, with images that have a single defect each; real Docker."""

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.ci import container
from infra.errors import StepError
from tests.infra.plugins import found

pytestmark = pytest.mark.slow

SERVICE = """
import http.server, json, signal, sys
CONTENT = {"application/json": {"example": {"rows": [{"a": 1}]}}}
DOCUMENT = {
    "paths": {"/predict": {"post": {"requestBody": {"content": CONTENT}}}},
    "components": {"schemas": {"Row": {"required": ["a"]}}},
}
class Answer(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        self.answer(DOCUMENT)
    def do_POST(self):
        self.answer({"predictions": %s})
signal.signal(signal.SIGTERM, %s)
http.server.HTTPServer(("", 5000), Answer).serve_forever()
"""
ENDS = "lambda *_: sys.exit(0)"


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """An image that runs this Python code; removed afterwards."""
    found.registry()
    name = f"atlas-test-smoke-{uuid.uuid4().hex[:6]}"

    def build(code: str) -> str:
        (tmp_path / "code.py").write_text(code)
        (tmp_path / "Dockerfile").write_text(
            f'FROM {found.BASE_IMAGE}\nCOPY code.py /code.py\nEXPOSE 5000\nCMD ["python3", "-u", "/code.py"]\n'
        )
        subprocess.run(
            ["docker", "buildx", "build", "--load", "--tag", name, str(tmp_path)], check=True, capture_output=True
        )
        return name

    yield build
    subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)


def left(name: str) -> str:
    done = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"ancestor={name}"], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_image_that_answers_and_ends_passes(image: Callable[[str], str]) -> None:
    name = image(SERVICE % (json.dumps([{"prediction": "no"}]), ENDS))
    tried = container.smoke(name)
    assert tried.answer == {"predictions": [{"prediction": "no"}]}
    assert left(name) == ""


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('no bundle here'); raise SystemExit(1)", "isn't ready; its last log lines:\nno bundle here"),
        ("import time; print('thinking'); time.sleep(600)", "isn't ready; its last log lines:\nthinking"),
        (SERVICE % ("[]", ENDS), "is ready but gives no prediction: no prediction in"),
        (SERVICE % ('[{"prediction": "no"}]', "signal.SIG_IGN"), "exited with status 137 after SIGTERM"),
    ],
    ids=["ends", "never ready", "no prediction", "does not stop"],
)
def test_bad_image_fails_with_what_is_bad(
    image: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    monkeypatch.setattr(container, "READY_SECONDS", 5)
    monkeypatch.setattr(container, "GRACE_SECONDS", 2)
    name = image(code)
    with pytest.raises(StepError) as failed:
        container.smoke(name)
    assert told in str(failed.value)
    assert left(name) == ""


def test_image_that_is_not_there_is_named() -> None:
    found.registry()
    with pytest.raises(StepError, match=r"docker run: .*atlas-test-none"):
        container.smoke("127.0.0.1:1/atlas-test-none")
