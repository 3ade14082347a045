"""The description of an engine: how to start its OpenAI-compatible server, and what it serves.

The server speaks HTTP/1.1 on ``127.0.0.1:port``. It answers ``GET health_path`` with 200 once the
model is loaded, and by kind these POST requests, in OpenAI's schema:

========= ======================================== ======================================
kind      paths                                    content of the answer
========= ======================================== ======================================
chat      /v1/chat/completions, /v1/completions    ``choices``, at least one
embedding /v1/embeddings                           ``data[i].embedding``, ``dim`` numbers
rerank    /v1/rerank (as Cohere and Jina have it)  ``results``, at least one
========= ======================================== ======================================

* Every answer has ``usage`` with ``prompt_tokens``, for a chat also ``completion_tokens``: budgets
  and policies count them. Without it the gateway estimates.
* With ``"stream": true`` a chat is server-sent events, each ``data: {...}`` and an empty line
  (LF, not CRLF). The last one is ``data: [DONE]``; a stream without it counts as broken off.
* An error has a status of 400 or more and the body ``{"error": {"message": ...}}``. A request that
  is refused has a status below 500: others count against the replica (its circuit breaker).
* A connection is kept open for 5 s at least between two requests. When the caller disconnects, the
  engine ends its work on the request, or has ``joined``.
* The probe before a replica is READY is a POST like any other, of one token, with the header
  ``x-sage-probe: 1``, to the first path of the kind. Its answer must have the content of the table.

``serve_fake.py`` is a complete server of all three kinds in 200 lines. A ``serve_NAME.py`` is run
by its path, not imported: it uses the standard library and its own environment, not this package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sage_gateway.config.pool_spec import Kind, ModelSpec
from sage_gateway.engines.egress import Target


@dataclass(frozen=True, slots=True)
class Launch:
    """The input of an engine's command line.

    ``spec`` has the limits of a replica that the line passes on (``slots``, ``context_tokens``,
    ``threads``); the engine's docstring names those that it ignores.
    ``source`` exists; it is None for an engine without weights. ``python`` is the interpreter of
    the engine's ``environment``; an engine that is not a Python program ignores it. ``target``: the
    address of a remote engine.
    """

    model: str
    spec: ModelSpec
    source: Path | None
    port: int
    python: Path
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of engine; its name in ``pool.yaml`` is that of its file.

    ``argv`` gives the command line of a server on ``127.0.0.1:port`` that serves the model under
    the name ``Launch.model`` and answers ``health_path`` with 200 once it is loaded;
    ``spec.arguments`` are last. It is called at every start of a replica, and once before the
    first to find mistakes: a ConfigError says what cannot work. It is pure: the next gateway adopts
    a running replica only if its line is the same.
    ``weights``: the model must name a ``source``; without weights it must not.
    ``environment`` names the virtual environment of ``Launch.python``:
    ``$SAGE_CACHE/venv/<environment>`` or the newest ``<environment>-*``, unless
    ``SAGE_<ENVIRONMENT>_PYTHON`` names an interpreter. Empty is the gateway's own interpreter.
    ``setup_script``: the script that makes environment and weights; empty if there is none.
    ``env``: variables that its process has in addition to the gateway's, such as the one that keeps
    it from downloads.
    ``joined``: fields that make a whole chat or completion a stream whose events the gateway joins,
    for an engine that would not end a whole one when its caller disconnects.
    ``choices_need_slots``: whether each choice of one answer takes a slot of its own, so that a
    request for more of them than slots cannot be answered.
    ``calls_named_tools``: whether it follows a ``tool_choice`` that names a function; another one
    is sent this function only, as ``required``.
    ``logprobs_as_chat``: whether the log probabilities of a completion have the form of a chat's,
    and are missing where no alternatives to a token are asked for.
    ``probe``: whether it must also answer a request of one token to be ready. ``remote``: it is not
    started here, and checked at most every ``interval_s_min``.
    """

    kinds: frozenset[Kind]
    argv: Callable[[Launch], list[str]]
    weights: bool = True
    environment: str = ""
    setup_script: str = "infra/setup.sh"
    env: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    joined: Mapping[str, Any] | None = None
    choices_need_slots: bool = False
    calls_named_tools: bool = True
    logprobs_as_chat: bool = False
    probe: bool = True
    remote: bool = False
    interval_s_min: float = 0.0
