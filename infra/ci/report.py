"""Markdown about a change's effect on model and infrastructure, for a job's summary and the pull request's comment."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from infra.ci.pipeline import Reproduction
from infra.errors import one_line

MARK = "<!-- atlas: this comment is edited by each run -->"
ROWS, TEXT = 60, 40_000
"""Limits for listed figures or resources, and for characters of the diff: GitHub's limit is 65,536 characters a
comment.
"""
POINTS = 21
CURVE = """```mermaid
%%{{init: {{"themeVariables": {{"xyChart": {{"plotColorPalette": "{palette}"}}}}}}}}%%
xychart-beta
  title "{title}"
  x-axis "{x}" {low:.4g} --> {high:.4g}
  y-axis "{y}"
{lines}
```"""
GREY, BLUE = "#8c959f", "#0969da"
VERBS = {"create": "make", "update": "change", "delete": "remove", "replace": "replace", "import": "adopt"}


@dataclass(frozen=True, slots=True)
class Model:
    """The result of the pipeline's rerun."""

    base: str | None
    """The commit that it is compared with; None for the first commit."""
    figures: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Metric -> (there, here), for metrics that differ."""
    plots: Mapping[str, Any] = field(default_factory=dict)
    """`dvc plots diff --json`."""
    rerun: Reproduction | None = None
    error: str = ""
    """Why the rerun failed; the other fields are then empty."""

    def document(self) -> dict[str, Any]:
        """As a JSON document."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From a JSON document."""
        rerun = document["rerun"]
        return cls(**{**document, "rerun": Reproduction(**rerun) if rerun else None})


def render(model: Model | None, foreseen: Mapping[str, Any] | None, link: str = "") -> str:
    """The report; `foreseen` is the document of `atlas preview --save`, empty if the preview didn't run.

    `link`: the address of the workflow run.
    """
    parts = [MARK, "## What this change does", "### The model"]
    parts += ["The pipeline did not run."] if model is None else _model(model)
    if foreseen is not None and not foreseen:
        parts += ["### The stack", "The preview did not run."]
    elif foreseen is not None:
        parts += [f"### The stack {_code(foreseen['stack'])}", *_infrastructure(foreseen)]
    if link:
        parts.append(f"[The run]({link}) shows the full output.")
    return "\n\n".join(parts) + "\n"


def _model(model: Model) -> list[str]:
    if model.error or model.rerun is None:
        return [f"**The pipeline failed:** {_escape(model.error)}"]
    parts = []
    if model.base is None:
        parts.append("There is no previous commit to compare with.")
    elif model.figures:
        rows = _figures(model.figures)
        parts.append(_table(["figure", f"at {_code(model.base[:10])}", "here", "change"], rows[:ROWS]))
        if len(rows) > ROWS:
            parts.append(f"And {len(rows) - ROWS} more: `dvc metrics diff {model.base[:10]}`.")
    else:
        parts.append(f"No figure differs from {_code(model.base[:10])}.")
    if model.rerun.differs:
        parts.append(
            "A rerun on this machine differs from the committed `dvc.lock` only by floating-point arithmetic: "
            + ", ".join(map(_code, model.rerun.differs))
            + (f"; {len(model.rerun.figures)} figures by up to 1 %." if model.rerun.figures else "; no figure.")
        )
    else:
        parts.append("Every output is identical to the committed `dvc.lock`.")
    # A file may be listed twice: under its path, and under a name from dvc.yaml.
    named = {name.rsplit("/", 1)[-1].removesuffix(".csv"): plots for name, plots in model.plots.get("data", {}).items()}
    charts = [chart for name, plots in sorted(named.items()) if (chart := _chart(name, plots))]
    if charts:
        parts += [_details("Curves that differ (grey: before, blue: here)", "\n\n".join(charts))]
    return parts


def _figures(figures: Mapping[str, tuple[float, float]]) -> list[list[str]]:
    """A row for each figure; a figure with an interval (value, low, high) shows the interval in brackets."""
    rows = []
    for name, values in sorted(figures.items()):
        stem, _, last = name.rpartition(".")
        if last in ("low", "high") and f"{stem}.value" in figures:
            continue
        low, high = figures.get(f"{stem}.low"), figures.get(f"{stem}.high")
        if last == "value" and low and high:
            cells = [f"{_number(value)} ({_number(low[at])} to {_number(high[at])})" for at, value in enumerate(values)]
            rows.append([_code(stem), *cells, _change(*values)])
        else:
            rows.append([_code(name), *map(_number, values), _change(*values)])
    return rows


def _chart(name: str, plots: Sequence[Mapping[str, Any]]) -> str | None:
    """A chart with both revisions of a curve; None if the plot is not a curve, or is unchanged."""
    content = next((plot["content"] for plot in plots if plot.get("type") == "vega"), None)
    curves = _curves(content) if isinstance(content, Mapping) else {}
    here = curves.pop("workspace", None)
    if here is None:
        return None
    there = next(iter(curves.values()), None)
    low, high = min(here.x), max(here.x)
    at = np.linspace(low, high, POINTS)
    lines = [np.interp(at, curve.x, curve.y) for curve in (there, here) if curve is not None]
    if there is not None and np.allclose(lines[0], lines[1], rtol=1e-3, atol=1e-4):
        return None
    return CURVE.format(
        palette=f"{GREY}, {BLUE}" if there is not None else BLUE,
        title=_plain(name),
        x=_plain(here.names[0]),
        y=_plain(here.names[1]),
        low=low,
        high=high,
        lines="\n".join(f"  line [{', '.join(f'{value:.4g}' for value in line)}]" for line in lines),
    )


