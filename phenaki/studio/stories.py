"""Stories on disk, as `phenaki story` reads and writes them, with what came before for undoing.

OUTPUT/stories/OWNER/STORY/ has story.yaml with its images, and film/, the --output of the command:
a story of the studio continues there, and the reverse. history.json has earlier states.
"""

import json
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from phenaki.errors import UserError
from phenaki.io import artifacts
from phenaki.stories import rerolls
from phenaki.stories.storyboard import Storyboard, read
from phenaki.studio import forms
from phenaki.studio.engine import Engine
from phenaki.studio.uploads import Uploads

EACH = 20  # stories of one owner
SCENES = 60
SECONDS = 600  # of a story
HISTORY = 50  # states that can be undone
ID = re.compile(r"[\w-]{8,40}")
FILES = {
    "story.mp4": "video/mp4",
    "story.gif": "image/gif",
    "story.srt": "application/x-subrip",
    "story.png": "image/png",
    "drift.png": "image/png",
    "drift.json": "application/json",
    "story_report.json": "application/json",
}
_SCENE = ("guidance", "steps")  # options that a scene may set


class Stories:
    """The stories of all owners."""

    def __init__(self, directory: Path, uploads: Uploads):
        self.directory, self.uploads = directory / "stories", uploads

    def of(self, owner: str) -> list[dict[str, Any]]:
        """The stories of an owner, the newest first."""
        found = [path.parent for path in (self.directory / owner).glob("*/story.yaml")]
        found.sort(key=lambda folder: -(folder / "story.yaml").stat().st_mtime)
        return [{"id": folder.name, "name": self._name(folder)} for folder in found]

    def find(self, owner: str, name: str) -> Path:
        """The folder of a story.

        Raises:
            UserError: the owner has no such story.
        """
        folder = self.directory / owner / name
        if not ID.fullmatch(name) or not (folder / "story.yaml").is_file():
            raise UserError("there is no such story.")
        return folder

    def add(self, owner: str, form: Any) -> Path:
        """A new story of a form.

        Raises:
            UserError: there are too many, or a field is wrong.
        """
        if len(self.of(owner)) >= EACH:
            raise UserError(f"you have {EACH} stories: remove one.")
        folder = self.directory / owner / secrets.token_urlsafe(12)
        folder.mkdir(parents=True)
        try:
            document = self._document(owner, folder, form)
            self._write(folder, document, forms.text(form, "name") or "")
        except BaseException:
            shutil.rmtree(folder)
            raise
        return folder

    def change(self, owner: str, folder: Path, form: Any) -> None:
        """Replaces a story by a form; what was there can be had back by `undo`."""
        document = self._document(owner, folder, form)
        before = self._state(folder)
        name = forms.text(form, "name") or ""
        if document != before["document"] or name != before["own_name"]:
            self._remember(folder)
            self._write(folder, document, name)

    def reroll(self, folder: Path, number: int, engine: Engine) -> None:
        """A new seed for scene `number` (from 1), recorded as `phenaki story --reroll` does."""
        shots = self.read(folder, engine).shots
        if not 1 <= number <= len(shots):
            raise UserError(f"scene {number}: the story has {len(shots)} scenes.")
        self._remember(folder)
        (folder / "film").mkdir(exist_ok=True)
        rerolls.record(folder / "film/rerolls.json", shots, number)

    def undo(self, folder: Path) -> None:
        """The state before the last change.

        Raises:
            UserError: there is none.
        """
        history = self._history(folder)
        if not history:
            raise UserError("there is nothing to undo.")
        last = history.pop()
        artifacts.write_json(folder / "history.json", history)
        self._write(folder, last["document"], last["name"])
        (folder / "film").mkdir(exist_ok=True)
        artifacts.write_json(folder / "film/rerolls.json", last["rerolls"])

    def branch(self, owner: str, folder: Path) -> Path:
        """A copy with the windows that were sampled: the two continue apart."""
        if len(self.of(owner)) >= EACH:
            raise UserError(f"you have {EACH} stories: remove one.")
        copy = folder.with_name(secrets.token_urlsafe(12))
        lease = shutil.ignore_patterns(".owner*", "*.partial", "preview")
        shutil.copytree(folder, copy, ignore=lease)
        name = f"{self._state(folder)['name']}, branch"[:100]
        self._write(copy, self._state(copy)["document"], name)
        return copy

    def remove(self, folder: Path) -> None:
        """Removes a story with its film."""
        shutil.rmtree(folder)

    def read(self, folder: Path, engine: Engine) -> Storyboard:
        """The checked story.

        Raises:
            UserError: as `phenaki.stories.storyboard.read`, without the path of the file.
        """
        path = folder / "story.yaml"
        try:
            return read(path, engine.spec, engine.model.context, 0)
        except UserError as error:
            raise UserError(str(error).replace(f"{path}", "the story")) from None

    def told(self, folder: Path) -> dict[str, Any]:
        """What a page is told of a story: its form, and the files that are there."""
        state = self._state(folder)
        film = folder / "film"
        shown = {name: (film / name).stat().st_mtime for name in FILES if (film / name).is_file()}
        drift, report = (
            json.loads((film / name).read_text()) if name in shown else {}
            for name in ("drift.json", "story_report.json")
        )
        return {
            "id": folder.name, "name": state["name"], "form": state["form"], "files": shown,
            "preview": (film / "preview/story.mp4").is_file(), "drift": drift,
            "right": report.get("windows_right", {}), "can_undo": bool(self._history(folder)),
        }  # fmt: skip

    def _history(self, folder: Path) -> list[dict[str, Any]]:
        path = folder / "history.json"
        try:
            return json.loads(path.read_text()) if path.is_file() else []
        except ValueError:  # torn: nothing can be undone
            return []

    def _name(self, folder: Path) -> str:
        try:
            return self._state(folder)["name"]
        except UserError as error:
            return str(error)

    def _remember(self, folder: Path) -> None:
        state = self._state(folder)
        counts = rerolls.read(folder / "film/rerolls.json")
        last = dict(document=state["document"], name=state["own_name"], rerolls=counts)
        artifacts.write_json(folder / "history.json", [*self._history(folder), last][-HISTORY:])

    def _state(self, folder: Path) -> dict[str, Any]:
        document = _stored(folder / "story.yaml")
        path = folder / "name.txt"
        name = path.read_text(encoding="utf-8") if path.is_file() else ""
        scenes = [
            {**scene, "cut": scene.get("cut") == "hard", "seed": _text(scene.get("seed"))}
            for scene in document["scenes"]
        ]
        form = {**document, "seed": _text(document.get("seed")), "scenes": scenes, "name": name}
        shown = name or document["scenes"][0].get("prompt") or "a story"
        return {"document": document, "name": shown, "own_name": name, "form": form}

    def _write(self, folder: Path, document: Mapping[str, Any], name: str) -> None:
        with artifacts.atomic(folder / "story.yaml") as partial:
            text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=100)
            partial.write_text(text, encoding="utf-8")
        (folder / "name.txt").write_text(name[:100], encoding="utf-8")

    def _document(self, owner: str, folder: Path, form: Any) -> dict[str, Any]:
        """The YAML of a form."""
        scenes = form.get("scenes") if isinstance(form, dict) else None
        if not isinstance(scenes, list) or not 0 < len(scenes) <= SCENES:
            raise UserError(f"a story has 1 to {SCENES} scenes.")
        found = [self._scene(owner, folder, number, x) for number, x in enumerate(scenes, 1)]
        if sum(scene["seconds"] for scene in found) > SECONDS:
            raise UserError(f"a story of the studio lasts {SECONDS} seconds at most.")
        return {"seed": forms.seed(form), **_options(form), "scenes": found}

    def _scene(self, owner: str, folder: Path, number: int, form: Any) -> dict[str, Any]:
        if not isinstance(form, dict):
            raise UserError(f"scene {number} must be a JSON object.")
        try:
            seconds = forms.number(form, "seconds")
            if seconds is None or not 0 < seconds <= SECONDS:
                raise UserError(f"seconds must be above 0 and at most {SECONDS}.")
            scene = {"prompt": forms.text(form, "prompt"), "seconds": seconds, **_options(form)}
            if form.get("seed") not in (None, ""):
                scene["seed"] = forms.seed(form)
            if image := form.get("image"):
                scene["image"] = self._image(owner, folder, str(image))
            elif form.get("cut") is True:
                scene["cut"] = "hard"
        except UserError as error:
            raise UserError(f"scene {number}: {error}") from None
        return scene

    def _image(self, owner: str, folder: Path, name: str) -> str:
        """The name of an image in the story's folder: of an upload, or one that is there."""
        if re.fullmatch(r"image-[\w-]{1,64}\.png", name) and (folder / name).is_file():
            return name
        source = self.uploads.find(owner, name) / "first.png"
        shutil.copyfile(source, folder / f"image-{source.parent.name}.png")
        return f"image-{source.parent.name}.png"


def _stored(path: Path) -> dict[str, Any]:
    """A story as the studio wrote it, unless its file was edited since.

    Raises:
        UserError: it has no scenes.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        scenes = document["scenes"]
        if scenes and all(isinstance(scene, dict) for scene in scenes):
            return document
    except (yaml.YAMLError, LookupError, TypeError, ValueError):
        pass
    raise UserError("the file of this story is damaged; phenaki story names the line.")


def _options(form: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "guidance": forms.number(form, "guidance"),
        "steps": forms.whole(form, "steps", 1, 1000),
    }
    return {name: value for name, value in found.items() if value is not None}


def _text(seed: Any) -> str:
    return "" if seed is None else str(seed)
