"""Which rows of a global batch each process of a job loads, as its mesh places them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class HostRows:
    """The rows of a global batch of `total` that one process loads.

    Row r of a batch that starts at example s of the job's stream is example s + r: a batch is the
    same on any mesh and number of processes.
    """

    total: int
    rows: tuple[int, ...]  # ascending

    @classmethod
    def whole(cls, total: int) -> "HostRows":
        """All rows."""
        return cls(total, tuple(range(total)))

    def __len__(self) -> int:
        return len(self.rows)

    def numbers(self, start: int) -> np.ndarray:
        """The example numbers of these rows of the batch that starts at example `start`."""
        return start + np.array(self.rows, np.int64)


ALL = HostRows.whole(1)  # of a stream that is read example by example


def host_rows(total: int, processes: np.ndarray, process: int) -> HostRows:
    """The rows of a batch of `total` rows that `process` loads.

    `processes` [data fsdp sequence tensor] is the process of each device of a mesh
    (`sharding.process_grid`), in any order. data and fsdp split the rows evenly; a process loads
    the part of every (data, fsdp) position at which it has a device, so that all processes of a
    position load the same rows.

    Raises:
        ValueError: the rows do not divide, or the process has no device in the mesh.
    """
    positions = processes.reshape(processes.shape[0] * processes.shape[1], -1)
    size, rest = divmod(total, len(positions))
    mine = np.flatnonzero((positions == process).any(-1))
    if rest or not len(mine):
        raise ValueError(
            f"{total} rows over {len(positions)} positions of data and fsdp: the rows must divide, "
            f"and process {process} must have a device at one of them, not at {mine.tolist()}"
        )
    rows = (mine[:, None] * size + np.arange(size)).ravel()
    return HostRows(total, tuple(rows.tolist()))


def loads_per_row(processes: np.ndarray) -> float:
    """The mean number of processes that load a row on the mesh of `host_rows`."""
    positions = processes.reshape(processes.shape[0] * processes.shape[1], -1)
    return float(np.mean([len(np.unique(position)) for position in positions]))


def describe(totals: Mapping[str, int], processes: np.ndarray, process: int) -> str:
    """What `process` loads of batches of `totals` rows by kind, as a line of a log.

    Such as "host 3 of 64 loads rows 24 to 31 of 512, as host 4 does".
    """
    found = {kind: host_rows(total, processes, process) for kind, total in totals.items()}
    parts = [
        f"{_runs(rows.rows)} of {rows.total}" + (f" ({kind})" if len(totals) > 1 else "")
        for kind, rows in found.items()
    ]
    positions = processes.reshape(processes.shape[0] * processes.shape[1], -1)
    hosts = np.unique(processes).tolist()
    at = {host: (positions == host).any(-1) for host in hosts}
    mine = at.pop(process)
    same = [host for host, theirs in at.items() if (theirs == mine).all()]
    some = [host for host, theirs in at.items() if (theirs & mine).any() and host not in same]
    line = f"host {process} of {len(hosts)} loads rows {' and '.join(parts)}"
    if same:
        line += f", as {_hosts(same)} {'does' if len(same) == 1 else 'do'}"
    if some:
        line += f"; {_hosts(some)} {'loads' if len(some) == 1 else 'load'} some of them"
    return line


def _hosts(numbers: Sequence[int]) -> str:
    return f"host{'s' if len(numbers) > 1 else ''} {_runs(numbers)}"


def _runs(numbers: Iterable[int]) -> str:
    """Ascending numbers by their consecutive runs: "0 to 7, 12, 16 to 23"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in runs)
