"""The page in a real browser: fills in the form and requests a prediction, for each kind of model."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import flask
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from werkzeug.serving import make_server

from ml.bundle import Parts, write_bundle
from ml.features.store import Batch, Clock, Progress, Row, SqliteStore
from ml.features.views import DAY, HOUR, MINUTE, SECOND, View, Views
from ml.schema import Feature
from service.explanation.explainer import Explainer
from service.filling import FillingPredictor
from service.form import examples
from service.inputs import MAX_TEXT
from service.predictor import Predictor
from tests.bundles import make_parts, version_of
from tests.service.keyring import KeyRing

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

PHONE, DESKTOP = 390, 1440
"""Widths of the window in pixels."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(
    browser: Browser, make_app: Callable[..., flask.Flask], predictors: dict[str, Predictor], tmp_path: Path
) -> Iterator[Callable[[str | Parts, str], tuple[Page, list[str]]]]:
    """The page at this path, of a service with this kind of model or these parts, and the messages of its console."""
    servers, contexts, apps = [], [], []

    def open_(model: str | Parts, path: str, **settings: object) -> tuple[Page, list[str]]:
        if isinstance(model, str):
            loaded = predictors[model]
        else:
            write_bundle(tmp_path / "bundle", model)
            loaded = Predictor.load(tmp_path / "bundle")
        app = make_app(loaded, **settings)
        apps.append(app)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        contexts.append(browser.new_context(viewport={"width": PHONE, "height": 800}))
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
    for app in apps:
        if isinstance(loaded := app.extensions["atlas"].predictor, FillingPredictor):
            loaded.lookup.memory.close()


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_person_gets_the_predictors_answer(
    open_page: Callable[[str, str], tuple[Page, list[str]]], predictors: dict[str, Predictor], kind: str
) -> None:
    page, said = open_page(kind, "/")
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".prediction")
    (expected,) = predictors[kind].predict([predictors[kind].example()]).answers
    headline = page.inner_text(".prediction")
    if expected.probabilities is None:
        assert float(headline.removeprefix("returned: ")) == pytest.approx(float(expected.prediction), rel=1e-4)
    elif kind == "multiclass":
        probability = 100 * expected.probabilities[str(expected.prediction)]
        assert headline == f"returned = {expected.prediction}: probability {probability:.1f} %"
        assert (
            page.inner_text(".decision")
            == f"Decision: returned = {expected.prediction}, the most probable of 3 classes"
        )
        assert page.locator(".probabilities li").count() == 3
    else:
        assert headline == f"returned = yes: probability {100 * expected.probabilities['yes']:.1f} %"
    assert said == []


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_an_example_of_each_label_fills_the_form(
    open_page: Callable[[str, str], tuple[Page, list[str]]], predictors: dict[str, Predictor], kind: str
) -> None:
    page, said = open_page(kind, "/")
    found = examples(predictors[kind])
    options = page.locator("#example option").all_inner_texts()[1:]
    assert options == ([f"returned = {label}" for label in found] if len(found) > 1 else [])
    for option in options:
        page.get_by_label("Fill in an example that is predicted as").select_option(option)
        page.get_by_role("button", name="Predict").click()
        page.get_by_text(f"Decision: {option}").wait_for()
        page.get_by_text("answered in").wait_for()
    page.get_by_role("button", name="Reset").click()
    assert page.locator("#answer").is_hidden()
    assert said == []


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_the_answer_has_its_reasons(
    open_page: Callable[[str, str], tuple[Page, list[str]]], predictors: dict[str, Predictor], kind: str
) -> None:
    page, said = open_page(kind, "/")
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".contributions")
    loaded = predictors[kind]
    rows = [loaded.example()]
    (expected,) = Explainer(loaded).explain(rows, loaded.predict(rows))
    names = [name.replace("_", " ") for name in expected.contributions]
    assert page.locator(".contributions li span:first-child").all_inner_texts() == names
    shown = [
        float(text.replace("\u2212", "-").replace(",", ""))
        for text in page.locator(".contributions li span:last-child").all_inner_texts()
    ]
    assert shown == pytest.approx(list(expected.contributions.values()), rel=6e-3)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.route("**/explain", lambda route: route.fulfill(status=500, json={"error": {"message": "it broke"}}))
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("No explanation: it broke").wait_for()
    assert [message for message in said if "status of 500" not in message] == []


