"""What has one home: boto3's S3 client, the composition root, the environment."""

import ast
from pathlib import Path

import pytest

from support.source_modules import Module, called, calls_of, modules, parsed, within

S3_ROOM = "export_worker.s3"
BOTOCORE_ELSEWHERE = (
    "export_worker.sinks.aws",
    "export_worker.wiring.aws",
    "export_worker.references.aws_secrets",
    "export_producers.triggers.sqs",
)
"""Other services of AWS, and the process's own credentials, which are masked."""


def s3_clients(known: dict[str, Module]) -> list[str]:
    """Every module outside of the S3 room that builds an S3 client, or needs boto3 for something else than AWS."""
    found = []
    for module in known.values():
        if within(module.name, S3_ROOM):
            continue
        packages = {imported.partition(".")[0] for imported in module.imports}
        if packages & {"boto3", "botocore"} and not within(module.name, *BOTOCORE_ELSEWHERE):
            found.append(f"{module.name} imports boto3 or botocore")
        found += [f"{module.name}:{call.lineno} builds an S3 client" for call in calls_of(module) if is_s3_client(call)]
    return found


def is_s3_client(call: ast.Call) -> bool:
    named = [*call.args, *(keyword.value for keyword in call.keywords)]
    makes = isinstance(call.func, ast.Attribute) and call.func.attr in {"client", "resource", "create_client"}
    return makes and any(isinstance(value, ast.Constant) and value.value == "s3" for value in named)


def test_boto3_s3_client_stays_in_the_s3_room() -> None:
    assert s3_clients(modules()) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("export_worker.doctor.s3", "from botocore.exceptions import ClientError"),
        ("export_worker.sinks.aws", "import boto3\nboto3.session.Session().client('s3')"),
        ("export_worker.transfer.engine", "session.create_client(service_name='s3')"),
    ],
)
def test_an_s3_client_elsewhere_is_seen(name: str, source: str) -> None:
    assert len(s3_clients({name: parsed(name, Path("x.py"), source)})) == 1


ADAPTERS = frozenset(
    {
        "BandwidthLimit",
        "ExportQueue",
        "ExportWriter",
        "Health",
        "Outbox",
        "QueueStats",
        "Redactor",
        "S3Store",
        "Store",
        "SyncExportQueue",
        "TransferEngine",
        "UploadSweeper",
        "build_client",
        "build_driver",
        "build_sink",
        "build_sinks",
        "build_trigger",
        "open_redis",
    }
)
"""What is built from the configuration: clients, stores, drivers, sinks, triggers."""


def second_roots(known: dict[str, Module]) -> list[str]:
    """Every call outside of `wiring` that builds an adapter in a module that knows the configuration."""
    found = []
    for module in known.values():
        knows = any(within(imported, "export_worker.config") for imported in module.imports)
        if knows and not within(module.name, "export_worker.wiring"):
            found += [
                f"{module.name}:{call.lineno} builds {called(call)}"
                for call in calls_of(module)
                if called(call) in ADAPTERS
            ]
    return found


def test_adapters_are_built_from_the_configuration_in_wiring_alone() -> None:
    assert second_roots(modules()) == []


def test_a_second_composition_root_is_seen() -> None:
    source = "from export_worker.config import load_config\nredis = open_redis(load_config().redis_url)"
    name = "export_worker.commands.other"
    assert len(second_roots({name: parsed(name, Path("x.py"), source)})) == 1


READ_THE_ENVIRONMENT = (
    "export_worker.config",
    "export_worker.references",
    "export_worker.wiring",
    "export_worker.commands",
    "export_worker.demo",
    "export_worker.simulator",
    "export_producers.commands",
)


def test_the_core_never_reads_the_environment() -> None:
    readers = [
        module.name
        for module in modules().values()
        if any(isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} for node in ast.walk(module.tree))
        or {"os.environ", "os.getenv"} & set(module.imports)
    ]
    assert [name for name in readers if not within(name, *READ_THE_ENVIRONMENT)] == []
    assert len(readers) >= 2, "the look-up does not find what is there"
