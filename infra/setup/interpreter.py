"""Prints what setup needs to know of the interpreter that runs this: ``RANK PATH VERSION``.

RANK is 1 for a build with optimisations, 2 for any other. Profile-guided optimisation makes plain
Python code 1.3 to 1.6 times as fast; a version manager leaves it out by default. Exit status 1:
not Python 3.11 or 3.12, or without C headers, or, with the argument ``venv``, without that module.
"""

import sys

if not (3, 11) <= sys.version_info[:2] < (3, 13):
    sys.exit(1)

import sysconfig
from importlib.util import find_spec
from pathlib import Path

# The base of a virtual environment: an activated one must not become the base of itself.
executable = Path(sys._base_executable)
# crcmod, which PyFlink needs, has no wheel; it is compiled.
headers = Path(sysconfig.get_path("include", vars={"installed_base": sys.base_prefix}), "Python.h")
modules = ("venv", "ensurepip") if "venv" in sys.argv[1:] else ()
if not (headers.exists() and all(map(find_spec, modules))):
    sys.exit(1)

arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
# Debian and its kin build the interpreter with optimisations, but record the arguments of the
# shared library, which is built without.
distribution = str(executable.resolve()).startswith("/usr/bin/")
optimised = distribution or "--enable-optimizations" in arguments
version = ".".join(map(str, sys.version_info[:3]))
print(1 if optimised else 2, executable, version, sep="\t")
