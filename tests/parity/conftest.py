"""Parity with independent implementations: each comparison is a test and a line of a table."""

import numpy as np
import pytest

ROWS = pytest.StashKey[list[str]]()
LINE = "{:<16} {:<28} {:>10} {:>12} {:>9}"


@pytest.fixture(scope="session")
def parity(pytestconfig):
    """parity(network, group, ours, theirs, tolerance=1e-5) asserts, and keeps a line for the table.

    `group` names the layers compared. The tolerance is relative to the largest of `theirs`:
    float32 sums of many terms, taken in another order, differ by some 1e-6 of it.
    """
    rows = pytestconfig.stash.setdefault(ROWS, [])

    def compare(network: str, group: str, ours, theirs, tolerance: float = 1e-5) -> None:
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape, f"{network} {group}: {ours.shape}, not {theirs.shape}"
        difference, largest = np.abs(ours - theirs).max(), np.abs(theirs).max()
        rows.append(LINE.format(network, group, f"{difference:.2e}", f"{largest:.4g}", ours.size))
        assert difference <= tolerance * largest, f"{network} {group}: {rows[-1]}"

    return compare


def pytest_terminal_summary(terminalreporter):
    rows = terminalreporter.config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("parity")
        title = (
            f"{'network':<16} {'layers':<28} {'max |diff|':>10} {'max |value|':>12} {'values':>9}"
        )
        for row in (title, *rows):
            terminalreporter.write_line(row)
