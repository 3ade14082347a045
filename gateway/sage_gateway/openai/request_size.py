"""How much a request may generate: its prompts, choices and completion tokens."""

import msgspec

from sage_gateway.openai.decoding import too_deep
from sage_gateway.openai.schema import ChatRequest, GenerationRequest

_LIST = msgspec.json.Decoder(list[msgspec.Raw])
#: First bytes of a number, and of a list or an object.
_NUMBERS = frozenset(b"%d" % digit for digit in range(10)) | {b"-"}
_NESTED = frozenset((b"[", b"{"))


def completion_tokens_max(request: GenerationRequest) -> int:
    """The largest limit of one completion in the request; -1: as many as there is room for.

    0: none is set; some engines read a limit of 0 in that way, too.
    """
    limits = request.max_tokens or 0, request.max_completion_tokens or 0, request.n_predict or 0
    return -1 if -1 in limits else max(limits)


def choices(request: GenerationRequest) -> int:
    """The completions of each prompt; ``n_cmpl`` is llama.cpp's name of ``n``."""
    return max(1, request.n or 0, request.n_cmpl or 0, request.best_of or 0)


def prompts(request: GenerationRequest) -> int:
    """The number of prompts. A list of numbers, or of numbers and texts, is one prompt.

    Of another list each element may be one.

    Raises:
        InvalidRequest: a prompt is nested too deeply.
    """
    if isinstance(request, ChatRequest):
        return 1
    prompt = bytes(request.prompt)
    if not prompt.startswith(b"[") or (b'"' not in prompt and prompt.find(b"[", 1) < 0):
        return 1
    try:
        items = _LIST.decode(prompt)
    except RecursionError as error:
        raise too_deep() from error
    heads = {bytes(item)[:1] for item in items}
    return 1 if heads & _NUMBERS and not heads & _NESTED else len(items)
