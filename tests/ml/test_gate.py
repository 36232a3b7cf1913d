"""A candidate becomes champion only if it is significantly better than the thresholds and than the incumbent."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ml.encoding import Encoding, NumericEncoder, OrdinalEncoder
from ml.features.views import View, Views
from ml.gate import Verdict, judge
from ml.params import Params, ParamsError
from ml.schema import Feature
from tests.bundles import version_of
from tests.ml.logistic import logistic_parts


@pytest.fixture(scope="module")
def held_rows() -> pd.DataFrame:
    """4,000 rows over 40 days; y follows x with the slope 1.5."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=4000)
    y = rng.random(4000) < 1 / (1 + np.exp(-1.5 * x))
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(4000) // 100, unit="D")
    return pd.DataFrame({"x": x, "member": rng.random(4000) < 0.1, "y": np.where(y, "yes", "no"), "day": days})


def params(**gate: object) -> Params:
    return Params.model_validate(
        {
            "seed": 1,
            "data": {"source": "table", "uri": "t.csv", "target": "y", "task": "binary", "time": "day"},
            "split": {"method": "time"},
            "model": {"name": "m", "estimators": {"line": {"kind": "linear"}}},
            "evaluation": {"replicates": 100, "slices": ["member"], "slice_min_rows": 100},
            "gate": {"metric": "log_loss"} | gate,
            "registry": {"experiment": "e", "model": "m"},
        }
    )


def verdict(candidate: float, incumbent: float | None, rows: pd.DataFrame, **gate: object) -> Verdict:
    new = logistic_parts(candidate)
    old = None if incumbent is None else logistic_parts(incumbent)
    return judge((version_of(new), new), "none" if old is None else (version_of(old), old), rows, params(**gate))


def test_the_first_candidate_that_clears_the_thresholds_is_champion(held_rows: pd.DataFrame) -> None:
    first = verdict(1.5, None, held_rows, minimum={"roc_auc": 0.7}, maximum={"brier": 0.25})
    assert (first.decision, first.incumbent, first.reasons) == ("champion", "none", ())


def test_a_threshold_counts_by_the_intervals_bad_end(held_rows: pd.DataFrame) -> None:
    clear = verdict(1.5, None, held_rows, maximum={"log_loss": 1.0})
    assert clear.decision == "champion"
    # A threshold between the value and the interval's end: the value alone would pass.
    refused = verdict(1.5, None, held_rows, minimum={"roc_auc": 0.80})
    assert refused.decision == "challenger"
    assert "roc_auc: 0.80" in refused.reasons[0]
    assert "is not surely above gate.minimum (0.8)" in refused.reasons[0]


def test_a_surely_better_candidate_replaces_the_incumbent(held_rows: pd.DataFrame) -> None:
    better = verdict(1.5, 0.3, held_rows)
    assert better.decision == "champion"
    assert better.improvement is not None
    assert better.improvement.low is not None
    assert better.improvement.low > 0


def test_a_better_one_whose_interval_spans_the_margin_is_refused(held_rows: pd.DataFrame) -> None:
    gain = verdict(1.5, 1.0, held_rows).improvement
    assert gain is not None
    assert gain.low is not None
    between = (gain.low + gain.value) / 2  # the middle clears it, the interval's end doesn't
    refused = verdict(1.5, 1.0, held_rows, margin=between)
    assert refused.decision == "challenger"
    assert "not significantly more than gate.margin" in refused.reasons[0]


def test_one_that_answers_as_the_incumbent_needs_to_be_no_better(held_rows: pd.DataFrame) -> None:
    """Something beside the model has changed: here where features are looked up."""
    old = logistic_parts(1.5)
    views = Views(time="day", max_lag=1, views=(View(name="v", keys=(), ttl=None, values=("x",), features=("x",)),))
    new = replace(old, views=views)
    assert version_of(new) != version_of(old)
    passed = judge((version_of(new), new), (version_of(old), old), held_rows, params(margin=0.5))
    assert (passed.decision, passed.reasons) == ("champion", ())
    other = logistic_parts(1.5000001)
    assert judge((version_of(other), other), (version_of(old), old), held_rows, params()).decision == "challenger"


