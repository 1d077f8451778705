"""Which files are the package. Two folders at the top of a checkout lie inside harness/ once it is installed."""

from setuptools import find_packages, setup

BESIDE = {"harness.config_files": "config", "harness.published": "results/published"}

setup(
    packages=[*find_packages(include=["harness*", "methods*"]), *BESIDE],
    package_dir=BESIDE,
    package_data={"": ["*.yaml", "*.html", "*.css", "*.js", "*.csv", "py.typed"]},
)
