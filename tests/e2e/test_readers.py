"""A day of exports is read from S3 by the tools that people use: by the examples of the page, and as whole folders."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyarrow.fs import FileSelector, S3FileSystem

from support import secret_canaries
from support.reader_day import FILES, ODD_FORM, ROWS, Day, Row, store_day

EVERY_FORM = ["csv", "gzip", "zstd", "parquet"]


@pytest.fixture(scope="module")
def day(redis_url: str, s3_url: str, outputs: Path) -> Iterator[Day]:
    """The exports of a day, and the variables with which the tools find the S3 server."""
    stored = asyncio.run(store_day(redis_url, s3_url, outputs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_url)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        yield stored


def sorted_rows(table: Any) -> list[Row]:
    """Returns the rows of a table of pandas, Polars or pyarrow."""
    if isinstance(table, pd.DataFrame):
        return sorted(tuple(row) for row in table.itertuples(index=False))
    frame = pl.from_arrow(table) if isinstance(table, pa.Table) else table
    assert isinstance(frame, pl.DataFrame)
    return sorted(frame.rows())


def run_example(day: Day, heading: str, form: str) -> Any:
    """Runs an example of the page, and returns its `users`. The second example of a tool reads Parquet."""
    names: dict[str, Any] = {}
    number = int(form == "parquet")
    exec(day.example("Find complete exports", "python", 0, form), names)  # the code is ours
    exec(day.example(heading, "python", number, form), names)
    return names["users"]


@pytest.fixture(scope="module")
def store(day: Day) -> S3FileSystem:
    return S3FileSystem(region="us-east-1", endpoint_override=day.s3_url.removeprefix("http://"), scheme="http")


@pytest.fixture
def duck(day: Day) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the extension `httpfs`, which a package of PyPI has."""
    package = pytest.importorskip("duckdb_extension_httpfs")
    (extension,) = Path(package.__path__[0]).rglob("httpfs.duckdb_extension")
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        aws = secret_canaries.AWS_ENVIRONMENT
        connection.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{aws['AWS_ACCESS_KEY_ID']}', SECRET '{aws['AWS_SECRET_ACCESS_KEY']}',"
            f" REGION 'us-east-1', ENDPOINT '{day.s3_url.removeprefix('http://')}', URL_STYLE 'path', USE_SSL false)"
        )
        yield connection


@pytest.mark.parametrize("form", EVERY_FORM)
def test_example_of_duckdb_reads_complete_exports(day: Day, duck: duckdb.DuckDBPyConnection, form: str) -> None:
    code = day.example("DuckDB", "sql", 0, form)
    if form == "parquet":
        find = code.split("SELECT * FROM")[0].replace("*.csv*", "*.parquet")
        code = find + day.example("DuckDB", "sql", 1, form)
    users = duck.execute(code).to_arrow_table()
    assert users.column_names == [*day.header, "dt", "form"]
    assert sorted_rows(users.select(day.header)) == day.rows
    assert {str(date) for date in users["dt"].to_pylist()} == {day.date}


@pytest.mark.parametrize("form", EVERY_FORM)
@pytest.mark.parametrize("heading", ["pandas", "Polars", "pyarrow"])
def test_example_of_python_tool_reads_complete_exports(day: Day, heading: str, form: str) -> None:
    if (heading, form) == ("pyarrow", "zstd"):
        pytest.skip("a dataset of pyarrow does not undo zstd; the page says so")
    users = run_example(day, heading, form)
    names = users.column_names if isinstance(users, pa.Table) else list(users.columns)
    assert names == list(day.header)
    assert sorted_rows(users) == day.rows


def test_duckdb_and_polars_read_metadata_of_partitions(day: Day, duck: duckdb.DuckDBPyConnection) -> None:
    files = f"s3://{day.base}/form=*/dt=*/*/*.parquet"
    found = duck.execute(f"SELECT DISTINCT form FROM read_parquet('{files}', hive_partitioning = true)").fetchall()
    assert {form for (form,) in found} == {"parquet", ODD_FORM}
    frame = pl.scan_parquet(files, hive_partitioning=True).collect()
    assert set(frame["form"]) == {"parquet", ODD_FORM}


def test_pyarrow_reads_metadata_of_partitions_and_passes_over_the_manifest(day: Day, store: S3FileSystem) -> None:
    folders = [info.path for info in store.get_file_info(FileSelector(day.base))]
    (odd,) = {folder for folder in folders if "%" in folder}
    partitions: dict[str, Any] = {"partitioning": "hive", "partition_base_dir": day.base}
    users = ds.dataset(odd, filesystem=store, format="parquet", **partitions).to_table()
    assert set(users["form"].to_pylist()) == {ODD_FORM}
    assert users.num_rows == FILES * ROWS


@pytest.mark.parametrize("form", ["csv", "gzip"])
def test_pyarrow_reads_a_day_of_csv_as_a_folder(day: Day, store: S3FileSystem, form: str) -> None:
    schema = pa.schema([(name, pa.string()) for name in day.header])
    users = ds.dataset(day.folder(form), filesystem=store, format="csv", schema=schema).to_table()
    assert set(sorted_rows(users)) == set(day.rows)


def test_pandas_and_polars_read_a_day_of_parquet_as_a_folder(day: Day) -> None:
    folder = f"s3://{day.folder('parquet')}/"
    assert set(sorted_rows(pd.read_parquet(folder))) == set(day.rows)
    assert set(sorted_rows(pl.scan_parquet(folder, hidden_file_prefix="_").collect())) == set(day.rows)


@pytest.fixture(scope="module")
def local_day(day: Day, store: S3FileSystem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all objects on the disk. Spark needs a library that PyPI does not have to read from S3."""
    root = tmp_path_factory.mktemp("day")
    for info in store.get_file_info(FileSelector(day.base, recursive=True)):
        if info.is_file:
            path = root / info.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with store.open_input_stream(info.path, compression=None) as stream:
                path.write_bytes(stream.read())
    return root


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A session of Spark on one thread. Spark is not among the packages of the tests, because it has 400 MB."""
    sql = pytest.importorskip("pyspark.sql")
    builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.shuffle.partitions", "1").getOrCreate()
    yield session
    session.stop()


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize("form", EVERY_FORM)
def test_example_of_spark_reads_complete_exports(day: Day, local_day: Path, form: str) -> None:
    names: dict[str, Any] = {}
    exec(day.example("Find complete exports", "python", 0, form), names)
    names["folders"] = [folder.replace("s3://", f"{local_day}/") for folder in names["folders"]]
    exec(day.example("Spark", "python", int(form == "parquet"), form), names)
    users = names["users"]
    assert users.columns == list(day.header)
    assert sorted(tuple(row) for row in users.collect()) == day.rows


def test_spark_reads_the_folder_of_a_kind_without_manifests(day: Day, local_day: Path, spark: Any) -> None:
    users = spark.read.csv(f"{local_day}/{day.base}/form=csv", header=True, escape='"', multiLine=True)
    assert users.columns == [*day.header, "dt"]
    assert {tuple(row)[:-1] for row in users.collect()} == set(day.rows)
