"""Completion in a real bash, fish and zsh, of names that are known only from settings and from Redis."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from export_worker.commands.declarations import SHELLS
from support.terminal import Terminal
from support.worker_site import Site, wait_until

SEGMENT = '{"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "k"}}'


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The folder of the command under the name that the scripts of shells complete."""
    path = tmp_path / "export-worker"
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m export_worker "$@"\n')
    path.chmod(0o755)
    return tmp_path


def completed(program: Path, environment: dict[str, str], *words: str) -> list[str]:
    """Returns what bash offers for the last word."""
    shown = " ".join(shlex.quote(word) for word in ("export-worker", *words))
    script = (
        'eval "$(export-worker completion bash)"\n'
        f"COMP_WORDS=({shown})\nCOMP_CWORD={len(words)}\n"
        "_export_worker_completion export-worker\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    variables = environment | {"PATH": f"{program}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env=variables, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
async def test_bash_completes_connections_ids_and_commands(site: Site, program: Path) -> None:
    async with site.queue() as queue:
        ids = {(await queue.enqueue(SEGMENT)).export_id for _ in range(2)}
    here = site.environment()

    assert set(completed(program, here, "status", "")) == ids
    assert "gio" in completed(program, here, "catalog", "")
    assert completed(program, here, "call", "gio", "proj") == ["projects"]
    assert completed(program, here | {"EXPORT_TRIGGERS__NEW_ONES__TYPE": "sqs"}, "trigger", "") == ["new_ones"]
    nothing = here | {"EXPORT_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert completed(program, nothing, "watch", "") == []


@pytest.fixture
def environment(program: Path, tmp_path: Path) -> dict[str, str]:
    """The variables of a shell for which a connection is configured, and where no Redis answers."""
    file = tmp_path / "settings.toml"
    file.write_text('redis_url = "redis://127.0.0.1:1/0"\n[connections.gio]\nplatform = "growingio"\n')
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EXPORT_")}
    return inherited | {
        "PATH": f"{program}{os.pathsep}{os.environ['PATH']}",
        "EXPORT_CONFIG": str(file),
        "HOME": str(tmp_path),
    }


TYPED = [("catalog gi", "gio"), ("call gio proj", "projects"), ("list --phase fa", "failed"), ("schema op", "openapi")]
"""What is typed, and the word that TAB makes of the last one."""


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_what_is_typed(environment: dict[str, str]) -> None:
    asked = "\n".join(f"complete -C 'export-worker {line}'" for line, _ in TYPED)
    script = f"export-worker completion fish | source\n{asked}"
    command = ["fish", "--no-config", "-c", script]
    done = subprocess.run(command, capture_output=True, check=False, text=True, env=environment)
    assert (done.stdout.split(), done.stderr) == ([word for _, word in TYPED], "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_what_is_typed(environment: dict[str, str]) -> None:
    setup = "autoload -U compinit; compinit -u -D; eval \"$(export-worker completion zsh)\"; echo set''up\n"
    with Terminal(120, 24) as terminal:
        stream = terminal.stream
        command = ["setsid", "--ctty", "zsh", "-f", "-i"]
        with subprocess.Popen(command, env=environment, stdin=stream, stdout=stream, stderr=stream) as shell:
            try:
                terminal.type(setup.encode())
                wait_until(lambda: "setup" in terminal.text, 30, "the script")
                for line, word in TYPED:
                    whole = f"{line.rpartition(' ')[0]} {word}"
                    terminal.type(f"export-worker {line}\t".encode())
                    wait_until(lambda: whole in terminal.text, 30, whole)  # noqa: B023 - called at once
                    terminal.type(b"\x15")
            finally:
                shell.kill()


@pytest.mark.parametrize("shell", SHELLS)
def test_script_is_valid_for_its_shell(program: Path, shell: str) -> None:
    printed = subprocess.run([program / "export-worker", "completion", shell], capture_output=True, check=True)
    assert b"_EXPORT_WORKER_COMPLETE" in printed.stdout
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=printed.stdout, check=True)
