"""The same work on Apache Beam: units and shards are its elements, any runner does them.

Beam maps the very functions that a pool of processes maps, so that the bytes are the same. All
workers must see the input and the output under the same paths (NFS, Lustre, a mounted bucket).
"""

import functools
import importlib.util
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phenaki.errors import UserError

LOCAL = "DirectRunner"
TASKS = "tasks"


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
) -> Iterator[Any]:
    """The results of function(task) in the order of `tasks`.

    Tasks and results lie in files: a pipeline's description must stay small, and so does what is in
    memory. A runner that loses a worker tries the element again; one that a decoder always crashes
    on ends the pipeline, and the next run without Beam finds the culprit.
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
    result = pickle.dumps(function(task))
    part = directory / f"{number:08d}.{hash(result) & 0xFFFFFFFF:08x}.part"
    part.write_bytes(result)
    part.replace(directory / f"{number:08d}")
    return number
