"""What pyproject.toml cannot say: the extension module that cffi builds."""

from setuptools import setup

setup(cffi_modules=["scripts/build_core.py:ffibuilder"])
