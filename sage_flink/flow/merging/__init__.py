"""Merging of near-equal requests: which ask for the same, and which of them has the answer. Pure.

Java's ``org.sage.flink.merging`` is the twin of :mod:`~sage_flink.flow.merging.answers`; what of a
record is compared is decided here, for both targets.
"""
