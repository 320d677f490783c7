"""Profiles that are kept between runs: the same, and made again whenever something they are made from has changed."""

import os
from pathlib import Path

import onnx
import pytest
from onnx_models import network, node, saved

from partway import provenance
from partway.dnn import graph, profile_cache
from partway.dnn.profile import Profile
from partway.dnn.profile_cache import kept_profile
from partway.errors import InputError


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were profiled, not taken from what is kept."""
    names, profile_model = list[str](), graph.profile_model

    def noted(path: str | Path, **options: object) -> Profile:
        names.append(Path(path).name)
        return profile_model(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(graph, "profile_model", noted)
    return names


def model(tmp_path: Path, outputs: int = 3) -> Path:
    gemm = network(
        [node("Gemm", "x w", "h"), node("Gemm", "h v", "y")], {"x": (1, 8)}, ["y"], {"w": (8, 4), "v": (4, outputs)}
    )
    return Path(saved(tmp_path, gemm))


def test_a_kept_profile_is_the_one_that_was_made(tmp_path: Path, made: list[str]):
    path, folder = model(tmp_path), tmp_path / "kept"
    first, again = (kept_profile(folder, path, {}, {}) for _ in range(2))
    assert first == again == graph.profile_model(path)
    assert made == [path.name] * 2  # the second time by this test
    assert [cut.macs for cut in again.cuts] == [0, 32, 44]


def test_it_is_made_again_for_another_file_or_other_shapes(tmp_path: Path, made: list[str], monkeypatch):
    path, folder = model(tmp_path), tmp_path / "kept"
    kept_profile(folder, path, {}, {})
    kept_profile(folder, path, {"x": (1, 8)}, {})
    path = model(tmp_path, outputs=5)
    assert kept_profile(folder, path, {}, {}).macs == 32 + 20
    other = path.rename(path.with_name("other.onnx"))
    assert kept_profile(folder, other, {}, {}).name == "other"
    monkeypatch.setattr(provenance, "package_hash", lambda: "of other source")
    kept_profile(folder, other, {}, {})
    assert len(made) == 5


def test_a_damaged_profile_is_made_again(tmp_path: Path, made: list[str]):
    path, folder = model(tmp_path), tmp_path / "kept"
    first = kept_profile(folder, path, {}, {})
    (file,) = folder.glob("*.csv")
    file.write_text("# source")
    assert kept_profile(folder, path, {}, {}) == first
    assert len(made) == 2
    file.unlink()
    folder.rmdir()
    folder.write_text("no folder")
    assert kept_profile(folder, path, {}, {}) == first


def test_what_cannot_be_profiled_is_not_kept(tmp_path: Path):
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match=r"is not an ONNX network"):
        kept_profile(tmp_path / "kept", tmp_path / "bad.onnx", {}, {})
    with pytest.raises(InputError, match=r"missing\.onnx"):
        kept_profile(tmp_path / "kept", tmp_path / "missing.onnx", {}, {})
    assert not (tmp_path / "kept").exists()


def test_a_network_with_weights_elsewhere_is_not_kept(tmp_path: Path, made: list[str]):
    path, folder = model(tmp_path), tmp_path / "kept"
    loaded = onnx.load(path)
    onnx.save(loaded, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    profiles = [kept_profile(folder, path, {}, {}) for _ in range(2)]
    assert profiles[0] == profiles[1]
    assert len(made) == 2


def test_the_longest_unused_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profile_cache, "MAX_KEPT", 2)
    folder = tmp_path / "kept"
    for i in range(3):
        path = model(tmp_path, outputs=i + 1)
        kept_profile(folder, path, {}, {})
        for age, file in enumerate(folder.glob("*.csv")):
            os.utime(file, (age + i, age + i))
    assert len(list(folder.glob("*.csv"))) == 2
