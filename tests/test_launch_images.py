"""What a worker's image has: scripts/tpu.sh check and setup with pretended Pythons; GKE."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jobset
import pytest
import yaml

from configs import cvivit
from phenaki.data import batches
from phenaki.planning import chips, compiled

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/tpu.sh"
MANIFEST = ROOT / "examples/gke.yaml"
TOOLS = "bash cat chmod cp cut env git grep hostname ln mkdir mv printf rm sed".split()
# A pretended Python of `version`: says whether it is new enough, "installs" with pip, and makes
# virtual environments by copying itself. Everything but questions is written to calls.
PYTHON = """#!/usr/bin/env bash
version={version}
case "$*" in
  --version) echo "Python 3.$version.1" ;;
  *ensurepip*) [ "$version" -ge 11 ] ;;
  *find_spec*) [ -f "$HOME/installed" ] ;;
  *) echo "3.$version $*" >> "$HOME/calls"
     case "$*" in
       "-m pip install --quiet --user uv") touch "$HOME/uv" ;;
       "-m venv .venv" | "-m uv venv"*)
         mkdir -p .venv/bin
         sed "s/^version=.*/version=${{MADE:-$version}}/" "$0" > .venv/bin/python
         chmod +x .venv/bin/python ;;
       "-m pip install"*) touch "$HOME/installed" ;;
     esac ;;
esac
"""


@pytest.fixture
def image(tmp_path):
    """image(versions) -> (home, call, repository): a worker with these versions of Python 3 alone.

    They are minor ones; the first is python3. `call` runs scripts/tpu.sh there.
    """
    home, tools, remote = (tmp_path / name for name in ("home", "tools", "remote"))
    for folder in (home, tools, remote):
        folder.mkdir()
    for name in (*TOOLS, "touch", "sleep", "dirname"):
        (tools / name).symlink_to(shutil.which(name))
    gcloud = tools / "gcloud"
    gcloud.write_text(
        "#!/usr/bin/env bash\ncd $HOME\n"
        'for word; do [[ $word == --command=* ]] && exec bash -c "${word#--command=}"; done\n'
    )
    gcloud.chmod(0o755)
    author = {
        f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    git = dict(cwd=remote, check=True, env=os.environ | author, capture_output=True)
    subprocess.run(["git", "init", "-q", "-b", "main"], **git)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "one"], **git)

    def make(versions):
        for index, version in enumerate(versions):
            for name in ("python3",)[index:] + (f"python3.{version}",):
                path = tools / name
                path.write_text(PYTHON.format(version=version))
                path.chmod(0o755)

        def call(verb, *words):
            made = "" if max(versions) >= 11 else "12"  # by uv
            return subprocess.run(
                [SCRIPT, verb, "pod", "zone", *words], text=True, capture_output=True, timeout=60,
                env={"PATH": str(tools), "HOME": str(home), "MADE": made},
            )  # fmt: skip

        return home, call, str(remote)

    return make


def test_an_image_with_python_310_gets_another_for_this_user(image):
    home, call, remote = image([10])
    done = call("check")
    assert done.returncode == 1
    assert "Python 3.11 or newer (Python 3.10.1; setup installs 3.12)" in done.stdout
    assert "a TPU" in done.stdout
    done = call("setup", remote)
    assert done.returncode == 0, done.stderr
    calls = (home / "calls").read_text().splitlines()
    assert calls[:2] == [
        "3.10 -m pip install --quiet --user uv",
        "3.10 -m uv venv --quiet --seed --python 3.12 .venv",
    ]
    assert calls[2].startswith("3.12 -m pip install --quiet -c constraints.txt -e .[tpu]")
    assert "Python" not in call("check").stdout  # the TPU alone is missing
    assert call("setup", remote).returncode == 0  # keeps the environment
    assert sum("venv" in line for line in (home / "calls").read_text().splitlines()) == 1


def test_an_image_with_a_newer_python_uses_it(image):
    home, call, remote = image([10, 11, 13])
    assert "this package (run setup)" in call("check").stdout
    assert call("setup", remote).returncode == 0
    assert (home / "calls").read_text().splitlines()[0] == "3.13 -m venv .venv"


def test_an_environment_of_an_older_python_is_made_anew(image):
    home, call, remote = image([12])
    subprocess.run(["git", "clone", "-q", remote, home / "phenaki"], check=True)
    old = home / "phenaki/.venv/bin/python"
    old.parent.mkdir(parents=True)
    old.write_text(PYTHON.format(version=10))
    old.chmod(0o755)
    assert call("setup", remote).returncode == 0
    assert (home / "calls").read_text().splitlines()[0] == "3.12 -m venv .venv"


# --- arguments of the TPU compiler


def test_runs_plans_and_the_manifest_use_the_same_arguments():
    sent = subprocess.run(
        [SCRIPT, "start", "pod", "zone", "true"], env=os.environ | {"DRY_RUN": "1"},
        text=True, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert all(option in sent for option in chips.OPTIONS)
    container = _pod(yaml.safe_load(MANIFEST.read_text()))["containers"][0]
    assert {v["name"]: v["value"] for v in container["env"]} == {
        "LIBTPU_INIT_ARGS": " ".join(chips.OPTIONS)
    }


@pytest.mark.skipif(not compiled.available(), reason="libtpu is not installed (extra tpu)")
def test_the_compiler_knows_every_argument():
    code = (
        "import jax, sys; from jax.experimental import topologies as t\n"
        "d = t.get_topology_desc('v5e:2x2', 'tpu').devices[:1]\n"
        "s = jax.sharding.NamedSharding(jax.sharding.Mesh(d, ('x',)), jax.P())\n"
        "x = jax.ShapeDtypeStruct((8,), 'float32', sharding=s)\n"
        "o = dict(a[2:].split('=') for a in sys.argv[1:])\n"
        "jax.jit(lambda x: x + 1).lower(x).compile(compiler_options=o)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *chips.OPTIONS],
        env=os.environ | chips.ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- GKE


def _pod(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_the_manifest_meets_the_schema():
    manifest = yaml.safe_load(MANIFEST.read_text())
    assert jobset.faults(manifest) == []
    wrong = copy.deepcopy(manifest)
    _pod(wrong)["containers"][0]["ports"][0]["port"] = 1
    del _pod(wrong)["containers"][0]["image"]
    _pod(wrong)["restartPolicy"] = "Always"
    wrong["spec"]["replicatedJobs"][0]["replicas"] = "2"
    assert len(jobset.faults(wrong)) == 4


def test_the_manifest_has_a_pod_for_every_host_and_a_batch_that_divides():
    manifest = yaml.safe_load(MANIFEST.read_text())
    (job,) = manifest["spec"]["replicatedJobs"]
    grid = _pod(manifest)["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    topology = chips.parse(f"v5e:{grid}*{job['replicas']}")
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == topology.hosts / topology.slices
    container = _pod(manifest)["containers"][0]
    assert container["resources"]["limits"]["google.com/tpu"] == topology.chip.per_host
    assert f"--config.mesh.slices={topology.slices}" in container["command"]
    sizes = batches.sizes_of(cvivit.get_config("mit").data)
    assert all(size % topology.devices == 0 for size in sizes.values())
