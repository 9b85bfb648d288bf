"""Every test sees eight simulated CPU devices, compiles afresh and draws the same numbers."""

import gc
import importlib.metadata
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import logging as absl_logging

ROOT = Path(__file__).parents[1]

# Before jax is imported: it reads these once.
DEVICES_FLAG = "--xla_force_host_platform_device_count=8"
# Networks this small are compiled far longer than they run.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
# The emitters of fusions start a compiler for each: without them a step compiles in half the time.
# Later versions know no such flag, and end where they are given one.
KNOWN = importlib.metadata.version("jaxlib").startswith("0.10.")
EMITTERS_FLAG = "--xla_cpu_use_fusion_emitters=false" if KNOWN else ""
FAST_FLAG = f"--xla_cpu_parallel_codegen_split_count=1 {EMITTERS_FLAG}".strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_FLAG} {DEVICES_FLAG}".strip()
os.environ["MPLBACKEND"] = "agg"
os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is no folder could be a model of the hub
# Of a bucket that refuses: few repetitions after short waits. TensorFlow reads these when it loads.
os.environ["GCS_RETRY_CONFIG_MAX_RETRIES"] = "2"
os.environ["GCS_RETRY_CONFIG_INIT_DELAY_TIME_US"] = "1000"
os.environ["GCS_RETRY_CONFIG_MAX_DELAY_TIME_US"] = "10000"
os.environ["GCS_REQUEST_IDLE_TIMEOUT_SECS"] = "2"
os.environ["GCS_STAT_CACHE_MAX_AGE"] = "0"  # as phenaki.io.paths, whoever loads it first


# The longest files: they run first, so that all workers are busy until the end.
LONG = (
    "processes", "planning", "train", "skip_updates", "experiments", "stories", "buckets",
    "packed_attention", "encode_dataset", "tokenizer_loss", "sampling", "baselines", "site",
    "recipe", "sampling_commands", "studio_browser", "critic", "stored", "one_pass",
    "studio_stories", "doctor", "attention_impl", "compare_tokenizers", "evaluation", "accelerator",
    "quantizer", "warm_start",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Moves the tests of `LONG` to the front; each file keeps its order."""
    places = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


def pytest_collection_finish():
    """Tracing makes objects by the million that stay: few collections, and none of the modules."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def same_numbers_each_run():
    """Seed the global generators, for the libraries that draw from them."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002


@pytest.fixture(autouse=True)
def interrupts_as_before():
    """A command that ended ignores interrupts; the tests after it must not, nor their children."""
    before = {x: signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def warnings_are_logged_as_before():
    """A test that lowers the log's level for good would fail tests after it that look at lines."""
    before = absl_logging.get_verbosity(), logging.root.manager.disable
    yield
    assert (absl_logging.get_verbosity(), logging.root.manager.disable) == before


@pytest.fixture
def run_script():
    """Run a script of the repository as a user would, on one device: its CompletedProcess.

    With `quick` programs are compiled fast instead of well.
    """

    def run(
        script: str, *arguments: object, timeout: float = 600, quick: bool = False,
        **environment: str,
    ):  # fmt: skip
        env = os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace(DEVICES_FLAG, "")}
        env["PYTHONPATH"] = str(ROOT)
        if not quick:
            del env["JAX_DISABLE_MOST_OPTIMIZATIONS"]
            env["XLA_FLAGS"] = env["XLA_FLAGS"].replace(EMITTERS_FLAG, "")
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        return subprocess.run(
            command,
            env=env | environment,
            cwd=ROOT,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    return run
