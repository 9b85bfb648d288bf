"""Shards that lost whole records look whole: the set's own counts tell; torn log lines heal."""

import json

import numpy as np
import pytest

from phenaki.data import records, tensorflow
from phenaki.errors import UserError
from phenaki.train import logs


def write(path, count):
    with tensorflow.tensorflow().io.TFRecordWriter(str(path)) as writer:
        for number in range(count):
            writer.write(b"record %d" % number)


@pytest.mark.parametrize("kept", [0, 1, 4, 6])
def test_a_shard_of_another_number_of_records_is_named(tmp_path, kept):
    write(tmp_path / "whole", 3)
    write(tmp_path / "short", kept)
    given = [tmp_path / "whole", tmp_path / "short"]
    assert len(records.Records(given)) == 3 + kept
    assert len(records.Records(given, [3, kept])) == 3 + kept
    with pytest.raises(UserError, match=rf"short: has {kept} of its 5 records; copy it again"):
        records.Records(given, [3, 5])


def test_a_shard_that_is_missing_is_named(tmp_path):
    for lengths in (False, True):
        if lengths:
            np.save(tmp_path / f"gone{records.LENGTHS}", np.array([3], np.uint32))
        with pytest.raises(UserError, match=r"gone: is missing; copy the data set again\.$"):
            records.Records([tmp_path / "gone"])


def test_a_damaged_file_of_lengths_is_no_reason_to_stop(tmp_path):
    path = tmp_path / "shard"
    write(path, 4)
    for content in (b"", b"\x93NUMPY\x01\x00", b"no array"):
        (tmp_path / f"shard{records.LENGTHS}").write_bytes(content)
        assert records.Records([path])[3] == b"record 3"


def test_torn_lines_of_a_log_are_gone_after_a_resume(tmp_path):
    path = tmp_path / logs.FILE
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2, 3)]
    torn = (b'{"step": 3, "lo', b"\xff\xfe", b"3", b"[]", b'{"loss": 2.0}', b'{"step": "3"}')
    for part in torn:
        path.write_bytes("\n".join(lines[:2]).encode() + b"\n" + part)
        assert [line["step"] for line in logs.read(tmp_path)] == [1, 2]
        log = logs.Logs(tmp_path, step=2)
        log.scalars(3, {"loss": float(np.float32(0.5))})
        log.close()
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
