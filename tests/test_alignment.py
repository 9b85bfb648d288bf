"""How prompts are grouped when samples are scored."""

import numpy as np
import pytest

from phenaki.evaluation import alignment


@pytest.mark.parametrize("count", [1, 49, 50, 51, 120, 200])
def test_groups_are_of_one_size_and_cover_every_row(count):
    sizes = []

    def make(rows):
        made = np.arange(1000)[rows]
        sizes.append(len(made))
        return made

    np.testing.assert_array_equal(alignment._in_groups(make, count), np.arange(count))
    assert len(set(sizes)) == 1