def test_better_on_average_but_surely_worse_on_a_slice_is_refused(held_rows: pd.DataFrame) -> None:
    incumbent = logistic_parts(0.5)
    candidate = logistic_parts(1.5, interaction=-1.5)  # knows nothing of members
    pair = (version_of(candidate), candidate), (version_of(incumbent), incumbent)
    lenient = judge(*pair, held_rows, params(slice_margin=1.0))
    assert lenient.decision == "champion"
    strict = judge(*pair, held_rows, params(slice_margin=0.01))
    assert strict.decision == "challenger"
    assert strict.reasons[0].startswith("member=1.0: log_loss is worse by")


def test_a_refused_candidate_that_params_accept_becomes_champion_with_its_reasons(held_rows: pd.DataFrame) -> None:
    refused = verdict(1.0, 1.5, held_rows)
    accepted = verdict(1.0, 1.5, held_rows, accept=refused.candidate[:12])
    assert (accepted.decision, accepted.accepted, accepted.reasons) == ("champion", True, refused.reasons)
    assert refused.reasons
    another = verdict(1.0, 1.5, held_rows, accept="0123456789ab")
    assert (another.decision, another.accepted) == ("challenger", False)


def test_an_accepted_candidate_that_passes_by_itself_is_not_marked(held_rows: pd.DataFrame) -> None:
    version = verdict(1.5, 0.3, held_rows).candidate
    assert verdict(1.5, 0.3, held_rows, accept=version).accepted is False


def test_the_same_version_is_no_news(held_rows: pd.DataFrame) -> None:
    same = verdict(1.5, 1.5, held_rows, minimum={"roc_auc": 0.99})
    assert same.decision == "same"


def test_what_is_judged_is_the_version_that_never_saw_the_test_rows(held_rows: pd.DataFrame) -> None:
    served = logistic_parts(1.5, evaluated=logistic_parts(-1.5))
    judged = judge((version_of(served), served), "none", held_rows, params(minimum={"roc_auc": 0.5}))
    assert judged.decision == "challenger"


def test_another_target_can_not_be_compared(held_rows: pd.DataFrame) -> None:
    other = logistic_parts(1.0)
    renamed = logistic_parts(1.0, schema=other.schema.model_copy(update={"classes": ("n", "y")}))
    refused = judge((version_of(other), other), (version_of(renamed), renamed), held_rows, params())
    assert refused.decision == "challenger"
    assert "can't be compared" in refused.reasons[-1]


def test_an_incumbent_that_can_not_read_the_test_rows_can_not_be_compared(held_rows: pd.DataFrame) -> None:
    new, old = logistic_parts(1.5), logistic_parts(1.0)
    worded = Feature(name="member", type="categorical")
    new = replace(new, schema=new.schema.model_copy(update={"features": (new.schema.feature("x"), worded)}))
    new = replace(
        new, encoding=Encoding(encoders=(NumericEncoder(column="x"), OrdinalEncoder(column="member", order=("gold",))))
    )
    rows = held_rows.assign(member=np.where(held_rows["member"], "gold", "plain"))
    refused = judge((version_of(new), new), (version_of(old), old), rows, params())
    assert refused.decision == "challenger"
    assert "the incumbent can't read the test rows" in refused.reasons[-1]
    assert "'member' is boolean" in refused.reasons[-1]


def test_a_metric_of_another_task_is_named(held_rows: pd.DataFrame) -> None:
    with pytest.raises(ParamsError, match="rmse is not a metric of a binary model"):
        verdict(1.0, None, held_rows, minimum={"rmse": 1})


@pytest.mark.parametrize(("incumbent", "minimum"), [(0.3, {}), (None, {"roc_auc": 0.5})])
def test_too_few_test_rows_decide_nothing(
    held_rows: pd.DataFrame, incumbent: float | None, minimum: dict[str, float]
) -> None:
    few = pd.concat([held_rows[held_rows["y"] == "no"][:200], held_rows[held_rows["y"] == "yes"][:1]])
    refused = verdict(1.5, incumbent, few, minimum=minimum)
    assert refused.decision == "challenger"
    assert "the gate doesn't decide: the test part has 1 row of the class 'yes', fewer than" in refused.reasons[0]
    assert verdict(1.5, None, few).decision == "champion"  # there is nothing to decide
