"""Rules that are wrong in one place fail their cases: a sample. `tests.mutate_rules` tries all."""

import random
import re

import pytest

from tests.mutants import mutants
from tests.mutate_rules import Mutant, mutants_of, rules, tried, unchanged
from tests.promtool import needs_promtool
from tests.survivors import EXPLAINED, Survivors, explanation

SAMPLE = 100


@pytest.fixture(scope="module")
def every() -> list[Mutant]:
    return [mutant for rule in rules() for mutant in mutants_of(rule)]


def changed(expression: str) -> set[str]:
    """Return the mutants without parentheses, of which there are more than would be written."""
    return {re.sub(r"[()\s]+", " ", mutant).strip() for _, mutant in mutants(expression)}


def test_each_part_of_an_expression_is_changed() -> None:
    assert changed('sum by (job) (increase(a{b=~"c|d"}[10m] offset 1w)) >= 5') == {
        'sum by job increase a{b=~"c|d"}[10m] offset 1w > 5',
        'sum by job increase a{b=~"c|d"}[10m] offset 1w < 5',
        'sum by job increase a{b=~"c|d"}[10m] offset 1w >= 2.5',
        'sum by job increase a{b=~"c|d"}[10m] offset 1w >= 10',
        'sum by job increase a{b=~"c|d"}[10m] offset 1w >= 15',
        'max by job increase a{b=~"c|d"}[10m] offset 1w >= 5',
        'sum by job, instance increase a{b=~"c|d"}[10m] offset 1w >= 5',
        'sum increase a{b=~"c|d"}[10m] offset 1w >= 5',
        'sum by job rate a{b=~"c|d"}[10m] offset 1w >= 5',
        'sum by job increase a{b=~"c|d"}[3m20s] offset 1w >= 5',
        'sum by job increase a{b=~"c|d"}[30m] offset 1w >= 5',
        'sum by job increase a{b=~"c|d"}[10m] >= 5',
        'sum by job increase a{b=~"c|d"}[10m] offset 3d12h >= 5',
        'sum by job increase a{b=~"c|d"}[10m] offset 2w >= 5',
        "sum by job increase a[10m] offset 1w >= 5",
        'sum by job increase a{b!~"c|d"}[10m] offset 1w >= 5',
        'sum by job increase a{b=~"c"}[10m] offset 1w >= 5',
        'sum by job increase a{b=~"d"}[10m] offset 1w >= 5',
    }
    assert changed('a{le="1.0"} unless on (x, y) b > 0') == {
        'a{le="1.0"} and on x, y b > 0',
        'a{le="1.0"} unless on y b > 0',
        'a{le="1.0"} unless on x b > 0',
        'a{le="1.0"}',
        "b > 0",
        "a unless on x, y b > 0",
        'a{le!="1.0"} unless on x, y b > 0',
        'a{le="0.5"} unless on x, y b > 0',
        'a{le="2.0"} unless on x, y b > 0',
        'a{le="1.0"} unless on x, y b >= 0',
        'a{le="1.0"} unless on x, y b < 0',
        'a{le="1.0"} unless on x, y b > 1',
    }
    assert changed("a > bool on (job) group_left () sum_over_time(b[3h:15m])") == {
        "a >= bool on job group_left sum_over_time b[3h:15m]",
        "a < bool on job group_left sum_over_time b[3h:15m]",
        "a > on job group_left sum_over_time b[3h:15m]",
        "a > bool on group_left sum_over_time b[3h:15m]",
        "a > bool on job group_left max_over_time b[3h:15m]",
        "a > bool on job group_left sum_over_time b[1h:15m]",
        "a > bool on job group_left sum_over_time b[9h:15m]",
        "a > bool on job group_left sum_over_time b[3h:5m]",
        "a > bool on job group_left sum_over_time b[3h:45m]",
    }


@needs_promtool
def test_a_change_that_matters_is_noticed_and_none_is_not() -> None:
    [rule] = [rule for rule in rules() if rule.name == "GhlExporterBacklogOld"]
    wrong = Mutant(rule.file, rule.group, rule.place, {**rule.rule, "expr": "vector(301) > 300"})
    assert [alive for _, alive in tried([rule, wrong])] == [True, False]


@needs_promtool
def test_a_sample_of_all_mutants_is_noticed(every: list[Mutant]) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    sample = random.Random(seed).sample(every, SAMPLE)
    of_rules = {mutant.name for mutant in sample}
    whole = unchanged(rule for rule in rules() if rule.name in of_rules)
    results = list(tried([*whole, *sample]))
    assert [mutant.name for mutant, alive in results[: len(whole)] if not alive] == []
    unexplained = [
        f"{mutant.name}: {mutant.change}"
        for mutant, alive in results[len(whole) :]
        if alive and explanation(mutant.name, mutant.change) is None
    ]
    assert unexplained == []


@pytest.mark.parametrize("kind", EXPLAINED, ids=lambda kind: kind.why)
def test_what_is_explained_is_a_change_of_some_rule(kind: Survivors, every: list[Mutant]) -> None:
    assert any(kind.explain(mutant.name, mutant.change) for mutant in every)


def test_few_are_explained(every: list[Mutant]) -> None:
    explained = [mutant for mutant in every if explanation(mutant.name, mutant.change)]
    assert len(explained) < len(every) / 10
