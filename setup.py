"""The one thing that setup.cfg cannot say: make the schema blob before the package's data is collected.

It runs for a wheel and for ``pip install -e .`` alike. In an sdist or a checkout where schema.bin is already there and
xds-protos is not, the present blob is kept.
"""

import importlib.util
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildPy(build_py):
    """build_py, after forkproxy/config/schema.bin has been made."""

    def run(self):
        spec = importlib.util.spec_from_file_location("build_schema", HERE / "scripts" / "build_schema.py")
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        tool.ensure()
        super().run()


setup(cmdclass={"build_py": BuildPy})
