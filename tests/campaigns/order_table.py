"""The table of docs/data.md: what 1, 2 and 4 hosts read in an epoch of stored tokens.

python tests/campaigns/order_table.py    prints Markdown; a minute

Each host has its own `batches.make`, as in training. The tokens of a sample encode its number.
Counted are the samples of the first epoch of each set, and those of each set per step.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

MIXTURES = ("100/0", "80/20", "50/50", "80/10/10")
HOSTS = (1, 2, 4)
STEPS = 20
SETS = {"clips": "video", "images": "image", "other images": "image"}


def write(directory: Path, kind: str, origin, counts: dict[str, int], first: int, length: int):
    """Writes a directory of tokens whose samples encode the numbers from `first` on."""
    from phenaki.data import tensorflow, token_files

    directory.mkdir()
    tf = tensorflow.tensorflow()
    blank = token_files.Caption(b"", np.zeros(0, np.int32), None)
    name = f"clips-{kind}_train.tfrecord-00000"
    with tf.io.TFRecordWriter(str(directory / name)) as file:
        for number in range(first, first + length):
            tokens = np.zeros(counts[kind], np.uint16)
            tokens[:2] = divmod(number, 2**13)
            key = b"%d" % number
            file.write(token_files.example(tokens, [blank], False, key, origin.digest()))
    manifest = {
        "schema": token_files.SCHEMA,
        "origin": vars(origin),
        "sizes": dict(**counts, text=128, width=0),
        "files": {f"{kind}_train": [{"name": name, "records": length}]},
        "records": {f"{kind}_train": length},
    }
    (directory / token_files.MANIFEST).write_text(json.dumps(manifest))


def prepare(work: Path, mixture: str):
    """The config of the paper's model with that mixture, and the first number of each set."""
    from configs import cvivit, maskgit
    from phenaki.data.token_files import Origin
    from phenaki.models import factory
    from phenaki.train.maskgit import with_tokenizer

    config = maskgit.get_config(f"t2v,mix={mixture}")
    config = with_tokenizer(config, cvivit.get_config(), "of the table")
    spec = factory.video_spec(config)
    counts = {"video": spec.tokens(), "image": spec.tokens(1)}
    origin, data = Origin.of(config.fingerprint, spec, config.text), config.data
    per_step = {"clips": data.batch, "images": data.image_batch}
    if mixture.count("/") == 2:
        per_step["images"] = per_step["other images"] = data.image_batch // 2
    used = {name: count for name, count in per_step.items() if count}
    firsts, first = {}, 0
    for name, count in used.items():
        length = count * STEPS * 3 // 4  # an epoch ends before the steps do
        write(work / name, SETS[name], origin, counts, first, length)
        firsts[name] = (first, first + length)
        first += length
    images = [f"{work / name}=0.5" for name in used if name != "clips"]
    data.update(source="codes", sources=str(work / "clips"), image_sources=",".join(images))
    return config, firsts


def read(config, hosts: int) -> list[dict[str, np.ndarray]]:
    """The numbers of the samples of each step, in the order of the job, by kind."""
    from phenaki.data import batches
    from phenaki.data.host_rows import host_rows

    mesh = np.arange(hosts).reshape(hosts, 1, 1, 1)
    totals = {"video": config.data.batch, "image": config.data.image_batch}
    streams = []
    for host in range(hosts):
        rows = {kind: host_rows(total, mesh, host) for kind, total in totals.items() if total}
        streams.append(batches.make(config, lambda captions: {}, rows))
    steps = []
    for _ in range(STEPS):
        parts = [next(stream) for stream in streams]
        step = {}
        for kind in parts[0]:
            rows = np.concatenate([part[kind]["tokens"] for part in parts])
            step[kind] = rows[:, 0] * 2**13 + rows[:, 1]
        steps.append(step)
    for stream in streams:
        stream.close()
    return steps


def row(mixture: str, hosts: int, work: Path) -> tuple[str, int]:
    """A row of the table, and the number of samples that are missing or repeated."""
    work.mkdir()
    config, sets = prepare(work, mixture)
    steps = read(config, hosts)
    cells, wrong = [mixture, hosts], 0
    for name, kind in SETS.items():
        if name not in sets:
            cells += ["", ""]
            continue
        first, end = sets[name]
        per_step = [int(((first <= s[kind]) & (s[kind] < end)).sum()) for s in steps]
        seen = np.concatenate([s[kind] for s in steps])
        seen = seen[(first <= seen) & (seen < end)]
        epoch = seen[: end - first]
        repeated = len(epoch) - len(np.unique(epoch))
        missing = len(np.setdiff1d(np.arange(first, end), epoch))
        wrong += missing + repeated
        least, most = min(per_step), max(per_step)
        cells.append(f"{least}" if least == most else f"{least} to {most}")
        cells.append(f"{end - first}: {missing} missing, {repeated} repeated")
    return f"| {' | '.join(map(str, cells))} |", wrong


def main() -> int:
    """Prints the table; returns 1 if a sample is missing or repeated."""
    names = [f"{name} per step | epoch" for name in SETS]
    print(f"| mixture | hosts | {' | '.join(names)} |")
    print("|---" * (2 + 2 * len(SETS)) + "|")
    total = 0
    with tempfile.TemporaryDirectory() as directory:
        for mixture in MIXTURES:
            for hosts in HOSTS:
                work = Path(directory, f"{mixture.replace('/', '_')}_{hosts}")
                line, wrong = row(mixture, hosts, work)
                print(line, flush=True)
                total += wrong
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
