"""The console of the built wheel, unpacked elsewhere: every page and every asset is in the wheel."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.request import urlopen

from support.paths import ROOT


def unpacked_wheel(folder: Path) -> Path:
    """Builds the wheel and unpacks it, as an installation does."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def get(url: str) -> str:
    with urlopen(url, timeout=20) as response:
        return str(response.read().decode())


def test_gateway_of_the_wheel_serves_pages_and_assets(tmp_path: Path, redis_url: str, namespace: str) -> None:
    installed = unpacked_wheel(tmp_path)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(installed),
        "EXPORT_REDIS_URL": redis_url,
        "EXPORT_NAMESPACE": namespace,
        "EXPORT_GATEWAY__PORT": "0",
    }
    where = [sys.executable, "-c", "import export_producers; print(export_producers.__file__)"]
    ran = subprocess.run(where, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert Path(ran.stdout.strip()).is_relative_to(installed)
    command = [sys.executable, "-m", "export_worker", "gateway"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as gateway:
        try:
            assert gateway.stdout is not None
            url = gateway.stdout.readline().removeprefix("gateway: ").strip()
            page = get(f"{url}/console/exports?lang=zh")
            assert "导出" in page
            assets = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page)
            static = ROOT / "producers" / "export_producers" / "console" / "static"
            assert {Path(asset).name.partition("?")[0] for asset in assets} == {path.name for path in static.iterdir()}
            for asset in assets:
                name = Path(asset).name.partition("?")[0]
                assert get(f"{url}{asset}") == (static / name).read_text(encoding="utf-8")
        finally:
            gateway.terminate()
