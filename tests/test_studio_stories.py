"""Stories of the studio: the files of `phenaki story`, re-rolls, undoing, branches, refusals."""

import json

import pytest
import tiny
from studio import Client, running_tiny, visitor

from phenaki.evaluation import alignment
from phenaki.pipeline import Phenaki
from phenaki.sampling.windows import windows
from phenaki.stories import generate, rerolls, storyboard
from phenaki.studio import stories

SCENES = [
    {"prompt": "a red circle moves left", "seconds": 1.4},
    {"prompt": "then a blue square moves up", "seconds": 0.75, "seed": "18446744073709551615"},
    {"prompt": "a green circle: moves right", "seconds": 1.4, "cut": True, "guidance": 1.5},
]
FORM = {"name": "three scenes", "seed": "7", "steps": 2, "scenes": SCENES}


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with running_tiny(tmp_path_factory) as (rooms, port):
        yield rooms, port


@pytest.fixture
def client(studio):
    return visitor(studio[1])


def rendered(client, story, what="render", **more):
    job = client.done(client.post(f"/api/stories/{story}/{what}", {"form": FORM, **more}))
    assert job["state"] == "done", job
    return client.get(f"/api/stories/{story}")


def folder_of(studio, story):
    (folder,) = studio[0].directory.glob(f"stories/*/{story}")
    return folder


def cached(model: Phenaki, folder):
    """Whether each window of a story is there, for the command, too."""
    story = storyboard.read(folder / "story.yaml", model.spec, model.context, 0)
    shots = rerolls.reroll(story.shots, rerolls.read(folder / "film/rerolls.json"))
    story = storyboard.Storyboard(shots, story.context)
    cache = generate.WindowCache(folder / "film/windows")
    plan = windows(shots, model.spec, story.context)
    parts = generate.generate_windows(model, story, plan, cache, read_image=lambda path: None)
    return [not part.sampled for part in parts]


def test_the_command_finds_what_the_studio_sampled(studio, client):
    story = client.post("/api/stories", FORM)["id"]
    told = rendered(client, story)
    films = {"story.mp4", "story.gif", "story.srt", "story.png"}
    assert films | {"drift.json", "drift.png"} <= set(told["files"])
    assert told["right"].keys() == set(alignment.ATTRIBUTES)
    assert [line["scene"] for line in told["drift"]["windows"]] == [1, 2, 3]
    folder = folder_of(studio, story)
    assert cached(studio[0].engine.model, folder) == [True] * 3
    shots = storyboard.read(folder / "story.yaml", tiny.phenaki().spec, 5, 0).shots
    assert [shot.seed for shot in shots] == [7, 2**64 - 1, 7]
    assert [shot.cut for shot in shots] == [False, False, True]
    assert shots[2].prompt == SCENES[2]["prompt"]
    srt = client.ask("GET", f"/stories/{story}/story.srt?download")
    assert 'attachment; filename="story.srt"' == srt[1]["content-disposition"]
    assert b"then a blue square moves up" in srt[2]


def test_a_reroll_is_that_of_the_command_and_can_be_undone(studio, client):
    story = client.post("/api/stories", FORM)["id"]
    rendered(client, story)
    folder = folder_of(studio, story)
    before = (folder / "film/story.mp4").read_bytes()
    told = rendered(client, story, "reroll", scene=2)
    shots = storyboard.read(folder / "story.yaml", tiny.phenaki().spec, 5, 0).shots
    assert json.loads((folder / "film/rerolls.json").read_text()) == {rerolls.digests(shots)[1]: 1}
    assert [line["made"] for line in told["drift"]["windows"]] == [False, True, False]
    assert told["can_undo"]
    undone = client.post(f"/api/stories/{story}/undo", {})
    assert not undone["can_undo"] and undone["form"]["seed"] == "7"
    told = rendered(client, story)
    assert [line["made"] for line in told["drift"]["windows"]] == [False] * 3
    assert (folder / "film/story.mp4").read_bytes() == before
    assert client.ask("POST", f"/api/stories/{story}/undo", "{}")[0] == 400


def test_a_branch_shares_windows_and_then_continues_apart(studio, client):
    story = client.post("/api/stories", FORM)["id"]
    rendered(client, story)
    branch = client.post(f"/api/stories/{story}/branch", {"form": FORM})
    assert (branch["name"], branch["id"] != story) == ("three scenes, branch", True)
    other = FORM | {
        "scenes": [*SCENES[:2], {"prompt": "a red square", "seconds": 1.4, "cut": True}]
    }
    job = client.done(client.post(f"/api/stories/{branch['id']}/render", {"form": other}))
    assert job["state"] == "done"
    told = client.get(f"/api/stories/{branch['id']}")
    assert [line["made"] for line in told["drift"]["windows"]] == [False, False, True]
    assert client.get(f"/api/stories/{story}")["form"]["scenes"][2]["prompt"] == SCENES[2]["prompt"]
    assert {x["id"] for x in client.get("/api/stories")} == {story, branch["id"]}
    assert client.ask("DELETE", f"/api/stories/{story}")[0] == 200
    assert not (studio[0].directory / "stories" / story).exists()


