"""configs/tables.py: the paper's numbers and samplers, literally, and what its rows count."""

import pytest

from configs import tables
from phenaki.evaluation.score import Score, compare, repeated, value_cell
from phenaki.evaluation.task import task_of
from phenaki.models import factory
from phenaki.schema.check import check_whole
from phenaki.train.maskgit import with_tokenizer

# Table -> row -> what the paper prints.
PRINTED = {
    1: {"phenaki": dict(fid=37.74, fid_video=3.84)},
    2: {
        "video_100": dict(fid=19.2, fvd=168.9, clip_score=0.298),
        "video_80": dict(fid=21.4, fvd=198.4, clip_score=0.303),
        "video_50": dict(fid=21.4, fvd=239.7, clip_score=0.302),
        "image_100": dict(fid=53.9, clip_score=0.240),
        "image_80": dict(fid=29.4, clip_score=0.289),
        "image_50": dict(fid=30.5, clip_score=0.287),
    },
    3: {
        "conv": dict(tokens=2560, fid=7.5, fvd=306.1),
        "conv_video": dict(tokens=2560, fid=13.7, fvd=346.5),
        "vit": dict(tokens=2560, fid=3.4, fvd=166.6),
        "vit_video": dict(tokens=2560, fid=3.8, fvd=173.1),
        "laion3d": dict(tokens=1536),  # not of the paper
        "cvivit": dict(tokens=1536, fid=4.5, fvd=65.78),
    },
    4: {"phenaki": dict(fvd=36.4)},
    5: {"phenaki": dict(fvd=97.0), "debiased": dict(fvd=97.0)},
}
OTHERS = {
    1: {
        "T2V": dict(fid=82.13, fid_video=14.65),
        "SC": dict(fid=33.51, fid_video=7.34),
        "TFGAN": dict(fid=31.76, fid_video=7.19),
        "NUWA": dict(fid=28.46, fid_video=7.05),
    },
    2: {},
    3: {},
    4: dict(VidTr=170.0, CogVideo=109.2, DVD_GAN_FP=69.1, VideoVQVAE=64.3, CCVS=55.0, TrIVD=25.7,
            Transframer=25.4, RaMViD=16.5, VDM=16.2),
    5: dict(DVD_GAN=109.8, VideoGPT=103.3, TrIVD=103.3, Transframer=100.0, HARP=99.3, CCVS=99.0,
            VidTr=94.0, FitVid=93.6, MCVD=89.5, NUWA=86.9, RaMViD=84.2),
}  # fmt: skip
NUWA = dict(guidance=0.1, steps=12, choice_temperature=4.0)
ABLATION = dict(guidance=6.0, steps=24, choice_temperature=4.0)
SAMPLERS = {1: NUWA, 2: ABLATION, 4: {}, 5: {}}
CONFIGS = {
    "video_100": "configs/maskgit.py:t2v,mix=100/0",
    "video_80": "configs/maskgit.py:t2v,mix=80/20",
    "video_50": "configs/maskgit.py:t2v,mix=50/50",
    "image_100": "configs/maskgit.py:t2v,mix=100/0",
    "image_80": "configs/maskgit.py:t2v,mix=80/20",
    "image_50": "configs/maskgit.py:t2v,mix=50/50",
}


@pytest.mark.parametrize("number", tables.TABLES)
def test_every_printed_number_is_the_papers(number):
    table = tables.TABLES[number]
    assert {name: row["printed"] for name, row in table["rows"].items()} == PRINTED[number]
    others = {
        name: value if isinstance(value, dict) else dict(fvd=value)
        for name, value in OTHERS[number].items()
    }
    assert table["others"] == others
    deviations = {name: row.get("deviations") for name, row in table["rows"].items()}
    assert set(deviations.values() if number != 4 else ()) <= {None}
    assert number != 4 or deviations == {"phenaki": dict(fvd=0.19)}


