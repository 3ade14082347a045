"""The model pool: engines as child processes behind one OpenAI-compatible URL.

Control (:mod:`pool`, :mod:`replicas`) and data (:mod:`front`, :mod:`service`, :mod:`proxy`) are
apart; :mod:`app` puts them together and is the command ``sage-gateway``.
"""
