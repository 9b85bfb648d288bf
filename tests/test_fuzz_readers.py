"""Damaged files of every kind that is read back as numbers: a slice of the campaign."""

import pytest
import stored_inputs

# A checkpoint takes a tenth of a second to read.
COUNT = {"bundle": 6, "run": 6, "T5X": 6, "T5X on Orbax": 6}


@pytest.mark.parametrize("name", stored_inputs.READERS)
def test_damage_is_refused_in_one_line_or_harmless(name, tmp_path):
    found = list(stored_inputs.campaign(name, tmp_path, COUNT.get(name, 20), seed=7))
    assert [one for one in found if one[1] == "wrong"] == []
    assert any(verdict == "refused" for _, verdict, _ in found)


def test_the_campaign_sees_what_is_wrong(tmp_path):
    """Other numbers in silence, a traceback, and a message of several lines."""
    npz = stored_inputs.READERS["npz"]
    npz.write(tmp_path)
    whole = npz.read(tmp_path)

    def raising(error):
        def read(folder):
            raise error

        return npz._replace(read=read)

    other = npz._replace(read=lambda folder: whole | {"b": whole["b"] + 1})
    for reader, details in (
        (other, "other numbers, in silence"),
        (raising(KeyError("a")), "KeyError: 'a'"),
        (raising(stored_inputs.UserError("one\ntwo")), "several lines: one\ntwo"),
    ):
        assert stored_inputs.judge(reader, tmp_path, whole) == ("wrong", details)
    assert stored_inputs.judge(npz, tmp_path, whole) == ("same", "")
