"""What is given away: the source distribution, its wheel, and what they say about themselves."""

import datetime
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
import yaml
from real_commands import ROOT, environment

import sam_jax

METADATA = {"PKG-INFO", "setup.cfg"}  # what setuptools adds, beside sam_jax.egg-info
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def tracked_files():
    """The files that git knows of and that are there."""
    command = ["git", "ls-files"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in lines.splitlines() if (ROOT / name).is_file()}


def build(kind, source, folder):
    """Build "sdist" or "wheel" of a folder with the setuptools that is here; return its path."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", folder]
    result = subprocess.run([*command, source], capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    (made,) = folder.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


@pytest.mark.commands
@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no checkout"
)
def test_the_source_distribution_is_the_checkout_and_makes_the_wheel(tmp_path):
    checkout, made, unpacked, site = (tmp_path / n for n in ("checkout", "made", "source", "site"))
    made.mkdir()
    tracked = tracked_files()
    for name in tracked:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    stem = f"sam_jax-{sam_jax.__version__}"
    with tarfile.open(build("sdist", checkout, made)) as archive:
        held = {m.name.removeprefix(f"{stem}/") for m in archive.getmembers() if m.isfile()}
        archive.extractall(unpacked, filter="data")
    assert {n for n in held if not n.startswith("sam_jax.egg-info/")} == tracked | METADATA

    with zipfile.ZipFile(build("wheel", unpacked / stem, made)) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(site)
    modules = {name for name in tracked if re.fullmatch(r"sam_jax/.*\.py", name)}
    pages = {name for name in tracked if re.fullmatch(r"sam_jax/.*/templates/.*", name)}
    information = {name for name in names if name.startswith(f"{stem}.dist-info/")}
    assert names - information == modules | pages | {"sam_jax/py.typed"}
    assert "sam_jax/live/templates/dashboard.html.j2" in pages
    text = (site / f"{stem}.dist-info/METADATA").read_text()
    assert f"\nVersion: {sam_jax.__version__}\n" in text
    assert re.search(r"^License(-Expression)?: Apache-2\.0$", text, re.M)

    program = "import sam_jax, sam_jax.optim; print(sam_jax.__file__, sam_jax.sam(0.1))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert result.stdout.startswith(str(site / "sam_jax")), result.stderr


def test_the_changelog_has_a_section_of_the_version():
    headings = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == ("Unreleased", "")
    version, date = headings[1]
    assert version == sam_jax.__version__
    assert datetime.date.fromisoformat(date.removeprefix(" - ")) == CITATION["date-released"]


def test_the_citation_is_of_this_version():
    # The fields that the schema of version 1.2.0 requires, and those that change.
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["version"] == sam_jax.__version__
    assert f'license="{CITATION["license"]}"' in (ROOT / "setup.py").read_text()
    for cited in [CITATION, *CITATION["references"]]:
        assert all({"name", "family-names"} & set(author) for author in cited["authors"])


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_a_tag_of_this_commit_is_of_this_version():
    command = ["git", "tag", "--points-at", "HEAD", "v*"]
    tags = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert set(tags) <= {f"v{sam_jax.__version__}"}
