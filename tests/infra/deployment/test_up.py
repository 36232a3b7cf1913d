"""What `atlas up` says of the materialiser at its end."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import pytest

from infra.deployment import health, pods
from infra.deployment.health import UNWRITTEN, Health
from infra.deployment.up import tell_materializer
from infra.engine.stack import AtlasStack
from infra.settings import AwsSettings, load_settings
from tests.infra.support.aws import BASE

DEAD = "CrashLoopBackOff: No module named ml.materialize"
REMEDY = "if the image's model has no feature views, set atlas:featureStore: false"


def told(found: Sequence[Health | None], monkeypatch: pytest.MonkeyPatch, **changed: object) -> list[str]:
    """The lines, if the cluster answers so, one answer after the other."""
    given = {f"atlas:{key}": value for key, value in BASE.items()}
    settings = load_settings(given).model_copy(update=changed)
    assert isinstance(settings, AwsSettings)
    answers: Iterator[Health | None] = iter(found)
    monkeypatch.setattr(pods, "cluster_of", lambda _: nullcontext())
    monkeypatch.setattr(health, "materializer_health", lambda *_: next(answers))
    monkeypatch.setattr("time.sleep", lambda _: None)
    lines: list[str] = []
    tell_materializer(AtlasStack("dev", settings, lines.append), settings)
    return lines


def test_it_waits_until_the_first_rows_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    starting, ready = Health(False, UNWRITTEN), Health(True, "ready: it has written the feature store")
    assert told([starting, starting, ready], monkeypatch) == ["  materialiser: ready: it has written the feature store"]


def test_one_that_fails_is_told_at_once_with_the_remedy_for_an_image_without_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = Health(False, f"{UNWRITTEN}; {DEAD}")
    assert told([failing], monkeypatch) == [f"  materialiser: {UNWRITTEN}; {DEAD}; {REMEDY}"]
    # A stack that builds its image has a materialiser only if the bundle has views.
    assert told([failing], monkeypatch, image=None) == [f"  materialiser: {UNWRITTEN}; {DEAD}"]


def test_nothing_is_told_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told([None], monkeypatch) == []
