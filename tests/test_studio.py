"""The studio over HTTP: films of a model, each browser's apart, and requests that are refused."""

import base64
import json

import jax
import numpy as np
import pytest
import script_calls
import tiny
from studio import Client, running, visitor

from phenaki.errors import UserError
from phenaki.io import checkpoint, media
from phenaki.models.student import from_teacher, of_teacher
from phenaki.studio import forms, guard, takes
from phenaki.studio.engine import Engine
from phenaki.studio.jobs import Job
from phenaki.train import inputs

PROMPT = "a red circle moves left"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.phenaki().save(folder)
    return folder


@pytest.fixture(scope="module")
def studio(bundle, tmp_path_factory):
    engine = Engine(bundle)
    with running(engine, tmp_path_factory.mktemp("studio")) as (rooms, port):
        engine.ready.wait()
        yield rooms, port


@pytest.fixture
def client(studio):
    return visitor(studio[1])


def test_a_prompt_becomes_the_films_of_its_seed(studio, client, monkeypatch):
    told, show = [], Job.show  # a page that asks late sees the last of it only

    def recorded(job, **what):
        told.append(what)
        show(job, **what)

    monkeypatch.setattr(Job, "show", recorded)
    form = dict(prompt=PROMPT, seed="3", takes=2, guidance=2.0, steps=2)
    seen = list(client.follow(client.post("/api/prompt", form)))
    assert seen[-1]["state"] == "done"
    steps = {(job.get("take"), job.get("step")) for job in seen}
    assert (2, 2) in steps
    shown = [what for what in told if "tokens" in what][-1]
    assert tuple(shown["grid"]) == (6, 2, 2) and len(shown["tokens"]) == 24
    assert shown["preview"]["url"].startswith("data:image/png;base64,")
    assert not {"tokens", "preview"} & seen[-1].keys()
    model, options = tiny.phenaki(), dict(seed=3, guidance=2.0, steps=2)
    both = model.generate([PROMPT] * 2, **options)
    found = {take["facts"]["row"]: take for take in client.get("/api/takes")}
    for row in range(2):
        frames = np.load(studio[0].takes.find(owner(client), found[row]["id"]) / "frames.npy")
        alone = model.generate([PROMPT], first_row=row, **options)[0]
        np.testing.assert_array_equal(frames, media.as_uint8(alone))
        # The last bits depend on the size of a batch.
        assert abs(media.as_uint8(both[row]).astype(int) - frames).max() <= 1
        made = found[row]["facts"]
        assert made["command"].endswith("--seed=3 --guidance=2.0 --steps=2")
        assert (made["prompt"], made["seed"]) == (PROMPT, 3)
    status, headers, content = client.ask("GET", f"/takes/{found[0]['id']}/film.mp4")
    assert (status, headers["content-type"]) == (200, "video/mp4")
    assert content[4:8] == b"ftyp"
    part = client.ask("GET", f"/takes/{found[0]['id']}/film.mp4", range="bytes=0-9")
    assert (part[0], part[2]) == (206, content[:10])


def owner(client):
    return guard.owner_of(client.cookie.partition("=")[2])


def test_no_other_browser_sees_a_film_or_a_job(studio, client):
    job = client.post("/api/prompt", dict(prompt=PROMPT))
    (take,) = client.done(job)["takes"]
    other = Client(studio[1])
    other.ask("GET", "/")
    assert other.get("/api/takes") == []
    for path in (f"/api/jobs/{job['id']}", f"/takes/{take['id']}/film.mp4"):
        assert client.ask("GET", path)[0] == 200
        assert other.ask("GET", path)[0] == 404
    assert other.ask("POST", f"/api/jobs/{job['id']}/cancel", "{}")[0] == 404
    assert other.ask("DELETE", f"/api/takes/{take['id']}")[0] == 400
    assert other.ask("POST", "/api/reconstruct", json.dumps({"take": take["id"]}))[0] == 400
    client.post(f"/api/takes/{take['id']}", {"kept": True})
    assert [x["kept"] for x in client.get("/api/takes") if x["id"] == take["id"]] == [True]
    assert client.ask("DELETE", f"/api/takes/{take['id']}")[0] == 200
    assert take["id"] not in [x["id"] for x in client.get("/api/takes")]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        (dict(seed="-1"), "seed=-1 must be a whole number"),
        (dict(seed="18446744073709551616"), "must lie in"),
        (dict(takes=7), "takes=7 must be a whole number from 1 to 6."),
        (dict(steps="many"), "steps=many must be a number."),
        (dict(prompt=["x"]), "prompt must be a text of at most 2000 characters."),
        (dict(prompt="x" * 2001), "prompt must be a text of at most 2000 characters."),
        ([], "the form must be a JSON object."),
        (dict(guidance=10**400), "must be a number."),
        (dict(steps=10**30), "steps=1e+30 must be a whole number from 1 to 1000."),
        (dict(steps=True), "steps=True must be a number."),
    ],
)
def test_a_wrong_form_is_refused_before_it_waits(client, form, error):
    assert error in client.post("/api/prompt", form, status=400)["error"]


