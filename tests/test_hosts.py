"""Jobs of several processes: whose log lines are shown, and how all of them end."""

import logging
import os

import pytest

from phenaki import hosts

PACKAGE = os.path.dirname(hosts.__file__)


def shown(index, module, message="is %d"):
    record = logging.LogRecord("absl", logging.WARNING, module, 1, message, (7,), None)
    return hosts.Numbered(lambda: index).filter(record) and record.getMessage()


@pytest.mark.parametrize(
    ("module", "first", "fourth"),
    [
        (f"{PACKAGE}/train/loop.py", "is 7", False),
        (f"{PACKAGE}/data/records.py", "host 0: is 7", "host 3: is 7"),
        ("/home/phenaki/.venv/lib/jax/xla.py", "host 0: is 7", "host 3: is 7"),
    ],
)
def test_a_line_that_all_hosts_have_is_shown_once_and_others_have_the_hosts_number(
    module, first, fourth
):
    assert shown(0, module) == first
    assert shown(3, module) == fourth


def test_a_process_of_its_own_has_no_others_to_end():
    assert hosts.joined() is None
    hosts.end(2, "returns")
    hosts.watch()
