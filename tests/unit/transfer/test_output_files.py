"""Names, headers and transforms of the files that an export stores."""

import gzip
import random
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from export_worker.contract.request import ExportRequest
from export_worker.errors import TransformError
from export_worker.transfer.output_files import OutputFile, plan_output

TYPES = {"id": "int64"}


async def planned(names: list[str], charset: str | None = None, **output: Any) -> list[OutputFile]:
    export = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3", "charset": charset}
    request = ExportRequest.model_validate({"connection": "gio", "export": export, "output": output})
    return await plan_output(request, names)


def head(file: OutputFile) -> tuple[str, str]:
    return file.name, file.content_type


@pytest.mark.parametrize(
    ("compression", "suffix", "kind"), [("gzip", ".gz", "application/gzip"), ("zstd", ".zst", "application/zstd")]
)
async def test_compressed_file_has_the_suffix_and_the_type_of_its_compression(
    compression: str, suffix: str, kind: str
) -> None:
    assert [head(file) for file in await planned(["a.csv", "b", "a.csv"], compression=compression)] == [
        (f"a.csv{suffix}", kind),
        (f"b{suffix}", kind),
        (f"a-2.csv{suffix}", kind),
    ]


async def test_file_without_compression_keeps_its_name_and_has_the_type_of_it() -> None:
    assert [head(file) for file in await planned(["a.csv", "b", "c.csv.gz", "d.JSON"])] == [
        ("a.csv", "text/csv"),
        ("b", "application/octet-stream"),
        ("c.csv.gz", "application/gzip"),
        ("d.JSON", "application/json"),
    ]


async def test_long_compressed_name_stays_within_limit() -> None:
    (file,) = await planned(["用" * 100 + ".csv"], compression="gzip")
    assert file.name.endswith("用.csv.gz")
    assert len(file.name.encode()) <= 200


async def test_unchanged_bytes_need_no_transform() -> None:
    (file,) = await planned(["a.csv"])
    assert file.rows() is None
    assert file.transform(None) is None


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_parquet_file_has_new_extension_and_type(compression: str) -> None:
    files = await planned(["用户.csv", "x/A.CSV", "a.csv", "a.CSV"], format="parquet", compression=compression)
    assert [file.name for file in files] == ["用户.parquet", "xA.parquet", "a.parquet", "a-2.parquet"]
    assert {file.content_type for file in files} == {"application/vnd.apache.parquet"}


async def test_long_parquet_name_stays_within_limit() -> None:
    (file,) = await planned(["用" * 100 + ".csv"], format="parquet")
    assert file.name.endswith("用.parquet")
    assert len(file.name.encode()) <= 200


async def test_rows_of_source_are_counted_before_parquet() -> None:
    (file,) = await planned(["a.csv"], "UTF-16LE", format="parquet", schema=TYPES, count_rows=True)
    rows = file.rows()
    assert rows is not None
    transform = file.transform(rows)
    assert transform is not None
    stored = transform.feed('\ufeffid,note\n7,"a\nb"\n'.encode("UTF-16LE")) + transform.finish()
    table = parquet.read_table(pa.BufferReader(stored), use_threads=False)
    assert table.to_pylist() == [{"id": 7, "note": "a\nb"}]
    assert rows.count == 2


async def test_parquet_of_compressed_bytes_is_refused() -> None:
    (file,) = await planned(["a.csv"], "latin1", format="parquet")
    transform = file.transform(None)
    assert transform is not None
    with pytest.raises(TransformError, match=r"the file is compressed \(gzip\)"):
        transform.feed(gzip.compress(random.Random(0).randbytes(8192)))


@pytest.mark.parametrize("name", ["a.json", "a.tsv", "a.csv.gz", "a", ".csv", "csv"])
async def test_parquet_of_file_that_is_no_csv_is_refused(name: str) -> None:
    with pytest.raises(
        TransformError, match=f"parquet needs CSV files, but the name '{name}' does not end with .csv"
    ) as caught:
        await planned(["first.csv", name], format="parquet")
    assert not caught.value.retryable


async def test_parquet_without_extra_fails_without_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parquet", "csv_tables"):
        monkeypatch.delitem(sys.modules, f"export_worker.transfer.transforms.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TransformError, match=r"needs pyarrow, .* pip install '\.\[parquet\]'") as caught:
        await planned(["a.csv"], format="parquet")
    assert not caught.value.retryable
    assert [file.name for file in await planned(["a.csv"])] == ["a.csv"]


def test_worker_without_extra_starts() -> None:
    script = "import sys; sys.modules['pyarrow'] = None; import export_worker.wiring.worker"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