def test_a_form_that_is_nested_without_end_is_no_form(client):
    status, _, body = client.ask("POST", "/api/prompt", "[" * 200_000)
    assert (status, json.loads(body)["error"]) == (400, "the form is not JSON.")


@pytest.mark.parametrize("mask", ["éé", "====", "AA", None, 5, [1]])
def test_a_mask_that_is_no_base64_of_its_bits_is_refused(mask):
    with pytest.raises(UserError, match="the mask must have 2816 bits, one a pixel of 11 frames"):
        forms.mask({"mask": mask}, tiny.phenaki().spec, 11)


def test_a_page_is_told_of_unknown_words_and_options_without_effect(client):
    form = dict(prompt="a red lion moves left", takes=1, steps=1, guidance=0.0, negative="a lion")
    last = client.done(client.post("/api/prompt", form))
    assert last["notes"] == [
        "the model was trained on no caption with 'lion': 'a red lion moves left'.",
        "the model was trained on no caption with 'lion': 'a lion'.",
        "negative has no effect: guidance is 0.",
    ]


def test_a_student_draws_in_one_pass(bundle, tmp_path):
    model = tiny.phenaki()
    network = of_teacher(model.network, 3, 8)
    example = inputs.example(
        model.spec.tokens(), (model.settings.text_length, model.config.text.width)
    )
    params = from_teacher(network, model.params["maskgit"], jax.random.key(0), *example)
    facts = dict(kind="student", generator=model.generator, sizes=dict(latent=3, hidden=8))
    folder = tmp_path / "student"
    checkpoint.save_bundle(folder, {"student": params}, model.config.to_dict(), **facts)
    engine = Engine(bundle, student=folder, critic=None)
    with running(engine, tmp_path / "studio") as (rooms, port):
        engine.ready.wait()
        page = visitor(port)
        assert (engine.info()["student"], engine.info()["critic"]) == (True, False)
        done = page.done(page.post("/api/prompt", dict(prompt=PROMPT, takes=1, student=True)))
        assert done["state"] == "done", done
        (take,) = page.get("/api/takes")
        frames = np.load(rooms.takes.find(owner(page), take["id"]) / "frames.npy")
    alone = model.generate([PROMPT], seed=0, student=model.load_student(folder))[0]
    np.testing.assert_array_equal(frames, media.as_uint8(alone))
    assert take["facts"]["command"].endswith(f"--seed=0 --student={folder}")


def test_what_the_model_refuses_fails_the_job(client):
    for name in ("critic", "student"):
        job = client.done(client.post("/api/prompt", {"prompt": PROMPT, name: True}))
        assert (job["state"], job["error"]) == (
            "failed", f"{name}: the studio was started without --{name}.",
        )  # fmt: skip
    job = client.done(client.post("/api/prompt", dict(prompt=PROMPT, temperature=-1)))
    assert "temperature=-1.0 must be at least 0." in job["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/page/app.py", "/page/..%2fapp.py", "/page/%2e%2e/guard.py", "/../pyproject.toml",
        "/takes/..%2f..%2f/film.mp4", "/takes/%2e%2e/take.json", "/api/jobs/..", "/.phenaki.json",
    ],
)  # fmt: skip
def test_no_other_file_is_served(client, path):
    status, _, content = client.ask("GET", path)
    assert status == 404
    assert b"import" not in content


def test_a_take_serves_its_films_only(client):
    (take,) = client.done(client.post("/api/prompt", dict(prompt=PROMPT)))["takes"]
    for name, status in (("film.mp4", 200), ("take.json", 200), ("frames.npy", 404)):
        assert client.ask("GET", f"/takes/{take['id']}/{name}")[0] == status
    assert client.ask("GET", f"/takes/{take['id']}/original.mp4")[0] == 404


