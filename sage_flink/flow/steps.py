"""The effect of one step on one record: pure, and the same on every target.

A record that an author's code makes is encoded in the step that made it, on every target and also
where the next step is in the same process: a value that no process could decode is a failure of
that step, wherever the compile pass puts the border between two processes.
"""

import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sage_flink.common.errors import PipelineError, Rejected
from sage_flink.common.records import (
    FailedRecord,
    Record,
    Refusal,
    encode_valid,
)
from sage_flink.flow.author_code import code_of
from sage_flink.flow.deletes import undeclared_delete
from sage_flink.flow.graph import Call, FlatMap, Read
from sage_flink.flow.ports import Source, supports_deletes

T = TypeVar("T")
#: How many records a function may make of one; all of them are in memory at a time.
OUTPUTS_MAX = 1_000_000


def source_records(node: Read) -> Iterator[Record]:
    """The records of a source that is read in Python.

    Raises:
        PipelineError: a record cannot be encoded, or is a delete that the source does not declare.
    """
    assert isinstance(node.source, Source)
    for record in node.source.records():
        try:
            encode_valid(record)
            if record.kind == "delete":
                _refuse(undeclared_delete(node))
        except Rejected as flaw:
            raise PipelineError(f"step {node.name!r}: record {record.id!r:.200}: {flaw}") from flaw
        yield record


def flat_map(node: FlatMap, record: Record) -> list[Record | FailedRecord]:
    """The records that ``node`` makes from ``record``: all of them, or an exception.

    A part of ``record`` that the function refuses is a failed record in its place among them.

    Materialised on purpose: a function that raises after its third value must not leave three
    records in the sink and their parent in the dead-letter topic. A delete bypasses a function that
    does not support deletes.

    Raises:
        Rejected: the function returned one value where it should return many, a delete that it
            does not declare, or a record that cannot be encoded.
    """
    made = _flat_map(node, record)
    for out in made:
        if out is not record:
            _encode_output(out, node.function)
    return made


def flat_map_encoded(node: FlatMap, record: Record) -> list[bytes | FailedRecord]:
    """The wire forms of the records of :func:`flat_map`, which raises as this does."""
    return [_encode_output(out, node.function) for out in _flat_map(node, record)]


def _encode_output(made: Record | FailedRecord, author: object) -> bytes | FailedRecord:
    """The wire form of a record; a failed record itself, once it is known that it has one."""
    if isinstance(made, FailedRecord):
        encode_made(made.record, author)
        return made
    return encode_made(made, author)


def _flat_map(node: FlatMap, record: Record) -> list[Record | FailedRecord]:
    if record.kind == "delete" and not supports_deletes(node.function):
        return [record]
    made = node.function(record)
    if isinstance(made, str | bytes | Mapping | Record | Refusal) or not isinstance(made, Iterable):
        kind = type(made).__name__
        raise Rejected(f"the function returned {kind}; return a list, or yield")
    outputs = [
        _output(node, record, ordinal, out) for ordinal, out in enumerate(_up_to_limit(made))
    ]
    records = (out.record if isinstance(out, FailedRecord) else out for out in outputs)
    if any(made.kind == "delete" for made in records):
        _refuse(undeclared_delete(node))
    return outputs


def _output(node: FlatMap, record: Record, ordinal: int, made: Any) -> Record | FailedRecord:
    if isinstance(made, Record):
        return made
    if not isinstance(made, Refusal):
        return record.child(node.name, ordinal, made)
    if not isinstance(made.record, Record):
        raise Rejected(f"a Refusal must hold a Record, got {type(made.record).__name__}")
    return FailedRecord(made.record, node.name, str(made.reason))


def _up_to_limit(made: Iterable[T]) -> Iterator[T]:
    """The items; a function that yields without end would fill the machine's memory."""
    for count, out in enumerate(made):
        if count == OUTPUTS_MAX:
            _refuse(f"the function made more than {OUTPUTS_MAX} records of one; split it before")
        yield out


def _refuse(reason: str) -> None:
    if reason:
        raise Rejected(reason)


def encode_made(made: Record, author: object) -> bytes:
    """The wire form of what ``author`` made; where there is none, Rejected names the line."""
    try:
        return encode_valid(made)
    except Rejected as flaw:
        raise Rejected(f"{flaw}{author_place(author)}") from flaw


def author_place(author: object) -> str:
    """The first line of the author's function, as `` (file:line)``; empty where it has none."""
    code = code_of(author)
    return _place(code.co_filename, code.co_firstlineno) if code else ""


#: ``CallSpec.answer``: the record and the body of the reply -> the record with its result.
Answer = Callable[[Record, bytes], Record]


def call_answer(node: Call, answer: Answer, record: Record, body: bytes) -> Record:
    """The record with its result, which is an upsert.

    Raises:
        Rejected: ``answer`` returned something else, a delete, or what cannot be encoded.
    """
    made = _call_answer(node, answer, record, body)
    encode_made(made, answer)
    return made


def call_answer_encoded(node: Call, answer: Answer, record: Record, body: bytes) -> bytes:
    """The wire form of the record of :func:`call_answer`, which raises as this does."""
    return encode_made(_call_answer(node, answer, record, body), answer)


def _call_answer(node: Call, answer: Answer, record: Record, body: bytes) -> Record:
    made = answer(record, body)
    if not isinstance(made, Record):
        raise Rejected(f"the answer must be a Record, got {type(made).__name__}")
    if made.kind == "delete":
        _refuse(undeclared_delete(node))
    return made


def catch_failure(
    step: str, record: Record, work: Callable[[], T], author: object = None
) -> T | FailedRecord:
    """What ``work`` returns, or the failed record when it raises.

    The reason names the line of ``author``, the step's own function, at which it happened. What
    ends a program elsewhere, such as ``sys.exit()``, is a failure too; Ctrl-C ends the run.
    """
    try:
        return work()
    except Rejected as rejection:
        return FailedRecord(record, step, str(rejection))
    except KeyboardInterrupt as error:
        if threading.current_thread() is threading.main_thread():
            raise
        return FailedRecord(record, step, _reason(error, author))
    except BaseException as error:
        return FailedRecord(record, step, _reason(error, author))


def _reason(error: BaseException, author: object) -> str:
    return f"{type(error).__name__}: {_message(error)}"[:500] + _line(error, author)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as unprintable:  # a KeyError of a number with more than 4,300 digits
        return f"its message raised {type(unprintable).__name__}"


def _line(error: BaseException, author: object) -> str:
    """The last line of the traceback in the author's file, or else in any file."""
    code = code_of(author)
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename != __file__
    ]
    own = [place for place in places if code and place[0] == code.co_filename]
    for filename, line in (own or places)[-1:]:
        return _place(filename, line)
    return ""


def _place(filename: str, line: int) -> str:
    return f" ({Path(filename).name}:{line})"
