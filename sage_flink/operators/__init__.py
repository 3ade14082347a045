"""Operators: functions for ``flat_map``, ``map``, ``filter`` and ``fold``, picklable dataclasses.

An operator is frozen, unless it has ``open(context)``: a plain dataclass can set attributes
there. What ``open`` sets is no part of the operator's value, neither compared nor written to YAML.
A field that cannot work is a PipelineError that starts with the operator's name in YAML:

>>> from dataclasses import dataclass, field
>>> from sage_flink.common import Record
>>> from sage_flink.common.validation import require_name
>>> from sage_flink.flow.ports import OpenContext
>>> @dataclass
... class Stamp:
...     prefix: str
...     place: str = field(default="", init=False, repr=False, compare=False)
...
...     def __post_init__(self) -> None:  # where the pipeline is written
...         require_name("stamp", "prefix", self.prefix)
...
...     def open(self, context: OpenContext) -> None:  # on the worker, before the first record
...         self.place = f"{context.job}/{context.step}/{context.subtask}"
...
...     def __call__(self, record: Record) -> str:
...         return f"{self.prefix}: {record.value} ({self.place})"
>>> stamp = Stamp("seen")
>>> stamp.open(OpenContext("job", "step"))
>>> stamp(Record(id="a", value="text")), stamp == Stamp("seen")
('seen: text (job/step/0)', True)
>>> Stamp("")
Traceback (most recent call last):
sage_flink.common.errors.PipelineError: stamp: prefix must be a name, got ''
"""

from sage_flink.operators.alerts import Alerts
from sage_flink.operators.anomalies import PageHinkley, RobustZScore
from sage_flink.operators.chunk import Chunk, chunk
from sage_flink.operators.decode import DecodeDocument, DecodeQuestion
from sage_flink.operators.deletes import DropDeletes
from sage_flink.operators.encode import EncodeJson
from sage_flink.operators.fields import Select, Where
from sage_flink.operators.hops import HopLimit
from sage_flink.operators.measure import Measure, measure
from sage_flink.operators.rag import AnswerWithSources, RagPrompt

__all__ = [
    "Alerts",
    "AnswerWithSources",
    "Chunk",
    "DecodeDocument",
    "DecodeQuestion",
    "DropDeletes",
    "EncodeJson",
    "HopLimit",
    "Measure",
    "PageHinkley",
    "RagPrompt",
    "RobustZScore",
    "Select",
    "Where",
    "chunk",
    "measure",
]
