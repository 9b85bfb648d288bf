"""The lines that mutants.py breaks are still there, and so are the tests that must notice."""

import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.claim)
def test_a_mutant_has_its_line_and_its_test(mutant):
    assert mutant.old in (mutants.ROOT / "phenaki" / mutant.file).read_text()
    name, keyword = mutant.tests
    tests = (mutants.ROOT / "tests" / name).read_text()
    assert all(word in tests for word in keyword.split(" and "))