@pytest.mark.parametrize(
    ("classes", "probability", "label", "headline", "decision", "bars"),
    [
        (("false", "true"), 0.283, "true", "returned: probability 28.3 %",
         "Decision: returned, because the probability reaches the threshold of 19.7 %", ["28.3 %", "19.7 %"]),
        (("false", "true"), 0.1, "false", "returned: probability 10.0 %",
         "Decision: not returned, because the probability is below the threshold of 19.7 %", ["10.0 %", "19.7 %"]),
        (("no", "yes"), 0.19691, "yes", "returned = yes: probability 19.691 %",
         "Decision: returned = yes, because the probability reaches the threshold of 19.690 %",
         ["19.691 %", "19.690 %"]),
        (("no", "yes"), 0.1969, "yes", "returned = yes: probability 19.7 %",
         "Decision: returned = yes, because the probability reaches the threshold of 19.7 %", ["19.7 %", "19.7 %"]),
        (("no", "yes"), 1e-9, "no", "returned = yes: probability < 0.1 %",
         "Decision: returned = no, because the probability is below the threshold of 19.7 %", ["< 0.1 %", "19.7 %"]),
        (("no", "yes"), 0.99999, "yes", "returned = yes: probability > 99.9 %",
         "Decision: returned = yes, because the probability reaches the threshold of 19.7 %", ["> 99.9 %", "19.7 %"]),
    ],
)  # fmt: skip
def test_the_headline_says_probability_threshold_and_decision(
    open_page: Callable[..., tuple[Page, list[str]]],
    classes: tuple[str, str],
    probability: float,
    label: str,
    headline: str,
    decision: str,
    bars: list[str],
) -> None:
    parts = make_parts("binary")
    schema = parts.schema.model_copy(update={"classes": classes})
    wanted = replace(parts, schema=schema, decision=parts.decision.model_copy(update={"threshold": 0.1969}))
    page, said = open_page(wanted, "/")
    answer = {"prediction": label, "probabilities": {classes[0]: 1 - probability, classes[1]: probability}}
    page.route("**/predict", lambda route: route.fulfill(json={"predictions": [answer | {"warnings": []}]}))
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".prediction")
    assert page.inner_text(".prediction") == headline
    assert page.inner_text(".decision") == decision
    assert page.locator(".probabilities li span:last-child").all_inner_texts() == bars
    assert said == []


def test_the_pages_numbers_are_rounded(open_page: Callable[..., tuple[Page, list[str]]]) -> None:
    parts = make_parts("binary")
    first, *others = parts.schema.features
    first = first.model_copy(update={"low": 1 / 60, "high": 23 + 59 / 60})
    sample = (parts.reference.sample[0] | {"amount": 120 + 1 / 3},)
    wanted = replace(
        parts,
        schema=parts.schema.model_copy(update={"features": (first, *others)}),
        reference=parts.reference.model_copy(update={"sample": sample}),
    )
    page, _ = open_page(wanted, "/")
    assert "in training 0.0167 to 24\n" in page.inner_text("form")
    assert page.input_value("[name=amount]") == "120.3"
    assert "yes from a probability of 40.0 %" in page.inner_text("section[aria-labelledby=card] dl")
    version = page.locator("header code")
    assert version.inner_text() == version_of(wanted)[:7]
    assert version.get_attribute("title") == f"bundle {version_of(wanted)}"


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_long_names_are_shown_whole_and_the_page_never_scrolls_sideways(
    open_page: Callable[..., tuple[Page, list[str]]], width: int
) -> None:
    names = ("minutes_between_departure_and_connection", "MinutesBetweenDepartureAndConnectionTime")
    assert {len(name) for name in names} == {40}
    parts = make_parts("binary")
    more = tuple(Feature(name=name, type="numeric", low=0, high=9, example=1) for name in names)
    schema = parts.schema.model_copy(update={"features": (*parts.schema.features, *more)})
    card = parts.card.model_copy(update={"importance": dict(zip(names, (0.5, 0.2), strict=True))})
    page, said = open_page(replace(parts, schema=schema, card=card), "/")
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".contributions")

    shown = page.locator(".importance li span:first-child")
    assert shown.all_inner_texts() == [name.replace("_", " ") for name in names]
    assert page.locator(".importance li span:last-child").all_inner_texts() == ["0.5", "0.2"]
    texts = ".importance span, .contributions span, form label"
    clipped = "all => all.filter(e => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight + 1)"
    assert page.locator(texts).evaluate_all(f"{clipped}.map(e => e.textContent)") == []
    widths = page.locator(".importance rect").evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")
    assert widths[1] / widths[0] == pytest.approx(0.4, abs=0.01)
    wider = "all => all.filter(e => e.offsetWidth > e.parentElement.clientWidth)"
    assert page.locator("table").evaluate_all(f"{wider}.map(e => e.textContent)") == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert said == []


