"""Print the commits whose code has a hash that a page names (`partway.provenance.package_hash`), newest first.

python scripts/commit_of.py HASH
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from partway.provenance import source_hash


def commits_of(code: str, repository: Path) -> Iterator[str]:
    """Commits of all branches whose folder `partway` has the hash `code`."""
    for commit in _git(repository, "rev-list", "--all", "--", "partway").decode().split():
        archive = io.BytesIO(_git(repository, "archive", commit, "partway"))
        with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=archive) as files:
            files.extractall(folder, filter="data")
            if source_hash(Path(folder) / "partway") == code:
                yield commit


def _git(repository: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(repository), *arguments], check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    for found in commits_of(sys.argv[1], Path(__file__).parents[1]):
        print(found, flush=True)
