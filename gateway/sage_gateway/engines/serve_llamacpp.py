"""A llama.cpp server for one GGUF file, OpenAI-compatible; run by path in the engines' environment.

xllamacpp has no command line. ``Server`` returns when the model is loaded and serves from
threads of its own, so this thread only waits for a signal. A prompt longer than a slot is refused
(no context shift), and the prompt cache in main memory, 8 GiB by default, is off.
"""

import argparse
import signal

import xllamacpp


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--embedding", action="store_true")
    for number in ("port", "slots", "context-tokens", "threads", "http-threads"):
        parser.add_argument(f"--{number}", type=int, required=True)
    args = parser.parse_args()
    server = xllamacpp.Server(params(args))
    # The library installs a handler that waits for its own queue: a kill during load can hang.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print("serving at", server.listening_address, flush=True)
    signal.pause()


def params(args: argparse.Namespace) -> xllamacpp.CommonParams:
    """llama.cpp's parameters: every slot has its own ``context_tokens``."""
    p = xllamacpp.CommonParams()
    p.model.path = args.model
    p.model_alias = {args.alias}
    p.hostnames = ["127.0.0.1"]
    p.port = args.port
    p.n_parallel = args.slots
    p.n_ctx = args.context_tokens * args.slots
    p.kv_unified = False
    p.ctx_shift = False
    p.cache_ram_mib = 0
    p.cpuparams.n_threads = args.threads
    p.cpuparams_batch.n_threads = args.threads
    p.n_threads_http = args.http_threads
    p.endpoint_metrics = True
    p.ui = False
    p.offline = True
    if args.embedding:
        p.embedding = True
        p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return p


if __name__ == "__main__":
    main()
