"""A running ``rag_ingest`` for each test module, with its own topics, collection and bucket."""

import uuid
from dataclasses import dataclass

import pytest
from waiting import wait_until

import sage_flink as sage
from sage_connectors.kafka_client import delete_topic, drain, feed
from sage_flink.common import Settings
from sage_flink.common.dead_letters import from_message
from sage_flink.platform.flink_rest import FlinkRest
from sage_jobs import rag_ingest
from sage_jobs.rag_ingest import RagIngest


@dataclass
class Ingest:
    """A running job, its topic, collection and bucket."""

    config: RagIngest
    job_id: str
    rest: FlinkRest

    def feed(self, messages):
        feed(self.config.topic, messages)

    def dead_letters(self):
        return [from_message(message) for message in drain(self.config.dead_letters)]

    def __post_init__(self):
        self.store = sage.db.collection(self.config.collection, dim=self.config.dim).open()
        self.bucket = sage.tsdb.bucket(self.config.bucket).open()


@pytest.fixture(scope="module")
def settings():
    return Settings.load()


@pytest.fixture(scope="module")
def ingest(settings):
    name = f"t{uuid.uuid4().hex[:10]}"
    config = RagIngest(
        topic=f"{name}.documents",
        collection=name,
        bucket=name,
        dead_letters=f"{name}.dead-letters",
        group=name,
    )
    with FlinkRest(settings.flink_url) as rest:
        job_id = sage.flow.submit(rag_ingest.build(config), name=name)
        wait_until(lambda: rest.all_tasks_running(job_id), 120, "the job's tasks run")
        ingest = Ingest(config, job_id, rest)
        yield ingest
        rest.cancel(job_id)
    ingest.store.drop()
    ingest.bucket.drop("chunks")
    for topic in (config.topic, config.dead_letters):
        delete_topic(topic)
