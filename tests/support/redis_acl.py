"""The rights in Redis that the operations guide documents."""

import re

from support.paths import ROOT

PASSWORD = "canary-redis-word-44d1"


def documented_acl(namespace: str = "exports") -> list[str]:
    """Returns the words of the ACL rule for a namespace, with `PASSWORD`."""
    (rule,) = re.findall(r"^ACL SETUSER export-worker (.*)$", _guide(), re.MULTILINE)
    named = re.sub(r"(?<=[~&:])exports(?=:)", lambda _: namespace, rule.replace(">PASSWORD", f">{PASSWORD}"))
    return str(named).split()


def documented_rights_of_trigger(stream: str) -> list[str]:
    """Returns the words that a trigger on a Redis stream needs in addition."""
    (rights,) = re.findall(r"^`~segment-events (.*)`$", _guide(), re.MULTILINE)
    return [f"~{stream}", *rights.split()]


def _guide() -> str:
    return (ROOT / "k8s" / "README.md").read_text(encoding="utf-8")
