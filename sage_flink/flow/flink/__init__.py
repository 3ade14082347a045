"""The Flink target: a graph compiled into a DataStream job, and its Python steps."""

import logging

# Beam, which PyFlink loads, warns of file systems that it does not find; sage uses none of them.
logging.getLogger("apache_beam.io.filesystems").setLevel(logging.ERROR)