@dataclass(frozen=True, slots=True)
class _Curve:
    x: list[float]
    y: list[float]
    names: tuple[str, str]


def _curves(content: Mapping[str, Any]) -> dict[str, _Curve]:
    """Revision -> curve; empty if the plot is not a curve (two columns of numbers, the first ascending)."""
    values = content.get("data", {}).get("values", [])
    columns = [key for key in values[0] if key not in ("rev", "filename", "field", "step")] if values else []
    if len(columns) != 2 or len(values) > 5000:
        return {}
    found: dict[str, _Curve] = {}
    try:
        for value in values:
            curve = found.setdefault(value["rev"], _Curve([], [], (columns[0], columns[1])))
            curve.x.append(float(value[columns[0]]))
            curve.y.append(float(value[columns[1]]))
    except (KeyError, TypeError, ValueError):
        return {}
    for curve in found.values():
        if curve.x[0] > curve.x[-1]:
            curve.x.reverse()
            curve.y.reverse()
    return found if all(bool(np.all(np.diff(curve.x) >= 0)) for curve in found.values()) else {}


def _infrastructure(foreseen: Mapping[str, Any]) -> list[str]:
    parts = []
    if foreseen["errors"]:
        parts.append("**The preview failed:**\n\n" + _list(foreseen["errors"]))
    counts = ", ".join(f"{VERBS.get(name, name)} {count}" for name, count in foreseen["changes"].items())
    parts.append(f"It would {counts}." if counts else "Nothing would change.")
    if foreseen["steps"]:
        rows = [
            [_escape(step["operation"]), _code(step["name"]), _code(step["kind"]), _escape(", ".join(step["paths"]))]
            for step in foreseen["steps"][:ROWS]
        ]
        parts.append(_table(["", "resource", "kind", "what differs"], rows))
        if len(foreseen["steps"]) > ROWS:
            parts.append(f"And {len(foreseen['steps']) - ROWS} more.")
    if foreseen["policies"]:
        parts.append("Messages of the policy pack:\n\n" + _list(foreseen["policies"]))
    if foreseen["warnings"]:
        parts.append("Warnings:\n\n" + _list(foreseen["warnings"]))
    if foreseen["byHand"]:
        parts.append("In the cluster:\n\n" + _list(foreseen["byHand"]))
    if foreseen["unseen"]:
        parts.append(f"Not checked: {_escape(', '.join(foreseen['unseen']))}.")
    if foreseen["cluster"]:
        parts.append(
            "> **The Kubernetes part is a client-side diff**: compared with the state, not with the cluster "
            f"({_escape(foreseen['cluster'])})."
        )
    if foreseen["text"] and foreseen["steps"]:
        parts.append(_details("The whole diff", _fenced(foreseen["text"])))
    return parts


def drift(foreseen: Mapping[str, Any], link: str = "") -> str:
    """The body of the issue about a stack that differs from what was deployed."""
    stack = foreseen["stack"]
    parts = [
        drift_mark(stack),
        f"The stack {_code(stack)} differs from its program with the image that runs: either somebody changed it by "
        f"hand, or `main` contains changes that aren't deployed. `atlas refresh --stack {stack}` reads changes by hand "
        f"into Pulumi's state, and `atlas up --stack {stack}` then restores what the program says.",
        *_infrastructure(foreseen),
    ]
    if link:
        parts.append(f"[The run]({link}) that found this last. A run without differences closes the issue.")
    return "\n\n".join(parts) + "\n"


def drift_mark(stack: str) -> str:
    """The mark by which the stack's issue is found."""
    return f"<!-- atlas: drift of {stack} -->"


def _number(value: float) -> str:
    return "none" if value == float("inf") else f"{value:g}"


def _change(old: float, new: float) -> str:
    return "" if float("inf") in (old, new) else f"{new - old:+.5g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {_escape(one_line(item))}" for item in items)


def _details(summary: str, inside: str) -> str:
    return f"<details><summary>{_escape(summary)}</summary>\n\n{inside}\n\n</details>"


def _fenced(text: str) -> str:
    """A fenced block; its fence is longer than any sequence of back-ticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    cut = text if len(text) <= TEXT else f"{text[:TEXT]}\n… {len(text) - TEXT} characters more"
    return f"{fence}diff\n{cut}\n{fence}"


def _code(text: str) -> str:
    return f"<code>{_escape(text)}</code>"


def _escape(text: str) -> str:
    """Text without effect as markup: it can't end a table cell or mention a user."""
    quoted = html.escape(text, quote=False)
    return re.sub(r"[|`*_\[\]@#~\\]|://", lambda found: "".join(f"&#{ord(one)};" for one in found[0]), quoted)


def _plain(text: str) -> str:
    """A chart's label: letters, digits and spaces."""
    return re.sub(r"[^A-Za-z0-9.=-]+", " ", text).strip()