def test_a_preview_lies_apart(client):
    story = client.post("/api/stories", FORM)["id"]
    told = rendered(client, story, "preview")
    assert told["preview"] and "story.mp4" not in told["files"]
    assert client.ask("GET", f"/stories/{story}/preview.mp4")[2][4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scenes": []}, "a story has 1 to 60 scenes."),
        ({"scenes": [{"prompt": "x", "seconds": 0}]}, "scene 1: seconds must be above 0"),
        ({"scenes": [SCENES[0], {"prompt": "x", "seconds": "3"}]}, "scene 2: seconds=3 must be a"),
        ({"scenes": [{"prompt": "x", "seconds": 400}] * 2}, "lasts 600 seconds at most"),
        ({"scenes": [{"seconds": 1, "image": "../../x"}]}, "scene 1: there is no such upload"),
        ({"scenes": [{"seconds": 1, "image": f"image-{'a' * 5000}.png"}]}, "no such upload"),
        ({"seed": "x"}, "seed=x must be a whole number"),
    ],
)
def test_a_wrong_story_is_refused_and_leaves_nothing(studio, client, change, error):
    before = list(studio[0].directory.glob("stories/*/*"))
    assert error in client.post("/api/stories", FORM | change, status=400)["error"]
    assert list(studio[0].directory.glob("stories/*/*")) == before


@pytest.mark.parametrize("form", [None, [], 5, "story", {}])
def test_what_is_no_story_is_refused(client, form):
    assert "has 1 to 60 scenes" in client.post("/api/stories", form, status=400)["error"]


def test_a_story_shows_drift_while_it_is_made_and_is_not_removed(studio, client):
    form = FORM | {"scenes": [{"prompt": "a red circle moves left", "seconds": stories.SECONDS}]}
    story = client.post("/api/stories", form)["id"]
    job = client.post(f"/api/stories/{story}/render", {"form": form})
    seen = client.follow(job)
    drift = next(x["drift"] for x in seen if len(x.get("drift", [])) > 1)
    assert drift[0].keys() == {"start", "scene", "mean", "sharpness", "seam", "step"}
    status, _, content = client.ask("DELETE", f"/api/stories/{story}")
    assert (status, b"is being made" in content) == (409, True)
    client.post(f"/api/jobs/{job['id']}/cancel", {})
    last = list(seen)[-1]
    assert (last["state"], "drift" in last) == ("cancelled", False)
    assert client.ask("DELETE", f"/api/stories/{story}")[0] == 200


@pytest.mark.parametrize("content", ["scenes: [", "just text", "scenes: [a]", "{}", "", "\udcff"])
def test_a_story_whose_file_is_damaged_hides_no_other(studio, client, content):
    broken, whole = (client.post("/api/stories", FORM)["id"] for _ in range(2))
    path = folder_of(studio, broken) / "story.yaml"
    path.write_text(content, errors="surrogateescape")
    names = {story["id"]: story["name"] for story in client.get("/api/stories")}
    assert names[broken].startswith("the file of this story is damaged") and whole in names
    status, _, body = client.ask("GET", f"/api/stories/{broken}")
    assert (status, "is damaged" in json.loads(body)["error"]) == (400, True)
    (folder_of(studio, whole) / "history.json").write_text("[{")
    assert not client.get(f"/api/stories/{whole}")["can_undo"]
    for story in (broken, whole):
        assert client.ask("DELETE", f"/api/stories/{story}")[0] == 200


def test_a_refused_reroll_leaves_nothing_to_undo(studio, client):
    story = client.post("/api/stories", FORM)["id"]
    count = len(FORM["scenes"])
    for scene in (0, -1, count + 1):
        form = json.dumps({"form": FORM, "scene": scene})
        assert client.ask("POST", f"/api/stories/{story}/reroll", form)[0] == 400
    assert not client.get(f"/api/stories/{story}")["can_undo"]
    assert client.ask("DELETE", f"/api/stories/{story}")[0] == 200


def test_yaml_of_a_caption_is_text(studio, client):
    hostile = '"]\nscenes: !!python/object/apply:os.system ["x"] # ${HOME} {{x}}'
    form = {"scenes": [{"prompt": hostile, "seconds": 1.4}]}
    story = client.post("/api/stories", form)["id"]
    folder = folder_of(studio, story)
    (shot,) = storyboard.read(folder / "story.yaml", tiny.phenaki().spec, 5, 0).shots
    assert shot.prompt == " ".join(hostile.split())


def test_no_other_browser_has_a_story(studio, client):
    story = client.post("/api/stories", FORM)["id"]
    other = Client(studio[1])
    other.ask("GET", "/")
    assert other.get("/api/stories") == []
    assert other.ask("GET", f"/api/stories/{story}")[0] == 400
    assert other.ask("GET", f"/stories/{story}/story.yaml")[0] == 404
    for name in ("rerolls.json", "windows", "history.json", "..%2f..%2fstory.yaml"):
        assert client.ask("GET", f"/stories/{story}/{name}")[0] == 404


def test_there_are_so_many_stories_of_a_browser(client, monkeypatch):
    monkeypatch.setattr(stories, "EACH", 2)
    for _ in range(2):
        client.post("/api/stories", FORM)
    assert "you have 2 stories" in client.post("/api/stories", FORM, status=400)["error"]
