"""Mutants and broken runs: their lines exist, and so do the tests that must notice."""

import broken_runs
import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.claim)
def test_a_mutant_has_its_line_and_its_test(mutant):
    assert mutant.old in (mutants.ROOT / "phenaki" / mutant.file).read_text()
    name, keyword = mutant.tests
    tests = (mutants.ROOT / "tests" / name).read_text()
    assert all(word in tests for word in keyword.split(" and "))


def test_a_broken_run_has_its_line():
    for broken in broken_runs.BROKEN_RUNS:
        if broken.file:
            assert (mutants.ROOT / "phenaki" / broken.file).read_text().count(broken.old) == 1