ROLES = {"numeric": "spinbutton", "categorical": "combobox", "boolean": "combobox"}
"""The roles of fields by the type of their feature; others are text boxes."""


def test_whoever_hears_the_page_learns_what_each_field_is_and_what_was_predicted(
    open_page: Callable[..., tuple[Page, list[str]]],
) -> None:
    parts = make_parts("binary")
    more = Feature(name="scheduled_departure_hour", type="numeric", low=0, high=24, example=9, description="Local time")
    schema = parts.schema.model_copy(update={"features": (*parts.schema.features, more)})
    features = sorted(schema.features, key=lambda feature: feature.live)  # live features have a group of their own
    page, said = open_page(replace(parts, schema=schema), "/")
    labels = [name.removesuffix("*") for name in page.locator("form label").all_inner_texts()]
    assert labels == [feature.name.replace("_", " ") for feature in features]
    for feature, label in zip(features, labels, strict=True):
        role: Any = ROLES.get(feature.type, "textbox")
        field = page.get_by_role(role, name=label, exact=True)
        assert field.evaluate("field => [field.name, field.required]") == [feature.name, feature.required]
    described = page.get_by_role("spinbutton", name="scheduled departure hour")
    expect(described).to_have_accessible_description("Local time · in training 0 to 24")
    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.get_by_role("table", name="On test rows it never saw")).to_have_count(1)
    for region in ("Try it", "Now", "The model's card"):
        expect(page.get_by_role("region", name=region)).to_have_count(1)

    # The place of the answer is there before the answer: else its first text might not be announced.
    answer = page.get_by_role("status")
    expect(answer).to_have_attribute("aria-live", "polite")
    expect(answer).to_be_empty()
    page.get_by_role("button", name="Predict").click()
    expect(answer).to_contain_text("returned = yes: probability")
    expect(answer).to_contain_text("Why")
    for part in page.locator("input, select, button, a, summary, progress, [role=img]").all():
        expect(part).to_have_accessible_name(re.compile(r"\S"))
    levels = page.get_by_role("heading").evaluate_all("all => all.map(heading => Number(heading.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert said == []


def test_the_keyboard_reaches_every_field_and_enter_predicts(
    open_page: Callable[[str, str], tuple[Page, list[str]]],
) -> None:
    page, said = open_page("binary", "/")
    answer, button = page.get_by_role("status"), page.get_by_role("button", name="Predict")
    reached: list[str] = []
    while "Predict" not in reached:
        assert len(reached) < 100, reached
        page.keyboard.press("Tab")  # more than once in a field for a time, which has a place for each part
        reached.append(page.evaluate("(({ name, textContent }) => name || textContent)(document.activeElement)"))
    fields = page.locator("form [name]").evaluate_all("all => all.map(field => field.name)")
    assert fields[-1] == "visits"
    assert [name for name in dict.fromkeys(reached) if name in fields] == fields
    assert button.evaluate("button => parseFloat(getComputedStyle(button).outlineWidth)") >= 2
    page.keyboard.press("Enter")
    expect(answer).to_contain_text("Decision")
    expect(button).to_be_focused()

    page.keyboard.press("Shift+Tab")
    expect(page.locator("[name=visits]")).to_be_focused()
    page.keyboard.type("4")
    with page.expect_response("**/predict"):
        page.keyboard.press("Enter")
    expect(answer).to_contain_text("Decision")
    expect(page.locator("[name=visits]")).to_be_focused()
    assert said == []


def test_while_an_answer_is_awaited_the_page_says_so_and_asks_no_second_time(
    open_page: Callable[[str, str], tuple[Page, list[str]]],
) -> None:
    page, said = open_page("binary", "/")
    held: list[Route] = []
    page.route("**/predict", lambda route: held.append(route))  # noqa: PLW0108 - Playwright takes no built-in method
    answer, button = page.get_by_role("status"), page.get_by_role("button", name="Predict")
    button.click()
    expect(answer).to_have_text("Predicting …")
    for part in (answer, button):
        expect(part).to_have_attribute("aria-busy", "true")
    expect(button).to_be_disabled()
    page.locator("[name=note]").press("Enter")
    (asked,) = held
    asked.continue_()
    expect(answer).to_contain_text("Decision")
    for part in (answer, button):
        expect(part).to_have_attribute("aria-busy", "false")
    expect(button).to_be_enabled()
    assert len(held) == 1
    assert said == []


def test_what_is_wrong_with_a_value_stands_at_its_field_until_it_is_changed(
    open_page: Callable[[str, str], tuple[Page, list[str]]],
) -> None:
    page, said = open_page("binary", "/")
    answer, button = page.get_by_role("status"), page.get_by_role("button", name="Predict")
    note = page.get_by_role("textbox", name="note")
    note.fill("x" * (MAX_TEXT + 1))
    button.click()
    message = f"must have at most {MAX_TEXT} characters"
    expect(page.locator(".field", has=note).locator(".error")).to_have_text(message)
    expect(note).to_be_focused()
    expect(note).to_have_attribute("aria-invalid", "true")
    expect(note).to_have_accessible_description(message)
    expect(answer).to_have_text("Not predicted: correct the field that is marked.")
    note.fill("late")
    expect(page.locator("form .error")).to_have_count(0)
    button.click()
    expect(answer).to_contain_text("Decision")
    assert [text for text in said if "status of 422" not in text] == []


def test_a_service_that_is_gone_is_told_in_a_line(open_page: Callable[[str, str], tuple[Page, list[str]]]) -> None:
    page, _ = open_page("binary", "/")
    page.route("**/predict", lambda route: route.abort())
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("status")).to_have_text("The service does not answer. Is it still running?")
    expect(page.locator(".error")).to_have_count(1)
    expect(page.get_by_role("button", name="Predict")).to_be_enabled()


