"""TFDS sets as TFDS publishes them, and the camera of BAIR: read, stored and printed."""

import json
import types

import feature_stand_ins
import layouts
import numpy as np
import pytest
from absl.testing import flagsaver

from configs import tables
from phenaki.data import tensorflow
from phenaki.data.prepare import manifest, run
from phenaki.data.prepare.layouts import find, tfds_sets
from phenaki.errors import UserError
from phenaki.evaluation import devices, protocol, references
from phenaki.evaluation.score import Score
from phenaki.io.quiet import no_logs
from phenaki.types import VideoSpec

CONFIGS = {"laion400m": "images"}  # the one of several that has pixels


@pytest.mark.parametrize("name", sorted(tfds_sets.KNOWN))
def test_known_sets_have_the_fields_of_their_published_classes(name, tmp_path):
    with no_logs():
        builder = tensorflow.datasets().builder(
            name, config=CONFIGS.get(name), data_dir=str(tmp_path)
        )
        features = builder.info.features
    known = tfds_sets.KNOWN[name]
    for path in (known.media, known.caption, known.nsfw, *known.cameras):
        assert path is None or tfds_sets._feature(features, path) is not None


def test_the_images_of_an_episodes_steps_are_a_clip(tmp_path):
    """As in robotics data sets in RLDS's form."""
    features = tensorflow.datasets().features
    step = {"observation": {"image": features.Image(shape=(48, 64, 3))}, "reward": np.float32}
    form = features.FeaturesDict({"steps": features.Dataset(step)})
    steps = [{"observation": {"image": layouts.numbered(n)}, "reward": 0.0} for n in range(5)]
    source = layouts.write_tfds(tmp_path, "robots", form, [{"steps": steps}])
    (clip,) = find.find(source, fields={"media": "steps/observation/image"})
    assert clip.kind == "video"
    np.testing.assert_array_equal(clip.media.images, [layouts.numbered(n) for n in range(5)])
    with pytest.raises(UserError, match="=steps/observation/camera: robots has only image there"):
        find.find(source, fields={"media": "steps/observation/camera"})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Camera -> the data set prepared from it; None is the default."""
    root = tmp_path_factory.mktemp("bair")
    source = layouts.make("tfds bair_robot_pushing_small", root / "in")
    made = {}
    for camera in (None, "image_main"):
        fields = {"media": camera} if camera else {}
        made[camera] = root / f"{camera}"
        run.prepare(
            run.PrepareOptions(source, made[camera], height=48, width=64, fps=8.0, fields=fields)
        )
    return made


def test_the_camera_is_in_the_manifest(prepared, tmp_path):
    assert manifest.camera(str(prepared[None])) == "image_aux1"
    assert manifest.camera(str(prepared["image_main"])) == "image_main"
    settings = json.loads((prepared[None] / "manifest.json").read_text())["config"]
    assert settings["camera"] == "image_aux1"
    assert "the other camera: --fields=media=image_main" in settings["layout"]
    # Sets of earlier versions name it in the layout only.
    old = "TFDS bair_robot_pushing_small/2.0.0: media=image_main, each image one frame of the clips"
    (tmp_path / "manifest.json").write_text(json.dumps({"config": {"layout": old}, "files": {}}))
    assert manifest.camera(str(tmp_path)) == "image_main"
    (tmp_path / "manifest.json").write_text(json.dumps({"config": {"layout": "WebVid"}}))
    assert manifest.camera(str(tmp_path)) is None and manifest.checksums(str(tmp_path)) == {}


@pytest.fixture(scope="module")
def evaluate():
    yield from feature_stand_ins.script()


@pytest.mark.parametrize("camera", [None, "image_main", "unknown"])
def test_the_camera_is_printed_with_the_score(
    camera, prepared, evaluate, tmp_path, monkeypatch, capsys
):
    spec = VideoSpec(17, 48, 64, 10.0, (2, 16, 16))
    one = Score("fvd", 97.5, 25600, 256, 16, (48, 64), 10.0, 0, "i3d", "0", "none", "[-1, 1]")
    monkeypatch.setattr(devices, "load", lambda path: types.SimpleNamespace(spec=spec))
    monkeypatch.setattr(
        references, "Prepared", lambda *a: types.SimpleNamespace(total=256, caption_template="{}")
    )
    monkeypatch.setattr(protocol, "evaluate", lambda *arguments: [one])
    data, output = str(prepared.get(camera, tmp_path / "set")), tmp_path / "out"
    flags = dict(table="5", row="phenaki", model="runs/bair", data=data, output=str(output))
    with flagsaver.flagsaver(**flags):
        evaluate.main([])
    printed = capsys.readouterr().out
    shown = camera or "image_aux1"
    assert f"camera: {shown}; that of the published numbers: image_aux1" in printed
    assert (f"not comparable: camera {shown} instead of image_aux1" in printed) is (
        camera is not None
    )
    kept = json.loads((output / "table5-phenaki.json").read_text())
    assert kept["camera"] == (None if camera == "unknown" else shown)


def test_rows_of_other_data_have_no_camera():
    rows = [row for table in tables.TABLES.values() for row in table["rows"].values()]
    assert [row["camera"] for row in rows if "camera" in row] == ["image_aux1"] * 2
