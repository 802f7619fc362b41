"""The door for setuptools. What it has to know stands in pyproject.toml."""

from setuptools import setup

setup()
