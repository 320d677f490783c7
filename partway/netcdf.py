"""The dataset of a run or a sweep on disk: compressed netCDF4, with a checksum at its end."""

import hashlib
import mmap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from partway.arguments import path as argument_path
from partway.errors import InputError, shown
from partway.files import NO_ROOM, beside, delete, interrupted_afterwards, why

if TYPE_CHECKING:  # slow to import
    import xarray as xr

DATASET = "results.nc"
DATASET_VERSION = 3
"""`schema_version` of DATASET; increment when a variable, dimension or attribute is renamed."""
MAX_RATIO = 2**11
"""Times that a file may shrink by compression; zlib reaches 1032."""
SEAL = b"\nSHA-256 of what comes before: "
"""Before the checksum."""


def save_dataset(dataset: "xr.Dataset", folder: Path) -> None:
    """Write the dataset as compressed netCDF4 to the file DATASET in `folder`. Raises InputError if that fails."""
    arrays = [name for name, values in dataset.data_vars.items() if values.ndim > 1 and values.dtype.kind in "iuf"]
    encoding = {name: {"zlib": True, "complevel": 1} for name in arrays}
    versioned = dataset.assign_attrs(schema_version=DATASET_VERSION)
    try:
        with interrupted_afterwards():
            versioned.to_netcdf(folder / DATASET, engine="netcdf4", encoding=encoding)
        _seal(folder / DATASET)
    except (OSError, RuntimeError) as error:  # RuntimeError: "NetCDF: HDF error", such as a full disk's
        reason = _no_room(folder) or why(error)
        raise InputError(f"{DATASET}: cannot be written ({reason}); choose another location for --out") from None


def _seal(path: Path) -> None:
    """Append the SHA-256 of a file to it. HDF5 ignores what follows its own content."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(SEAL + digest.encode())


def _check_seal(path: Path) -> None:
    """Raise ValueError for a file that has changed since it was sealed: HDF5 may read a damaged one without end."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
        end = content.rfind(SEAL)  # -1 in a file that another program has written
        digest = content[end + len(SEAL) :]
        if end >= 0 and hashlib.sha256(content[:end]).hexdigest().encode() != digest:
            raise ValueError("it has changed since it was written")


def _no_room(folder: Path) -> str:
    """Why not even a small file can be written there, if that is for lack of room; netCDF does not say."""
    probe = beside(folder / DATASET)
    try:
        probe.write_bytes(bytes(2**20))
    except OSError as error:
        return str(error.strerror) if error.errno in NO_ROOM else ""
    finally:
        delete(probe)
    return ""


def load_dataset(folder: str | Path) -> "xr.Dataset":
    """The dataset of an earlier run, from its `--out` folder or from the file itself.

    Raises InputError where there is none, a damaged one, or one of another version of Partway.
    """
    path = argument_path("the folder of results", folder)
    given, cure = shown(str(folder), 100), "give a folder that `partway compare --out` wrote"
    if path.is_dir() and not (path / DATASET).exists():
        raise InputError(f"{given}: has no {DATASET}; {cure}")
    try:
        dataset = _loaded(path / DATASET if path.is_dir() else path)
    except Exception as error:  # netCDF, HDF5 and xarray raise a dozen kinds of errors for a damaged file
        raise InputError(f"{given}: cannot be read ({why(error)}); {cure}") from None
    version = dataset.attrs.pop("schema_version", 1)
    if str(version) != str(DATASET_VERSION):
        raise InputError(
            f"{given}: has schema_version {version}, and this version of Partway reads {DATASET_VERSION}; run the "
            "command that wrote it again"
        )
    return dataset


def _loaded(path: Path) -> "xr.Dataset":
    """A dataset in memory, unless it claims to be larger than compression allows: then the file is damaged."""
    import xarray as xr

    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    _check_seal(path)
    with interrupted_afterwards(), warnings.catch_warnings(), xr.open_dataset(path, engine="netcdf4") as dataset:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", xr.SerializationWarning)  # of attributes that cannot be decoded
        if dataset.nbytes > MAX_RATIO * path.stat().st_size:
            raise ValueError(f"it claims to hold {dataset.nbytes} bytes")
        return dataset.load()
