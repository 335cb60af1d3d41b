"""Names, headers and transforms of the files that an export stores."""

import gzip
import random
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from export_worker.contract.output import Output
from export_worker.contract.request import ExportRequest
from export_worker.errors import TransformError
from export_worker.transfer.output_files import OutputFile, column_rules, plan_output
from export_worker.transfer.transforms.column_rules import NO_POLICY, ColumnActions, ColumnPolicy, ColumnRules
from export_worker.transfer.transforms.keyed_hash import KeyedHash

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


def with_columns(choices: dict[str, str], policy: ColumnPolicy = NO_POLICY, **output: Any) -> ColumnRules | None:
    export = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
    output |= {"columns": choices} if choices else {}
    return column_rules(ExportRequest.model_validate({"connection": "gio", "export": export, "output": output}), policy)


def stored_bytes(data: bytes, choices: dict[str, str], label: str | None, **output: Any) -> bytes:
    """What a file becomes that arrives byte by byte."""
    file = OutputFile("a", "a.csv", Output.model_validate(output), label, with_columns(choices))
    transform = file.transform(None, None, file.actions())
    assert transform is not None
    pieces = [data[index : index + 1] for index in range(len(data))]
    return b"".join([*map(transform.feed, pieces), transform.finish()])


@pytest.mark.parametrize("label", [None, "UTF-8", "UTF-8-SIG", "UTF-16", "UTF-16LE", "GBK", "gb18030", "Shift_JIS"])
@pytest.mark.parametrize("target", [None, "UTF-8", "UTF-16LE"])
async def test_columns_are_changed_in_every_charset(label: str | None, target: str | None) -> None:
    source, written = 'id,用語,e\r\n1,"長三",ア\r\n', "用語,e\r\n**,ア\r\n"
    encoding = {None: "utf-8", "GBK": "gb18030"}.get(label, label or "")
    stored = stored_bytes(source.encode(encoding), {"id": "drop", "用語": "mask"}, label, charset=target)
    assert stored == written.encode(target or encoding)


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16-le", "utf-16-be", "gb18030"])
async def test_file_with_a_byte_order_mark_keeps_it(mark: str) -> None:
    bom = b"" if mark == "utf-8-sig" else "\ufeff".encode(mark)
    stored = stored_bytes(bom + "a,b\n1,用\n".encode(mark), {"a": "drop"}, None)
    assert stored == bom + "b\n用\n".encode(mark)


async def test_changed_columns_are_compressed() -> None:
    assert gzip.decompress(stored_bytes(b"a,b\n1,2\n", {"a": "drop"}, None, compression="gzip")) == b"b\n2\n"


async def test_columns_are_changed_on_the_way_to_parquet() -> None:
    output = {"format": "parquet", "schema": {"n": "int64", "s": "string"}, "null_values": ["NULL"]}
    stored = stored_bytes(b"id,n,s,t\n1,2,NULL,NULL\n", {"id": "drop", "s": "mask", "t": "mask:1"}, None, **output)
    table = parquet.read_table(pa.BufferReader(stored), use_threads=False)
    assert table.to_pylist() == [{"n": 2, "s": None, "t": "***L"}]
    with pytest.raises(TransformError, match=r"names the column 'n', but its rule .* is drop; remove it from output"):
        stored_bytes(b"id,n,s\n1,2,3\n", {"n": "drop"}, None, **output)


def test_policy_cannot_be_weakened_and_the_most_exact_name_wins() -> None:
    policy = ColumnPolicy({"phone": "hash", "*mail*": "drop", "*name": "mask:2"}, hashing=KeyedHash(b"k" * 16))
    choices = {"*": "drop", "gio_id": "keep", "PHONE": "keep", "e_mail": "keep", "nick*": "keep", "*e": "mask:1"}
    rules = with_columns(choices, policy)
    assert rules is not None
    done = {name: rules.action(name) for name in ("gio_id", "Phone", "e_mail", "nickname", "surname", "age", "x")}
    expected = ["keep", "hash", "drop", "mask:2", "mask:1", "mask:1", "drop"]
    assert list(done.values()) == expected


def test_policy_applies_without_a_request_and_refuses_unknown_columns() -> None:
    rules = with_columns({}, ColumnPolicy({"a": "keep"}, refuse_unknown=True))
    assert rules is not None
    actions = ColumnActions(rules)
    assert actions.of("a", 1) == "keep"
    with pytest.raises(TransformError, match=r"^column 2 is named neither by"):
        actions.of("b", 2)
    assert with_columns({}) is None


def test_hash_without_a_key_is_refused_with_the_setting() -> None:
    with pytest.raises(TransformError, match=r"needs the setting connections\.gio\.column_policy\.key"):
        with_columns({"a": "hash"})


async def test_columns_of_file_that_is_no_table_are_refused() -> None:
    export = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
    request = ExportRequest.model_validate({"connection": "gio", "export": export})
    with pytest.raises(TransformError, match=r"'a\.zip' ends otherwise"):
        await plan_output(request, ["a.csv", "a.zip"], rules=with_columns({"a": "drop"}))
