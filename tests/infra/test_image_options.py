"""The target and the arguments of a bundle's image, and which files of views a pod can read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import SettingsError
from infra.image_options import check_views, image_options

REPOSITORY = Path(__file__).parents[2]


def lay_out(folder: Path, runtime: str = "onnx", views: dict[str, Any] | None = None) -> Path:
    bundle = folder / "models" / "bundle"
    bundle.mkdir(parents=True)
    files = {"model.onnx": ""} if views is None else {"views.json": ""}
    (bundle / "bundle.json").write_text(json.dumps({"version": "v", "runtime": runtime, "files": files}))
    data = {"source": "table", "target": "s\u00e9j\u00f6ur", "views": views or {}}
    (folder / "params.yaml").write_text(yaml.safe_dump({"data": data, "gate": {"metric": "rmse"}}))
    return bundle


@pytest.mark.parametrize(("runtime", "target"), [("onnx", "slim"), ("sklearn", "full")])
def test_image_of_a_model_without_views_is_the_services_alone(tmp_path: Path, runtime: str, target: str) -> None:
    found = image_options(tmp_path, lay_out(tmp_path, runtime))
    assert (found.target, found.arguments) == (target, {"BUNDLE_VERSION": "v"})


@pytest.mark.parametrize(("runtime", "target"), [("onnx", "slim"), ("sklearn", "full")])
def test_image_of_a_model_with_views_also_gets_the_section_of_its_data(
    tmp_path: Path, runtime: str, target: str
) -> None:
    views = {"weather": {"uri": "weather.csv"}}
    found = image_options(tmp_path, lay_out(tmp_path, runtime, views))
    assert (found.target, found.arguments["RUNTIME"]) == ("features", target)
    # YAML reads it as it was.
    assert yaml.safe_load(found.arguments["DATA_PARAMS"]) == {
        "source": "table",
        "target": "s\u00e9j\u00f6ur",
        "views": views,
    }


def test_params_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    bundle = lay_out(tmp_path, views={})
    (tmp_path / "params.yaml").write_text("gate: {}\n")
    with pytest.raises(SettingsError, match=r"params\.yaml has no readable section `data`"):
        image_options(tmp_path, bundle)


def test_make_image_gets_the_options_as_a_shell_reads_them(tmp_path: Path) -> None:
    lay_out(tmp_path, views={"weather": {"uri": "it's.csv"}})
    command = f'options=$({sys.executable} -m infra.image_options) && eval "set -- $options" && printf "%s\\n" "$@"'
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
    )
    told = done.stdout.splitlines()
    assert told[:4] == ["--target", "features", "--build-arg", "BUNDLE_VERSION=v"]
    assert json.loads(told[-1].removeprefix("DATA_PARAMS="))["views"] == {"weather": {"uri": "it's.csv"}}


@pytest.mark.parametrize(
    "uri", ["weather.csv", "data/weather.csv", "s3://bucket/weather.csv", "https://a.example/w.csv"]
)
def test_files_that_a_pod_can_read_are_accepted(tmp_path: Path, uri: str) -> None:
    lay_out(tmp_path, views={"weather": {"uri": uri}})
    check_views(tmp_path)


@pytest.mark.parametrize("uri", ["/home/ann/weather.csv", "../weather.csv", "http://a.example/w.csv", "file:///w.csv"])
def test_other_files_are_refused_with_a_remedy(tmp_path: Path, uri: str) -> None:
    lay_out(tmp_path, views={"weather": {"uri": uri}, "shops": {"uri": "shops.csv"}})
    with pytest.raises(SettingsError) as refused:
        check_views(tmp_path)
    [line] = str(refused.value).splitlines()
    assert line.startswith(
        f"data.views.weather.uri in params.yaml is {uri}, which the materialiser's pod can't read: use "
    )
