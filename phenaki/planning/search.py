"""Search over meshes, remat policies, batch sizes and micro-batches, by estimates from shapes."""

from collections.abc import Iterable
from typing import NamedTuple

from phenaki.planning import meshes, trace
from phenaki.planning.chips import Chip, Topology
from phenaki.planning.costs import FRACTION
from phenaki.planning.programs import Workload

USABLE = 0.92  # of a device's memory; the rest is for XLA itself and fragmentation
REMATS = ("none", "products", "dots", "full")
SCALES = (0.5, 1, 2)  # of the config's batch
ACCUMULATE = (1, 2, 4, 8)


class Candidate(NamedTuple):
    """One way to run the step; seconds are modelled, bytes are of one device."""

    workload: Workload  # with its remat policy, batch and micro-batches
    mesh: meshes.MeshShape
    memory: float
    compute: float  # seconds of products at `FRACTION` of the peak, recomputation included
    exchange: float  # seconds of traffic at the links' full rate

    @property
    def seconds(self) -> float:
        """Of a step whose products hide no traffic."""
        return self.compute + self.exchange

    @property
    def sample_seconds(self) -> float:
        """Seconds of a step by its samples, with which batches of several sizes compare."""
        return self.seconds / sum(self.workload.samples.values())


def search(workload: Workload, topology: Topology) -> list[Candidate]:
    """Every candidate that fits, the fastest per sample first.

    A batch is tried where the mesh divides each kind of it.
    """
    found = []
    for remat in REMATS:
        whole = workload.varied(remat=remat, accumulate=1)
        program = whole.train_step()
        work = sum(trace.flops(program.function, *program.inputs).values())
        kept: dict[tuple[int, ...], float] = {}
        held: dict[tuple[int, ...], float] = {}
        for scale, accumulate in ((s, a) for s in SCALES for a in ACCUMULATE):
            samples = {kind: int(count * scale) for kind, count in workload.samples.items()}
            if not all(samples[kind] for kind, count in workload.samples.items() if count):
                continue
            run = whole.varied(samples=samples, accumulate=accumulate)
            # The same rate for every batch: products grow with it, all others do not matter.
            compute = work * scale / (topology.devices * topology.chip.flops * FRACTION)
            for sizes in meshes.legal(run, topology):
                # A micro-batch needs what a step of its samples does.
                parts = sizes["data"] * sizes["fsdp"] * accumulate
                rows = {kind: count // parts for kind, count in samples.items()}
                key = tuple(rows.values())
                if key not in kept:
                    one = dict(data=1, fsdp=1, sequence=1, tensor=1, slices=1)
                    kept[key] = meshes.activations(whole.varied(samples=rows), one)
                shape = tuple(sizes.values())
                if shape not in held:
                    held[shape] = meshes.state_bytes(program, sizes)
                memory = held[shape] + kept[key] / sizes["sequence"]
                exchange = meshes.traffic(run, sizes, program) / topology.chip.link
                found.append(Candidate(run, sizes, memory, compute, exchange))
    fitting = (candidate for candidate in found if fits(candidate, topology.chip))
    return sorted(fitting, key=lambda c: (c.sample_seconds, c.memory))


def fits(candidate: Candidate, chip: Chip) -> bool:
    """Whether a device has the memory."""
    return candidate.memory <= USABLE * chip.memory


def pareto(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other candidate beats in both seconds per sample and memory, fastest first."""
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.sample_seconds, c.memory)):
        if not front or candidate.memory < front[-1].memory:
            front.append(candidate)
    return front


def table(candidates: Iterable[Candidate]) -> str:
    """Candidates as text, a line each."""
    lines = [
        "mesh (data, fsdp, sequence, tensor)   remat   batch  micro-batches    GiB    s/step  "
        "ms/sample"
    ]
    for c in candidates:
        mesh = " x ".join(str(c.mesh[axis]) for axis in ("data", "fsdp", "sequence", "tensor"))
        batch = sum(c.workload.samples.values())
        lines.append(
            f"{mesh:37} {c.workload.remat:6} {batch:6} {c.workload.accumulate:14} "
            f"{c.memory / 2**30:6.1f} {c.seconds:9.3g} {1e3 * c.sample_seconds:10.3g}"
        )
    return "\n".join(lines)
