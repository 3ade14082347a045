"""A folder of documents in every format and with every oddity, made by a script, to be read.

``python -m benchmark_sage.documents`` makes it, adds real documents from Debian packages, reads it
in process and on a MiniCluster, and compares: every file is documents or a dead letter, and the
two targets agree.
"""
