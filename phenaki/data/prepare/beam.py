"""Runs the tasks of `prepare_data.py` on Apache Beam, with any of its runners.

Beam maps the functions that the process pool maps, so the bytes are the same. All workers must see
the input and the output under the same paths (NFS, Lustre, a mounted bucket).
"""

import functools
import importlib.util
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phenaki.errors import UserError
from phenaki.io import artifacts

LOCAL = "DirectRunner"
TASKS = "tasks"


def runner(name: str, options: Sequence[str], workers: int, shared: Path) -> Callable:
    """A `run.Runner` on Beam.

    Args:
        name: DirectRunner (in `workers` processes), PrismRunner, FlinkRunner, SparkRunner,
            DataflowRunner or any other of Beam.
        options: pipeline options, such as --flink_master=HOST:PORT.
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
) -> Iterator[Any]:
    """Yields function(task) in the order of `tasks`.

    Tasks and results are passed in files: neither the pipeline's description nor its memory grows
    with them. A runner retries the elements of a lost worker. If one element crashes every worker
    the pipeline fails; a run without Beam isolates it.
    """
    del crashed
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions

    shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".beam", dir=shared) as name:
        directory, places = Path(name), []
        with (directory / TASKS).open("wb") as file:
            for number, task in enumerate(tasks):
                places.append((number, file.tell()))
                pickle.dump(task, file)
        work = functools.partial(_element, function, directory)
        with apache_beam.Pipeline(options=PipelineOptions(list(flags))) as pipeline:
            _ = (
                pipeline
                | "list" >> apache_beam.Create(places)
                | "spread" >> apache_beam.Reshuffle()
                | "work" >> apache_beam.Map(work)
            )
        for number in range(len(tasks)):
            yield pickle.loads((directory / f"{number:08d}").read_bytes())


def _element(function: Callable, directory: Path, place: tuple[int, int]) -> int:
    number, offset = place
    with (directory / TASKS).open("rb") as file:
        file.seek(offset)
        task = pickle.load(file)
    # A retried element may run twice at the same time.
    with artifacts.atomic(directory / f"{number:08d}") as partial:
        partial.write_bytes(pickle.dumps(function(task)))
    return number
