"""Models on the hub of Hugging Face: ORG/NAME, or ORG/NAME@REVISION to pin one.

A name is looked up there only where no folder has it. All files of one load are of one commit, and
only a model's own files are fetched. HF_ENDPOINT names another host, HF_HUB_OFFLINE forbids all.
"""

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging
from etils import epy

from phenaki.errors import UserError
from phenaki.io import outputs, paths, shared_model, shipped
from phenaki.io.paths import AnyPath, PathLike

with epy.lazy_imports():
    import huggingface_hub

INSTALL = "pip install 'phenaki[hub]'"
# What people call folders of models: runs/maskgit is never asked for, wherever one works.
_FOLDERS = {"checkpoints", "data", "export", "model", "models", "out", "run", "runs", "shared"}
_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


def find(given: PathLike) -> AnyPath:
    """The folder of a model: a path, what is shipped, or a model of the hub, fetched to its cache.

    Raises:
        UserError: the hub has no such model, or cannot be reached.
    """
    found = shipped.find(given, shipped.MODELS)
    if paths.is_remote(found) or found.exists() or not (match := _NAME.fullmatch(str(given))):
        return found
    parent = Path(str(given)).parent
    # A path that was misspelt; org/name@commit never is one.
    is_path = parent.exists() or str(parent) in _FOLDERS
    if match["revision"] is None and (is_path or not _installed()):
        return found
    return fetch(str(given), shared_model.READ)


def fetch(given: str, files: Sequence[str] = shared_model.FILES) -> Path:
    """The local folder with the `files` of a model on the hub.

    Raises:
        UserError: see `find`.
    """
    repo, revision = split(given)
    try:
        commit = _api().model_info(repo, revision=revision or "main").sha
    except Exception as error:
        commit = revision if re.fullmatch(r"[0-9a-f]{40}", revision or "") else None
        if commit is None:  # else the cache may have it
            raise _refused(f"{given}: no such directory, and", error) from error
    if revision != commit:
        logging.warning("%s: commit %s; %s@%s pins it", repo, commit, repo, commit)
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=commit, allow_patterns=list(files), endpoint=_endpoint()
            )
        )
    except Exception as error:
        raise _refused(f"{given}:", error) from error


def push(folder: Path, repo: str, *, public: bool, message: str) -> str:
    """Uploads a shared model as one commit: its address. `repo` is made where there is none.

    Raises:
        UserError: `repo` is no name, or the hub refuses.
    """
    name, revision = split(repo)
    try:
        api = _api()
        api.create_repo(name, private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            revision=revision,
            allow_patterns=list(shared_model.FILES),
            ignore_patterns=[f"*{outputs.MARKER}"],
            delete_patterns=list(shared_model.FILES),  # files of the model that was there before
            commit_message=message,
        )
    except Exception as error:
        raise _refused(f"{repo}:", error) from error
    return str(done.commit_url)


def split(given: str) -> tuple[str, str | None]:
    """(repository, revision or None).

    Raises:
        UserError: `given` is no name of the hub, or its client is not installed.
    """
    match = _NAME.fullmatch(given)
    if match is None:
        raise UserError(f"{given}: must be ORG/NAME or ORG/NAME@REVISION, as the hub names models.")
    if not _installed():
        raise UserError(f"{given}: the hub needs {INSTALL}.")
    return match["repo"], match["revision"]


def _installed() -> bool:
    return importlib.util.find_spec("huggingface_hub") is not None


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")


def _api() -> Any:
    return huggingface_hub.HfApi(endpoint=_endpoint(), library_name="phenaki")


def _refused(start: str, error: Exception) -> UserError:
    """One line of an error of the client, which raises those of several libraries."""
    if isinstance(error, UserError):
        return error
    reasons = [error, error.__cause__] if error.__cause__ else [error]
    text = ": ".join(" ".join(str(one).split())[:200] or type(one).__name__ for one in reasons)
    return UserError(f"{start} the hub refuses, or cannot be reached: {text}")
