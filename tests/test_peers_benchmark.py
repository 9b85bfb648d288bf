"""benchmarks/peers.py: ratios are of processes of the same turn."""

import pytest
from script_calls import loaded


def test_ratios_are_medians_of_the_turns():
    with loaded("benchmarks/peers.py") as (peers, _):
        encode, guided, released = peers.CASES[0], peers.CASES[4], peers.RELEASED

        def turns(*seconds):
            return [{"seconds": {encode: [9.0, s, 0.1], guided: [4 * s]}} for s in seconds]

        measured = {"before": turns(1, 2, 4), "after": turns(0.5, 1.5, 1), "peer": turns(3, 3, 3)}
        for turn in measured["after"]:
            turn["seconds"][released] = [turn["seconds"][guided][0] / 4]
        row = peers.row(encode, measured)
        few = peers.row(released, measured)
        table = peers.table([row, peers.row(encode, {"after": measured["after"]})])
    assert (row["before"], row["after"], row["peer"], row["n"]) == (2, 1, 3, 3)
    assert row["ratio"] == [0.5, 0.25, 0.75]
    assert row["faster"] == [3, 2, 6]
    # Other programs have no such sampler: their guided clip is compared.
    assert (few["before"], few["after"]) == (8, 1)
    assert "| 2.000 | 1.000 | 0.50 (0.25 to 0.75) | 3.000 | 3.00 (2.00 to 6.00) |" in table
    assert table.endswith("| - | 1.000 | - | - | - |")


@pytest.mark.parametrize("flag", ["before", "peer"])
def test_a_program_that_is_none_is_refused_before_anything_is_measured(tmp_path, flag):
    with loaded("benchmarks/peers.py") as (peers, _), pytest.raises(peers.UserError, match=flag):
        peers.check({flag: str(tmp_path)})
