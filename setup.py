"""What pyproject.toml cannot say: EdgeTune needs what stands above the tools in requirements.txt, at those pins."""

from pathlib import Path

from setuptools import setup

needed, _, _ = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").partition("\n# Tools.")
setup(install_requires=needed.splitlines())
