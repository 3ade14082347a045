"""The command ``sage-gateway`` with collections in files, which a kill leaves as they are."""

import argparse
from pathlib import Path

from row_collections import FileCollections

from sage_flink.common import Settings
from sage_gateway.app import listen, serve
from sage_gateway.composition import build
from sage_gateway.config.pool_file import load
from sage_gateway.engines import KNOWN
from sage_gateway.tenants import Keys, local_key


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    args = parser.parse_args()
    settings = Settings.load()
    collections = FileCollections(settings.home)
    with listen("127.0.0.1", args.port) as listener:
        gateway = build(
            settings,
            load(args.pool, KNOWN),
            Keys.of(local_key(settings)),
            open_store=collections.open,
            collections=collections,
            factories={},
        )
        serve(gateway.asgi, listener)


if __name__ == "__main__":
    main()
