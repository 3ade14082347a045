"""The native operators on a cluster: a job can tell whether the cluster has its classes."""

import os

from sage_flink.platform.native_jar import OTHERS_MAX, name_on_cluster, put_on_cluster
from sage_flink.platform.plain_paths import is_plain


def jar(folder, content):
    folder.mkdir(exist_ok=True)
    made = folder / "sage-native.jar"
    made.write_bytes(content)
    return made


def test_the_name_on_a_cluster_follows_the_content(tmp_path):
    first = name_on_cluster(jar(tmp_path / "a", b"one"))

    assert name_on_cluster(jar(tmp_path / "b", b"one")) == first
    assert name_on_cluster(jar(tmp_path / "b", b"two")) != first


def test_a_jar_on_the_cluster_keeps_its_content_when_the_original_changes(tmp_path):
    original = jar(tmp_path / "a", b"one")
    there = put_on_cluster(original, tmp_path / "cluster")
    original.unlink()
    jar(tmp_path / "a", b"two")

    assert there.name.startswith("sage-native-")
    assert there.read_bytes() == b"one"
    assert put_on_cluster(original, tmp_path / "cluster").read_bytes() == b"two"


def test_only_the_newest_versions_stay_on_the_cluster(tmp_path):
    put = []
    for number in range(OTHERS_MAX + 3):
        made = jar(tmp_path / "a", b"%d" % number)
        os.utime(made, (number, number))
        put.append(put_on_cluster(made, tmp_path / "cluster"))
        made.unlink()

    assert set((tmp_path / "cluster").iterdir()) == set(put[-OTHERS_MAX - 1 :])


def test_a_cache_whose_path_is_not_plain_is_created_and_reached_by_a_plain_one(tmp_path):
    folder = tmp_path / "Jürgen Über" / "jars"

    there = put_on_cluster(jar(tmp_path / "a", b"one"), folder)

    assert is_plain(there)
    assert (folder / there.name).read_bytes() == there.read_bytes() == b"one"
