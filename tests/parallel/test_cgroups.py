"""Limits of control groups, as the files of both versions say them."""

import pytest

from minicnn.parallel import cgroups


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return a function that writes the files of groups, and says which group this process is
    in.
    """
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "fs")
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")

    def make(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "fs" / name.replace("__", "/").replace("DOT", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return make


def test_quota_of_a_nested_group(tree):
    tree("0::/a/b\n", cpuDOTmax="max 100000", a__cpuDOTmax="150000 100000")
    assert cgroups.cpu_quota() == 1.5
    tree("0::/a/b\n", a__b__cpuDOTmax="50000 100000")
    assert cgroups.cpu_quota() == 0.5
    tree("0::/\n")
    assert cgroups.cpu_quota() is None


def test_quota_of_version_1(tree):
    files = {"cpu__slice__cpuDOTcfs_quota_us": "50000", "cpu__slice__cpuDOTcfs_period_us": "100000"}
    tree("3:cpu,cpuacct:/slice\n0::/\n", **files, cpu__cpuDOTcfs_quota_us="-1")
    assert cgroups.cpu_quota() == 0.5
    tree("3:cpu,cpuacct:/other/on/the/host\n")  # a container that does not see its own group
    assert cgroups.cpu_quota() is None


def test_memory_without_what_is_kept_of_files(tree):
    stat = "anon 100\nfile 700\ninactive_file 500\nactive_file 200\n"
    tree("0::/a\n", a__memoryDOTmax="2000", a__memoryDOTcurrent="1000", a__memoryDOTstat=stat)
    assert cgroups.memory_limit() == (2000, 1700)
    tree("0::/a\n", memoryDOTmax="1500", memoryDOTcurrent="1400")
    assert cgroups.memory_limit() == (1500, 100)
    tree("0::/a\n", memoryDOTmax="max", a__memoryDOTmax="max")
    assert cgroups.memory_limit() is None
    old = "active_file 1\ninactive_file 2\ntotal_active_file 200\ntotal_inactive_file 500\n"
    tree(
        "4:memory:/b\n",
        memory__b__memoryDOTlimit_in_bytes="2000",
        memory__b__memoryDOTusage_in_bytes="1000",
        memory__b__memoryDOTstat=old,
    )
    assert cgroups.memory_limit() == (2000, 1700)
    tree("4:memory:/b\n", memory__b__memoryDOTlimit_in_bytes=str(2**63 - 4096))
    assert cgroups.memory_limit() is None
