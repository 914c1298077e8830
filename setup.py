"""Packaging of rbee-sd. Floors only; the versions that are tested are pinned in conf/."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "rbee_sd" / "__init__.py").read_text())[1]

CLIENT = [
    "httpx2>=2.16",
    "orjson>=3.10",
]
ENGINE = [
    "accelerate>=1.15.0",
    "diffusers>=0.42.1",
    "greenlet>=3.1",
    "huggingface_hub>=2.4",
    "peft>=0.17",
    "pillow>=13.0.0",
    "psutil>=6",
    "safetensors>=0.5",
    "scipy>=1.11",
    "torch>=2.10",
    "transformers>5.2.0",
]
FRONT = [
    "click>=8.1",
    "prometheus-client>=0.22",
    "pydantic>=2.10",
    "tornado>=6.6.1",
    "tqdm>=4.66",
]

setup(
    name="rbee-sd",
    version=VERSION,
    description="A long-lived Stable Diffusion worker for one box",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["rbee_sd", "rbee_sd.*"]),
    package_data={
        "rbee_sd": ["py.typed", "studio/*"],
        "rbee_sd.http.docs": ["*.html", "*.css"],
        "rbee_sd.engine": ["demo/*.json", "demo/*/*.json", "demo/*/*.safetensors"],
    },
    # pip cannot leave out what the plain install needs: for the client alone, see docs/client.md.
    install_requires=[*CLIENT, *ENGINE, *FRONT],
    extras_require={
        "client": CLIENT,
        "engine": ENGINE,
        "test": [
            "hypothesis",
            "mypy",
            "openai>=3.54",
            "pytest>=8.4,<10",
            "pytest-tornasync==0.6.0.post2",
            "ruff",
            "schemathesis>=4.32",
            "selenium>=4.51",
            "webuiapi>=0.9.17",
        ],
    },
    entry_points={"console_scripts": ["rbee-sd=rbee_sd.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Framework :: AsyncIO",
    ],
)
