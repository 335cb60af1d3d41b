"""Files that are changed at random, from a fixed seed: each is converted or refused, wherever its pieces end.

`FUZZ_SEED` and `FUZZ_ROUNDS` in the environment look for more.
"""

import os
from random import Random

import pytest

from export_worker.contract.output import Output
from export_worker.errors import TransformError
from export_worker.transfer.output_files import OutputFile
from support.mutations import changed_bytes

SEED = int(os.environ.get("FUZZ_SEED", "15"))
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "120"))
LABELS = (
    None, "UTF-8", "UTF-16", "UTF-16LE", "UTF-16BE", "UTF-32", "GBK", "GB18030", "Shift_JIS", "Big5", "EUC-KR",
    "EUC-JP", "latin1", "ISO-2022-JP", "HZ", "windows-1251",
)  # fmt: skip
TEXT = '\ufeffid,名\n1,"中,\n文"\r\n2,é€\n3,""\n' * 3
OUTPUTS = {
    "text": Output(charset="UTF-8", count_rows=True),
    "GB2312": Output(charset="GB2312", compression="gzip"),
    "Parquet": Output.model_validate({"format": "parquet", "schema": {"id": "int64"}, "count_rows": True}),
}


def outcome(file: OutputFile, data: bytes, sizes: list[int]) -> bytes | str:
    """Returns what a file becomes if it arrives in pieces of these sizes, or that it is refused."""
    transform, position, result = file.transform(file.rows()), 0, b""
    assert transform is not None
    try:
        for size in sizes:
            result += transform.feed(data[position : position + size])
            position += size
        return result + transform.feed(data[position:]) + transform.finish()
    except TransformError as error:
        return type(error).__name__


@pytest.mark.parametrize("form", OUTPUTS)
def test_changed_file_is_converted_or_refused_wherever_its_pieces_end(form: str) -> None:
    # `plan_output` imports the module for Parquet before a worker uses it.
    random = Random(f"{SEED} {form}")
    for _ in range(ROUNDS):
        charset, label = random.choice(LABELS), random.choice(LABELS)
        plain = TEXT.encode(charset or "utf-8", "ignore") * random.choice((1, 1, 80))
        data = random.choice((plain, changed_bytes(random, plain)))
        file = OutputFile("users.csv", "users.csv", OUTPUTS[form], label)
        whole = outcome(file, data, [])
        sizes = [random.choice((1, 2, 7, 4095, 5000)) for _ in range(60)]
        assert outcome(file, data, sizes) == whole, (charset, label, data)
