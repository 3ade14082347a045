"""Checks of the machine, the installation, the stack and its jobs: what is wrong, what to do next.

Each module has facts (a frozen value), a function that reads them, and a pure function from the
facts to checks. Reading never raises and starts nothing.
"""

from sage_flink.platform.doctor.check import Check
from sage_flink.platform.doctor.examination import examine

__all__ = ["Check", "examine"]
