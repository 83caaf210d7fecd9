"""The project as it is handed on: pages whose links lead somewhere, and a package that holds what it should."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT) for pattern in ("*.md", "docs/**/*.md", "tests/**/*.md") for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links (as GitHub and GitLab make them)."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in LINK.findall((ROOT / page).read_text()):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_the_docs_can_be_reached_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(page.read_text()) if "://" not in link)
        left += [(page.parent / link).resolve() for link in links if link]
    assert set((ROOT / "docs").glob("**/*.md")) <= reached


def test_the_wheel_holds_every_module_and_the_command(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert b"bootwire = bootwire.cli:main" in archive.read(entry_points)
    source = ROOT / "src"
    modules = {str(path.relative_to(source)) for path in source.glob("bootwire/**/*.py")}
    beside = [path for kind in ("bios", "efi") for path in source.glob(f"bootwire/programs/{kind}/*")]
    programs = {str(path.relative_to(source)) for path in beside}
    pages = {str(path.relative_to(source)) for path in source.glob("bootwire/web/static/*")}
    assert names == modules | programs | pages
