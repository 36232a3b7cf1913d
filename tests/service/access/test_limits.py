"""A bucket gives as many tokens as it has, to all threads and processes together."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.access.limits import Buckets, Limit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("shared", [False, True])
def test_a_burst_then_as_many_as_the_rate_allows(tmp_path: Path, shared: bool):
    clock = Clock()
    buckets = Buckets(tmp_path if shared else None, clock)
    limit = Limit(per_second=2, burst=3)
    assert [buckets.take("a", limit) for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a", limit) == pytest.approx(0.5)
    assert buckets.take("b", limit) == 0, "another name has another bucket"
    clock.now += 0.5
    assert [buckets.take("a", limit) == 0 for _ in range(2)] == [True, False]
    clock.now += 100
    assert [buckets.take("a", limit) == 0 for _ in range(4)] == [True, True, True, False], "no more than a burst"


def test_who_waits_as_long_as_told_gets_a_token():
    clock = Clock()
    buckets = Buckets(clock=clock)
    limit = Limit(per_second=0.3, burst=1)
    assert buckets.take("a", limit) == 0
    for _ in range(50):
        wait = buckets.take("a", limit)
        assert wait > 0
        clock.now += wait
        assert buckets.take("a", limit) == 0


def test_a_limit_that_changes_counts_from_then_on():
    clock = Clock()
    buckets = Buckets(clock=clock)
    assert buckets.take("a", Limit(0.001, 1)) == 0
    assert buckets.take("a", Limit(0.001, 1)) > 0
    clock.now += 1000
    assert [buckets.take("a", Limit(10, 5)) for _ in range(5)] == [0] * 5


def taken(folder: Path, tries: int) -> int:
    buckets = Buckets(folder, Clock())
    return sum(buckets.take("a", Limit(1e-6, 700)) == 0 for _ in range(tries))


def test_processes_share_a_bucket_exactly(tmp_path: Path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert sum(pool.starmap(taken, [(tmp_path, 400)] * 3)) == 700


def test_threads_share_a_bucket_exactly(tmp_path: Path):
    buckets = Buckets(tmp_path, Clock())
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: buckets.take("a", Limit(1e-6, 300)), range(1000)))
    assert waits.count(0) == 300
