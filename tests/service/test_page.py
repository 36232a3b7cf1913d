"""The page in a real browser: fills in the form and requests a prediction, for each kind of model."""

import shutil
import threading
from collections.abc import Callable, Iterator

import flask
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from werkzeug.serving import make_server

from service.predictor import Predictor

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: apt-get install chromium"),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(
    browser: Browser, make_app: Callable[..., flask.Flask], predictors: dict[str, Predictor]
) -> Iterator[Callable[[str, str], tuple[Page, list[str]]]]:
    """The page at this path, of a service with this kind of model, and the messages of its console."""
    servers, contexts = [], []

    def open_(kind: str, path: str) -> tuple[Page, list[str]]:
        server = make_server("127.0.0.1", 0, make_app(predictors[kind]), threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        contexts.append(browser.new_context(viewport={"width": 390, "height": 800}))
        page = contexts[-1].new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.server_port}{path}")
        return page, said

    yield open_
    for context in contexts:
        context.close()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_person_gets_the_predictors_answer(
    open_page: Callable[[str, str], tuple[Page, list[str]]], predictors: dict[str, Predictor], kind: str
) -> None:
    page, said = open_page(kind, "/")
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".prediction")
    (expected,) = predictors[kind].predict([predictors[kind].example()]).answers
    shown = page.inner_text(".prediction").split(": ", 1)[1]
    if expected.probabilities is None:
        assert float(shown) == pytest.approx(float(expected.prediction), rel=1e-4)
    else:
        assert shown == str(expected.prediction)
        assert page.locator(".probabilities li").count() == len(expected.probabilities)
    assert said == []


def test_the_page_fits_a_phone(open_page: Callable[[str, str], tuple[Page, list[str]]]) -> None:
    page, _ = open_page("binary", "/")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_api_documentation_loads_from_this_server_alone(
    open_page: Callable[[str, str], tuple[Page, list[str]]],
) -> None:
    page, said = open_page("binary", "/docs")
    page.wait_for_selector(".opblock")
    assert "/predict" in page.inner_text("#docs")
    assert said == []
