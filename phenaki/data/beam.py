"""The same work on Apache Beam: units and shards are its elements, any runner does them.

Beam maps the very functions that a pool of processes maps, so that the bytes are the same. All
workers must see the input and the output under the same paths (NFS, Lustre, a mounted bucket).
"""

import functools
import importlib.util
import pickle
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phenaki.errors import UserError

LOCAL = "DirectRunner"


def runner(name: str, options: Sequence[str], workers: int, shared: Path) -> Callable:
    """A `prepare.Runner` on Beam.

    Args:
        name: DirectRunner (in `workers` processes), PrismRunner, FlinkRunner, SparkRunner,
            DataflowRunner or another that Beam knows.
        options: of the pipeline, such as --flink_master=HOST:PORT.
        shared: a directory that every worker sees, for results.

    Raises:
        UserError: Beam is not installed.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError("--runner needs Apache Beam: pip install 'phenaki[beam]'.")
    flags = [f"--runner={name}", *options]
    if name == LOCAL:
        flags += [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
    return functools.partial(run, flags=flags, shared=shared)


def run(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    crashed: Callable[[Any], Any] | None,
    *,
    flags: Sequence[str],
    shared: Path,
) -> list[Any]:
    """The results of function(task) in the order of `tasks`.

    A runner that loses a worker tries the element again; one that a decoder always crashes on ends
    the pipeline, and the next run without Beam finds the culprit.
    """
    del crashed
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions

    shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".beam", dir=shared) as directory:
        work = functools.partial(_element, function, Path(directory))
        pairs = [(number, pickle.dumps(task)) for number, task in enumerate(tasks)]
        with apache_beam.Pipeline(options=PipelineOptions(list(flags))) as pipeline:
            _ = (
                pipeline
                | "list" >> apache_beam.Create(pairs)
                | "spread" >> apache_beam.Reshuffle()
                | "work" >> apache_beam.Map(work)
            )
        files = [Path(directory, f"{number:08d}") for number in range(len(tasks))]
        return [pickle.loads(file.read_bytes()) for file in files]


def _element(function: Callable, directory: Path, pair: tuple[int, bytes]) -> int:
    number, task = pair
    result = pickle.dumps(function(pickle.loads(task)))
    part = directory / f"{number:08d}.{hash(result) & 0xFFFFFFFF:08x}.part"
    part.write_bytes(result)
    part.replace(directory / f"{number:08d}")
    return number
