"""The whole OpenAPI document against the gateway, with every check that Schemathesis has."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from row_collections import MemoryCollections

from sage_flink.common import NotFound

HERE = Path(__file__).parent
SEED = "20261124"


def open_missing_collection(name: str, _: int) -> Any:
    raise NotFound(f"no collection {name!r}")


@pytest.mark.service
@pytest.mark.timeout(400)
def test_schemathesis_finds_no_failure(start: Any, fake: Any) -> None:
    # The default health checks: those of other tests end an engine that is slow for half a second.
    kinds = {"talk": "chat", "vectors": "embedding", "ranks": "rerank"}
    models = {name: fake(kind, health={}) for name, kind in kinds.items()}
    more = {"open_store": open_missing_collection, "pool": {"embedding_model": "vectors"}}
    more["collections"] = MemoryCollections()
    with start(models, **more) as gateway:
        file = {"file": ("sea.txt", b"The sea is deep.")}
        uploaded = gateway.client.post("/v1/files", files=file, data={"purpose": "assistants"})
        line = [
            str(Path(sys.executable).with_name("st")),
            f"--config-file={HERE / 'schemathesis.toml'}",
            "run",
            f"{gateway.url}/openapi.json",
            "--header=Authorization: Bearer sk-sage-test",
            "--checks=all",
            f"--seed={SEED}",
            "--generation-deterministic",
            "--max-examples=25",
            "--no-color",
        ]
        env = os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
        env["SAGE_TEST_FILE"] = uploaded.json()["id"]
        done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=380)

        assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
        assert gateway.healthy()