@pytest.mark.parametrize("number", SAMPLERS)
def test_every_sampler_is_the_papers_and_a_table_without_one_has_the_configs(number):
    for row in tables.TABLES[number]["rows"].values():
        assert row["sampler"] == SAMPLERS[number]


def test_frames_clips_and_data_of_the_rows():
    rows = {number: table["rows"] for number, table in tables.TABLES.items()}
    assert {name: row["config"] for name, row in rows[2].items()} == CONFIGS
    assert {row["clips"] for name, row in rows[2].items() if "image" in name} == {40_000}
    assert rows[1]["phenaki"]["prompt"] == "a video of {}"
    assert tables.TEN == dict(first_ten=(0, 10), last_ten=(1, 11))
    told = {(row["frames"], row["given"], row["samples"]) for row in rows[4].values()}
    assert told == {(16, 5, 1)}
    given = {name: (row["frames"], row["given"]) for name, row in rows[5].items()}
    assert given == dict.fromkeys(rows[5], (16, 1))
    assert (rows[5]["phenaki"]["samples"], rows[5]["phenaki"]["clips"]) == (100, 256)
    assert {row["camera"] for row in rows[5].values()} == {"image_aux1"}


def test_what_the_paper_does_not_state_is_told_with_the_score():
    for words in ("samples", "sampler", "camera"):
        assert words in tables.TABLES[5]["rows"]["phenaki"]["differs"]["fvd"]
    assert "how many samples" in tables.TABLES[4]["rows"]["phenaki"]["differs"]["fvd"]
    for number, table in tables.TABLES.items():
        for row in table["rows"].values():
            missing = row["printed"].keys() - row["differs"].keys() - {"tokens"}
            assert not missing, (number, missing)


@pytest.mark.parametrize("name", tables.TABLES[3]["rows"])
def test_table_3_counts_the_tokens_of_ten_frames(name, preset):
    """2560 one by one, and not the 2816 of all eleven; C-ViViT needs eleven for ten."""
    row = tables.TABLES[3]["rows"][name]
    task = task_of(row, frames=row["frames"], per_shard=1)
    spec = factory.video_spec(preset(row["config"]))
    assert task.view_frames == 10
    assert spec.tokens(spec.covering_frames(10)) == row["printed"]["tokens"]


@pytest.mark.parametrize("number", tables.TABLES)
def test_every_rows_config_builds(number, preset):
    for row in tables.TABLES[number]["rows"].values():
        config = preset(row["config"])
        check_whole(config.kind, config.to_dict())
        if config.kind == "maskgit":
            stage_1 = preset("configs/cvivit.py:bair" if config.text is None else "cvivit.py:t2v")
            factory.maskgit(with_tokenizer(config, stage_1, ""))


@pytest.fixture(name="preset")
def _preset():
    import importlib

    def load(path):
        file, _, variant = path.removeprefix("configs/").partition(":")
        return importlib.import_module(f"configs.{file.removesuffix('.py')}").get_config(variant)

    return load


def score(value, **fields):
    known = dict(n=4, n_real=4, frames=11, size=(8, 8), fps=8.0, seed=0, interval=(1.0, 2.0))
    network = dict(extractor="i3d", checksum="", resize="none", value_range="[0, 1]")
    return Score(name="fvd/originals", value=value, **known, **network, **fields)


def test_repeated_samplings_give_mean_and_deviation_as_table_4_prints_them():
    runs = [[score(36.2)], [score(36.4)], [score(36.9)]]
    (found,) = repeated(runs)
    assert found.value == pytest.approx(36.5)
    assert found.deviation == pytest.approx(0.36055, rel=1e-4)
    assert value_cell(found) == "36.5 ± 0.36"
    assert repeated(runs[:1]) == runs[0]
    row = tables.TABLES[4]["rows"]["phenaki"]
    (cells,) = compare([found], row["printed"], row["differs"], row["deviations"])
    assert cells[1] == "36.5 ± 0.36" and cells[4] == "36.4 ± 0.19"
    assert cells[5].startswith("not comparable: ") and "± of 3 samplings" in cells[5]