def test_other_sites_are_refused(client):
    port = client.port
    assert client.ask("GET", "/", host=f"evil.example:{port}")[0] == 421
    assert client.ask("GET", "/", host=f"localhost:{port}")[0] == 200
    body = json.dumps(dict(prompt=PROMPT))
    for headers in (dict(X_Studio=None), dict(origin="http://evil.example")):
        assert client.ask("POST", "/api/prompt", body, **headers)[0] == 403
    own = client.ask("POST", "/api/prompt", body, origin=f"http://127.0.0.1:{port}")
    assert own[0] == 200
    client.done(json.loads(own[2]))


def test_every_answer_forbids_what_the_page_does_not_need(client):
    for path in ("/", "/api/info", "/page/none", "/page/main.js"):
        headers = client.ask("GET", path)[1]
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    first = Client(client.port)
    cookie = first.ask("GET", "/")[1]["set-cookie"]
    assert "HttpOnly; SameSite=Strict" in cookie


def test_a_password_is_asked_for(bundle, tmp_path):
    with running(Engine(bundle), tmp_path, host="0.0.0.0", password="long enough") as (_, port):
        client = Client(port)
        status, headers, _ = client.ask("GET", "/")
        assert (status, headers["www-authenticate"][:5]) == (401, "Basic")
        for text, status in (("studio:wrong", 401), ("studio:long enough", 200)):
            code = base64.b64encode(text.encode()).decode()
            assert client.ask("GET", "/", authorization=f"Basic {code}")[0] == status
        assert client.ask("GET", "/", authorization="Basic ***")[0] == 401


def test_other_hosts_need_a_password():
    with pytest.raises(UserError, match=r"--host=0\.0\.0\.0: other machines reach .*, or leave"):
        guard.check_host("0.0.0.0", None)
    with pytest.raises(UserError, match="at least 8 characters"):
        guard.check_host("0.0.0.0", "short")
    for host in ("127.0.0.1", "localhost", "::1"):
        guard.check_host(host, None)
    guard.check_host("0.0.0.0", "long enough")


def test_the_command_refuses_other_hosts_first(run_script, tmp_path):
    run = run_script(
        "phenaki/commands/main.py", "studio", "--model=laptop", f"--output={tmp_path}/out",
        "--host=0.0.0.0", quick=True,
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr.startswith("error: --host=0.0.0.0: other machines reach the studio there;")
    assert not (tmp_path / "out").exists()


def test_the_password_may_lie_in_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("STUDIO_PASSWORD", "short")
    with pytest.raises(UserError, match="the password must have at least 8 characters"):
        script_calls.call(
            "phenaki/commands/studio.py", "--model=laptop", f"--output={tmp_path}", "--host=::"
        )


# --- takes on disk

FRAMES = np.zeros((3, 16, 16, 3), np.uint8)


def add(store, who="a", number=0):
    return store.add(who, FRAMES, 8.0, {"prompt": "x", "number": number})["id"]


def test_old_takes_make_room_and_kept_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(takes, "EACH", 3)
    store = takes.Takes(tmp_path, 10**9)
    kept = add(store)
    store.keep("a", kept, True)
    names = [add(store, number=number) for number in range(5)]
    other = add(store, "b")
    assert {take["id"] for take in store.of("a")} == {kept, *names[-3:]}
    assert [take["id"] for take in store.of("b")] == [other]


def test_a_full_folder_loses_takes_and_then_refuses(tmp_path):
    store = takes.Takes(tmp_path, 10**9)
    names = [add(store, who) for who in "abc"]
    store.limit = takes.size_of(tmp_path)
    last = add(store, "d")
    assert [len(store.of(who)) for who in "abcd"] == [0, 1, 1, 1]
    for who, name in zip("bcd", [*names[1:], last], strict=True):
        store.keep(who, name, True)
    store.limit = takes.size_of(tmp_path)
    with pytest.raises(UserError, match=r"the studio's folder has .* MB .*--disk_mb"):
        add(store, "e")
    assert [len(store.of(who)) for who in "bcde"] == [1, 1, 1, 0]


def test_a_damaged_take_hides_no_other(tmp_path):
    store = takes.Takes(tmp_path, 10**9)
    names = [add(store, number=number) for number in range(2)]
    (store.find("a", names[0]) / "take.json").write_text('{"made": 1')
    assert [take["id"] for take in store.of("a")] == [names[1]]
    with pytest.raises(UserError, match="take.json: is cut short"):
        store.keep("a", names[0], True)