FAINT = """
([smallest, edge]) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => numbers(colour).slice(0, 3)
    .map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return numbers(colour)[3] === 0 ? behind(element.parentElement) : colour;
  };
  const contrast = (colour, element) => {
    const [dark, light] = [luminance(colour), luminance(behind(element))].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const found = { texts: [], faint: [], dark: luminance(behind(document.body)) < 0.5 };
  const check = (element, ratio, wanted) => {
    if (!(ratio >= wanted)) found.faint.push([element.outerHTML.slice(0, 200), ratio]);
  };
  for (const element of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(element), field = element.matches("input, select");
    const written = field || [...element.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!written || element.matches("option, :disabled") || !element.checkVisibility()) continue;
    found.texts.push(element.matches(".error, .warning") ? element.className : element.localName);
    check(element, contrast(element.localName === "text" ? style.fill : style.color, element), smallest);
    if (field) check(element, contrast(style.borderTopColor, element.parentElement), edge);
  }
  return found;
}
"""
"""The kinds of texts that are shown, and those texts and edges of fields that contrast less than wanted."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(
    open_page: Callable[[str, str], tuple[Page, list[str]]], scheme: Literal["light", "dark"]
) -> None:
    page, _ = open_page("binary", "/")
    page.emulate_media(color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach(group => { group.open = true; })")
    seen: set[str] = set()
    for note, shown in (("late", ".contributions"), ("x" * (MAX_TEXT + 1), ".field .error")):
        page.fill("[name=amount]", "900")
        page.fill("[name=note]", note)
        page.get_by_role("button", name="Predict").click()
        page.wait_for_selector(shown)
        page.mouse.move(0, 0)
        found = page.evaluate(FAINT, [4.5, 3])
        assert found["faint"] == []
        assert found["dark"] is (scheme == "dark")
        seen |= set(found["texts"])
    assert {"p", "label", "input", "select", "button", "small", "a", "dt", "td", "text", "error", "warning"} <= seen


def test_the_api_documentation_loads_from_this_server_alone(
    open_page: Callable[[str, str], tuple[Page, list[str]]],
) -> None:
    page, said = open_page("binary", "/docs")
    page.wait_for_selector(".opblock")
    assert "/predict" in page.inner_text("#docs")
    assert said == []


def test_a_long_form_shows_what_matters_and_groups_the_rest(
    open_page: Callable[[str | Parts, str], tuple[Page, list[str]]],
) -> None:
    parts = make_parts("binary")
    more = tuple(
        Feature(name=f"number_{place}", type="numeric", low=0, high=9, maximum=9, example=place, required=place == 9)
        for place in range(10)
    )
    schema = parts.schema.model_copy(update={"features": (*parts.schema.features, *more)})
    card = parts.card.model_copy(update={"importance": {"number_3": 0.5, "note": 0.2, "member": 0.1}})
    page, said = open_page(replace(parts, schema=schema, card=card), "/")
    first = page.locator("form > .fields label").evaluate_all("all => all.map(e => e.control.name)")
    assert first == ["amount", "colour", "shop", "bought", "member", "note", "number_3", "number_9"]
    summaries = [text.strip() for text in page.locator("details.group summary").all_inner_texts()]
    assert summaries == ["More numbers (8)", "More times (1)"]
    # A group opens when a field in it is wrong, so that the browser can show it.
    page.locator("[name=number_5]").evaluate("field => { field.value = 99; }")
    page.get_by_role("button", name="Predict").click()
    page.locator("[name=number_5]").wait_for(state="visible")
    page.fill("[name=number_5]", "5")
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".prediction")
    assert said == []


def test_the_page_shows_what_the_service_does_now(
    open_page: Callable[[str, str], tuple[Page, list[str]]],
) -> None:
    page, said = open_page("binary", "/")
    page.wait_for_selector("#live:not([hidden])")
    assert page.inner_text("[data-fact=requests]") == "0 requests since the start"
    for amount, member, label in (("480", "yes", "yes"), ("5", "no", "no")):
        page.fill("[name=amount]", amount)
        page.select_option("[name=member]", label=member)
        page.get_by_role("button", name="Predict").click()
        page.get_by_text(f"Decision: returned = {label}").wait_for()
        page.wait_for_selector(".contributions")
    page.reload()
    page.wait_for_selector("#live:not([hidden])")
    # The page asks for a prediction and for its explanation.
    assert page.inner_text("[data-fact=requests]") == "4 requests since the start"
    assert re.fullmatch(r"half within .+ m?s, 99 % within .+", page.inner_text("[data-fact=times]"))
    rows, _, shares = page.inner_text("[data-fact=rows]").partition(": ")
    assert rows == "4 rows since the start"
    assert sorted(shares.split(", ")) == ["no 50.0 %", "yes 50.0 %"]
    assert said == []


def test_whoever_may_not_read_the_metrics_sees_no_figures(
    open_page: Callable[[str, str], tuple[Page, list[str]]],
) -> None:
    page, _ = open_page("binary", "/")
    page.route("**/metrics", lambda route: route.fulfill(status=401, body="{}"))
    with page.expect_response("**/metrics"):
        page.reload()
    page.wait_for_load_state("networkidle")
    assert not page.locator("#live").is_visible()


def test_with_api_keys_the_page_asks_for_one_and_then_works_as_usual(
    open_page: Callable[..., tuple[Page, list[str]]], ring: KeyRing, predictors: dict[str, Predictor]
) -> None:
    token = ring.add("person")
    page, said = open_page("binary", "/", api_keys_file=ring.path)
    expect(page.get_by_role("heading", level=1)).to_have_text("Atlas")
    assert predictors["binary"].bundle.name not in page.content()

    page.locator("#key").fill("atlas_" + "x" * 43)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_have_text("the API key is not known")
    said.clear()  # the browser itself reports the 401

    page.locator("#key").fill(f" {token} ")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".prediction")
    page.wait_for_selector(".contributions")
    assert page.locator("a[href='/metrics']").count() == 0

    page.goto(page.url + "docs")
    page.get_by_text("/predict/lines").wait_for()
    page.go_back()
    page.get_by_role("button", name="Predict").wait_for()  # the tab keeps the key
    page.get_by_role("button", name="Forget the key").click()
    page.get_by_role("button", name="Continue").wait_for()
    assert page.evaluate("sessionStorage.length + localStorage.length + document.cookie.length") == 0
    assert said == []


VIEWS = Views(
    time="bought",
    timezone="America/New_York",
    horizon=2 * HOUR,
    max_lag=10 * MINUTE,
    views=(
        View(name="shops", keys=("shop",), ttl=2 * HOUR, values=("visits",), features=("visits",)),
        View(name="customers", keys=("customer",), ttl=None, values=("member",), features=("member",)),
        View(name="prices", keys=("shop",), at="event", ttl=7 * DAY, values=("amount",), features=("amount",)),
    ),
)
NOW = int(datetime(2024, 3, 1, 17, 29, tzinfo=UTC).timestamp()) * SECOND
"""12:29 in New York: the form begins two hours later, at 14:30."""


@pytest.fixture
def open_filled(
    open_page: Callable[..., tuple[Page, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Page, list[str]]]:
    """The page of a service with a feature store: `lag` microseconds behind, or without any rows."""

    def open_(lag: int = 0, *, empty: bool = False) -> tuple[Page, list[str]]:
        path = tmp_path / "features.db"
        store = SqliteStore(path, VIEWS, write=True)
        rows: dict[str, list[tuple[tuple[Any, ...], Row]]] = {
            "shops": [((shop,), Row(NOW - 39 * MINUTE, [3.0])) for shop in ("north", "south", "east", "west")],
            "customers": [(("Ann",), Row(0, [True]))],
            "prices": [((shop,), Row(NOW, [120.5])) for shop in ("north", "south", "east", "west")],
        }
        if not empty:
            stands = Clock(simulated=NOW, real=0, speed=0)
            batches = [Batch(view, -1, NOW, made) for view, made in rows.items()]
            store.write(batches, Progress(NOW - lag, 1, stands), keep=DAY)
        return open_page(
            replace(make_parts("binary"), views=VIEWS), "/", feature_store=str(path), feature_store_timeout=10
        )

    return open_


def asked_of(page: Page) -> dict[str, Any]:
    """The row that the page sends to /predict."""
    with page.expect_request("**/predict") as request:
        page.get_by_role("button", name="Predict").click()
    [row] = json.loads(request.value.post_data or "")["rows"]
    return dict(row)


def test_with_a_feature_store_the_form_asks_for_what_only_the_caller_knows(
    open_filled: Callable[..., tuple[Page, list[str]]],
) -> None:
    page, said = open_filled()
    first = page.locator("form > .fields label").evaluate_all("all => all.map(e => e.control.name)")
    assert first == ["colour", "shop", "bought", "seen", "note", "customer"]
    customer = page.get_by_role("textbox", name="customer")
    expect(customer).to_have_accessible_description("optional, to look up member")
    expect(customer).to_have_value("")
    expect(page.locator("[name=bought]")).to_have_value("2024-03-01T14:30")
    group = page.locator("form details", has_text="Looked up when left empty (3)")
    assert group.locator("[name]").evaluate_all("all => all.map(e => [e.name, e.value, e.required])") == [
        ["amount", "", False],
        ["visits", "", False],
        ["member", "", False],
    ]
    assert group.get_attribute("open") is None
    assert page.locator("#example").count() == 0
    row = asked_of(page)
    assert row.keys() & {"amount", "member", "visits", "customer"} == set()
    assert row["bought"] == "2024-03-01T14:30"
    expect(page.get_by_role("status")).to_contain_text("Decision")
    assert said == []


def test_with_a_feature_store_the_page_shows_what_was_looked_up_and_what_is_missing(
    open_filled: Callable[..., tuple[Page, list[str]]],
) -> None:
    page, said = open_filled()
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("heading", name="Looked up")).to_have_count(1)
    found = page.locator(".looked-up li")
    expect(found).to_have_text(["visits 3 39 minutes old", "amount 120.5 from the timetable"])
    expect(page.locator(".looked-up p")).to_have_text(["Missing: member"])
    page.fill("[name=customer]", "Ann")
    page.locator("form details summary").click()
    page.fill("[name=visits]", "7")
    page.get_by_role("button", name="Predict").click()
    expect(found).to_have_text(["member yes doesn't change", "amount 120.5 from the timetable"])
    expect(page.locator(".looked-up p")).to_have_count(0)
    page.wait_for_selector(".contributions")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert said == []


def test_without_what_the_model_needs_the_group_of_looked_up_fields_opens(
    open_filled: Callable[..., tuple[Page, list[str]]],
) -> None:
    page, _ = open_filled()
    page.fill("[name=bought]", "2025-03-01T14:30:00")  # that far the timetable doesn't go
    page.get_by_role("button", name="Predict").click()
    amount = page.get_by_role("spinbutton", name="amount")
    expect(amount).to_be_focused()
    expect(amount).to_have_attribute("aria-invalid", "true")
    amount.fill("12")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("status")).to_contain_text("Decision")
    expect(page.locator(".looked-up p")).to_have_text(["Missing: member"])
    expect(page.locator(".looked-up li")).to_have_text(["visits 3 39 minutes old"])


def test_a_store_that_is_late_is_asked_for_the_last_time_that_it_knows(
    open_filled: Callable[..., tuple[Page, list[str]]],
) -> None:
    page, said = open_filled(lag=20 * MINUTE)
    expect(page.locator("[name=bought]")).to_have_value("2024-03-01T14:10")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".looked-up .warning")).to_have_count(0)
    page.fill("[name=bought]", "2024-03-01T14:30:00")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".looked-up .warning")).to_contain_text("The feature store is behind")
    expect(page.locator(".looked-up li")).to_have_text(["amount 120.5 from the timetable"])
    assert said == []


@pytest.mark.parametrize(
    ("trouble", "line"),
    [("slow", "didn't answer in time"), ("down", "can't be read"), ("empty", "has no values"), ("late", "is behind")],
)
def test_when_the_store_fails_a_line_says_what_that_means(
    open_filled: Callable[..., tuple[Page, list[str]]], trouble: str, line: str
) -> None:
    page, said = open_filled()
    answer = {"prediction": "yes", "probabilities": {"no": 0.5, "yes": 0.5}, "warnings": []}
    features = {"sent": ["note"], "looked_up": {}, "missing": ["visits"], "trouble": trouble}
    page.route("**/predict", lambda route: route.fulfill(json={"predictions": [answer | {"features": features}]}))
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".looked-up .warning")).to_contain_text(f"The feature store {line}")
    expect(page.locator(".looked-up .soft")).to_have_text(["Missing: visits", "Nothing was looked up."])
    assert said == []


def test_an_empty_store_still_has_a_form(open_filled: Callable[..., tuple[Page, list[str]]]) -> None:
    page, said = open_filled(empty=True)
    page.locator("form details summary").click()
    page.fill("[name=amount]", "12")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".looked-up .warning")).to_contain_text("The feature store has no values")
    assert said == []


@pytest.mark.parametrize(
    ("age", "words"),
    [(1, "1 second"), (89, "89 seconds"), (90, "2 minutes"), (5399, "90 minutes"), (5400, "2 hours"),
     (129_599, "36 hours"), (129_600, "2 days"), (86_400 * 6, "6 days")],
)  # fmt: skip
def test_ages_are_said_in_the_unit_that_fits(
    open_filled: Callable[..., tuple[Page, list[str]]], age: float, words: str
) -> None:
    page, _ = open_filled()
    assert page.evaluate("age => ageInWords('visits', age)", age) == f"{words} old"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_was_looked_up_can_be_read_in_light_and_dark(
    open_filled: Callable[..., tuple[Page, list[str]]], scheme: Literal["light", "dark"]
) -> None:
    page, _ = open_filled(lag=20 * MINUTE)
    page.emulate_media(color_scheme=scheme)
    page.fill("[name=bought]", "2024-03-01T14:30:00")
    page.locator("details").evaluate_all("all => all.forEach(group => { group.open = true; })")
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".contributions")
    page.mouse.move(0, 0)
    found = page.evaluate(FAINT, [4.5, 3])
    assert found["faint"] == []
    assert found["dark"] is (scheme == "dark")
    assert {"span", "warning", "td"} <= {*found["texts"]}
    levels = page.get_by_role("heading").evaluate_all("all => all.map(heading => Number(heading.tagName[1]))")
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_card_lists_the_models_feature_views(open_page: Callable[..., tuple[Page, list[str]]]) -> None:
    page, said = open_page(replace(make_parts("binary"), views=VIEWS), "/")
    page.get_by_text("Feature views").click()
    table = page.get_by_role("table", name="Feature views")
    assert table.get_by_role("row").all_inner_texts() == [
        "view\tkeys\tvalid for\tfeatures",
        "shops\tshop\t2 hours\tvisits",
        "customers\tcustomer\talways\tmember",
        "prices\tshop\t7 days\tamount",
    ]
    # Without a store, the form asks for everything, as it does of any model.
    expect(page.locator("[name=amount]")).not_to_have_value("")
    assert page.locator("[name=customer]").count() == 0
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector(".contributions")
    assert page.locator(".looked-up").count() == 0
    assert said == []


def test_a_model_without_views_has_none_on_its_card(open_page: Callable[..., tuple[Page, list[str]]]) -> None:
    page, _ = open_page("binary", "/")
    assert "Feature views" not in page.content()
