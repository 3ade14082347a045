"""A batch of a thousand lines next to users: it hardly slows them, and kill -9 loses no line."""

import asyncio
import json
import random
from collections import Counter

import aiohttp
from open_load import CHAT, Caller, chat, client_session, open_loop, p99_ms
from pool_drill import counts, pool, usage_of
from waiting import wait_until

#: Two replicas; users occupy a quarter of them, a batch the rest.
MODELS = {"talk": {"engine": "fake", "kind": "chat", "replicas": 2, "concurrency": 4}}
RATE_PER_S, USERS, LINES = 20.0, 500, 1000
ANSWER_S, LINE_S = 0.1, 0.3
SLOWER_MAX = 1.2
PATIENCE_S = 300.0


async def test_a_batch_hardly_slows_users_and_kill_9_midway_loses_no_line(
    tmp_path, keep, full, seed
):
    users, lines = (USERS, LINES) if full else (USERS // 5, LINES // 5)
    whole = {"engine_grace_s": 30.0}
    with pool(tmp_path, MODELS, **whole) as gateway:
        account = {"authorization": f"Bearer {gateway.key}"}
        async with client_session() as session:
            caller = Caller(session, [gateway.url], gateway.key)
            alone = await user_calls(caller, users)
            held = 0 if full else lines // 2  # so that the batch outlasts the users
            batch = await start_batch(session, gateway.url, account, lines, held)
            await asyncio.sleep(1.0)
            during = await user_calls(caller, users)
            midway = await state(session, gateway.url, account, batch)
            await asyncio.sleep(random.Random(seed).uniform(0.0, 1.0))
            gateway.process.kill()
            gateway.process.wait()

    before = midway["request_counts"]["completed"]
    with pool(tmp_path, MODELS, port=gateway.port, **whole) as successor:
        done = finish_batch(successor, account, batch)
        found = answers(successor.admin, account, done["output_file_id"])
        paid = usage_of(successor.admin, gateway.key_id)
    counted = {"lines": lines, "lines_before_kill": before, **count_lines(found, lines)}
    failed_lines = done["request_counts"]["failed"]
    row = batch_row(alone, during, charged=paid - lines, failed_lines=failed_lines, counted=counted)
    keep("pool_batch", row)

    assert midway["status"] == "in_progress"
    assert 0 < before < lines
    assert row["failures"] == row["lost"] == row["wrong"] == row["duplicated"] == 0
    assert found == {f"line {n}": 1 for n in range(lines)}
    if full:  # the short form shares the machine, so its times mean less
        assert row["slower"] <= SLOWER_MAX


async def user_calls(caller, users):
    """The calls of as many users, at a constant rate."""
    return await open_loop(
        lambda _: caller.ask(f"sleep {ANSWER_S}"),
        rate_per_s=RATE_PER_S,
        more=lambda n: n < users,
    )


def finish_batch(gateway, account, batch):
    """Let the lines that wait be answered, and return the batch when it is completed."""
    gateway.release("line")

    def now():
        return gateway.admin.get(f"/v1/batches/{batch}", headers=account).json()

    wait_until(lambda: now()["status"] == "completed", PATIENCE_S, "the rest of the batch")
    return now()


def count_lines(found, lines):
    """How many of the lines are not in the output, and how many are in it again."""
    return {"lines_lost": lines - len(found), "lines_twice": sum(found.values()) - len(found)}


def batch_row(alone, during, *, charged, failed_lines, counted):
    """The row of the users' calls without and with a batch, and of the batch's lines."""
    calls = [*alone, *during]
    p99 = p99_ms(alone), p99_ms(during)
    return {
        **counts(calls, charged),
        "failures": sum(call.status != 200 for call in calls) + failed_lines,
        **counted,
        "p99_before_ms": p99[0],
        "p99_during_ms": p99[1],
        "slower": round(p99[1] / p99[0], 3),
    }


async def start_batch(session, url, account, lines, held):
    """Start a batch of ``lines`` lines, the last ``held`` of which wait, and return its id."""
    scripts = [f"sleep {LINE_S}"] * (lines - held) + ["hold line"] * held
    form = aiohttp.FormData({"purpose": "batch"})
    file = b"".join(line(n, script) for n, script in enumerate(scripts))
    form.add_field("file", file, filename="lines.jsonl")
    async with session.post(f"{url}/v1/files", data=form, headers=account) as answer:
        file = (await answer.json())["id"]
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    async with session.post(f"{url}/v1/batches", json=body, headers=account) as answer:
        return (await answer.json())["id"]


def line(n, script):
    body = json.loads(chat(script))
    one = {"custom_id": f"line {n}", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(one).encode() + b"\n"


async def state(session, url, account, batch):
    """The gateway's state of the batch."""
    async with session.get(f"{url}/v1/batches/{batch}", headers=account) as answer:
        return await answer.json()


def answers(client, account, file):
    """How often each line is in the output."""
    page = client.get(f"/v1/files/{file}/content", headers=account).text
    return Counter(json.loads(one)["custom_id"] for one in page.splitlines())
