"""Check, build and describe a release; `--tag` also tags the commit. Without it nothing outside `dist/` changes.

The version stands in `pyproject.toml`, in `CITATION.cff` and in the first heading of `CHANGELOG.md`, whose section
becomes the notes of the release, `dist/notes.md`. Publishing is the work of `.github/workflows/release.yml`, which runs
on the tag.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
HEADING = re.compile(r"^## (?P<version>\d+\.\d+\.\d+)(?: \((?P<date>[^)]*)\))?$", re.MULTILINE)
RELEASED = re.compile(r"\d{4}-\d{2}-\d{2}")
CITED = re.compile(r"^version: (?P<version>\S+)$", re.MULTILINE)


def main() -> int:
    """Run all steps; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--tag", action="store_true", help="tag the commit as vVERSION; nothing may be left to fix")
    options = parser.parse_args()
    version = declared_version()
    problems = problems_of(version, (ROOT / "CHANGELOG.md").read_text(), (ROOT / "CITATION.cff").read_text())
    problems += [f"{line[3:]} is not committed" for line in _git("status", "--porcelain").splitlines()]
    if f"v{version}" in _git("tag", "--list").split():
        problems.append(f"the tag v{version} exists: raise the version in pyproject.toml")
    for problem in problems:
        print(f"release: {problem}", file=sys.stderr)
    if problems and options.tag:
        return 2
    build(version)
    if options.tag:
        _git("tag", "--annotate", f"v{version}", "--message", f"Partway {version}")
        print(f"Tagged v{version}. Push it: git push origin v{version}")
    else:
        print(f"Dry run: v{version} was not tagged{', and cannot be until the above is fixed' if problems else ''}.")
    return 0


def declared_version() -> str:
    """The version in `pyproject.toml`."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def problems_of(version: str, changelog: str, citation: str) -> list[str]:
    """What keeps `version` from being released, a sentence each."""
    problems: list[str] = []
    newest = HEADING.search(changelog)
    if newest is None or newest["version"] != version:
        found = newest["version"] if newest else "no version"
        problems.append(f"CHANGELOG.md begins with {found}, pyproject.toml has {version}")
    elif not RELEASED.fullmatch(newest["date"] or ""):
        problems.append(f"CHANGELOG.md gives {version} no date: write '## {version} (YYYY-MM-DD)'")
    cited = CITED.search(citation)
    if cited is None or cited["version"] != version:
        problems.append(f"CITATION.cff has {cited['version'] if cited else 'no version'}, pyproject.toml has {version}")
    return problems


def notes(changelog: str, version: str) -> str:
    """The section of `version` in the changelog, without its heading; KeyError if there is none."""
    headings = list(HEADING.finditer(changelog))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading["version"] == version:
            return changelog[heading.end() : following.start() if following else None].strip() + "\n"
    raise KeyError(version)


def build(version: str) -> None:
    """Write wheel, source distribution and notes of `version` into an empty `dist/`."""
    shutil.rmtree(DIST, ignore_errors=True)
    command = [sys.executable, "-m", "build", "--quiet", "--no-isolation", "--outdir", str(DIST), str(ROOT)]
    subprocess.run(command, check=True)
    (DIST / "notes.md").write_text(notes((ROOT / "CHANGELOG.md").read_text(), version))
    for file in sorted(DIST.iterdir()):
        print(f"dist/{file.name}: {file.stat().st_size / 1e3:.0f} kB")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
