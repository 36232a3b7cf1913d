"""The environment becomes one frozen object, or one clear line per wrong variable."""

import pytest

from service.settings import SettingsError, load_settings


def test_defaults_are_those_of_the_local_stack():
    settings = load_settings({})
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 5000, 2)
    assert (settings.max_rows, settings.max_body_bytes, settings.model_uri) == (1000, 1024 * 1024, "models/bundle")


def test_an_empty_variable_counts_as_not_given():
    assert load_settings({"PORT": "", "MODEL_URI": ""}).port == 5000


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "http"), ("PORT", "70000"), ("WORKERS", "0"), ("LOG_LEVEL", "loud"), ("MODEL_URI", "models:/one")],
)
def test_a_wrong_value_is_named_with_its_variable(name, value):
    with pytest.raises(SettingsError) as refused:
        load_settings({name: value})
    assert str(refused.value).startswith(f"{name}: ")
    assert value in str(refused.value)
    assert "\n" not in str(refused.value)


def test_several_wrong_values_are_named_at_once():
    with pytest.raises(SettingsError, match=r"PORT: .*\nWORKERS: "):
        load_settings({"PORT": "x", "WORKERS": "y"})


def test_the_token_never_shows():
    settings = load_settings({"CAPSTONE_TEST": "hunter2", "MLFLOW_TRACKING_PASSWORD": "hunter3"})
    assert "hunter" not in repr(settings)
