"""The folder of packs: what a worker finds at its start, and what it does as it is told."""

import os
import threading

import msgspec
import pytest

from cluster import Handlers
from cluster.vocabulary.errors import ClusterError
from cluster.work.functions import PackContent, pack_work
from cluster.work.pack_folder import PackReader, PackWriter
from cluster.work.plain_data import pack_call, read_result

TIMEOUT_S = 10


def pack(name, result):
    return pack_work(lambda: result, name)[0]


def call(handlers, name):
    return read_result(handlers.single(name)(pack_call((), name)))


@pytest.fixture
def writer(tmp_path):
    return PackWriter(tmp_path / "packs")


@pytest.fixture
def files(tmp_path):
    return lambda: sorted(path.name for path in (tmp_path / "packs").iterdir())


def test_a_worker_that_starts_has_what_is_kept_and_not_what_is_tried(writer, files, tmp_path):
    for name, result in (("a", 1), ("b", 2), ("a", 3)):
        writer.keep(writer.write(pack(name, result)))
    tried = writer.write(pack("b", 4))
    assert files() == ["000002.use", "000003.use", "000004.try"]
    handlers = Handlers()
    reader = PackReader(tmp_path / "packs", handlers)
    assert (call(handlers, "a"), call(handlers, "b")) == (3, 2)
    reader.obey("use", 3)  # it has this one
    reader.obey("try", tried)
    assert call(handlers, "b") == 2
    writer.drop(tried)
    reader.obey("use", tried)  # it is loaded, whatever has become of the file
    assert call(handlers, "b") == 4
    with pytest.raises(ClusterError, match="pack 5 is not there any more"):
        reader.obey("try", 5)
    assert (tmp_path / "packs").stat().st_mode & 0o777 == 0o700


def test_it_answers_each_line_and_offers_what_it_uses(writer, tmp_path):
    handlers, told, heard = Handlers(), [], threading.Semaphore(0)

    def answer(*words):
        told.append(words)
        heard.release()

    read, write = os.pipe()
    reader = PackReader(tmp_path / "packs", handlers)
    reader.follow(read, lambda: told.append(handlers.kinds()), answer)
    number = writer.write(pack("a", 1))
    for order, which in (("try", number), ("use", number), ("try", 9)):
        os.write(write, f'["{order}", {which}]\n'.encode())
        assert heard.acquire(timeout=TIMEOUT_S)
    os.close(write)
    assert told == [
        ("try", 1, ""),
        ["a"],
        ("use", 1, ""),
        ("try", 9, "pack 9 is not there any more"),
    ]


def test_a_pack_that_cannot_be_written_is_said_so_and_leaves_nothing(writer, files, tmp_path):
    (tmp_path / "packs").rename(tmp_path / "gone")
    with pytest.raises(ClusterError, match=r"the functions can.t be written: .*No such file"):
        writer.write(pack("a", 1))
    (tmp_path / "gone").rename(tmp_path / "packs")
    assert files() == []


def test_a_worker_started_again_does_without_a_pack_that_is_broken_now(writer, tmp_path):
    writer.keep(writer.write(pack("a", 1)))
    writer.keep(writer.write(pack("b", 2)))
    content = msgspec.msgpack.decode(pack("a", 1).data, type=PackContent)
    content.functions = b"?"
    (tmp_path / "packs" / "000001.use").write_bytes(msgspec.msgpack.encode(content))
    with pytest.raises(ClusterError, match="a can't be loaded in a worker"):
        PackReader(tmp_path / "packs", Handlers())
    handlers = Handlers()
    reader = PackReader(tmp_path / "packs", handlers, again=True)
    assert handlers.kinds() == ["b"]
    assert reader.trouble.startswith("a can't be loaded in a worker: UnpicklingError")
    writer.keep(writer.write(pack("a", 3)))
    assert reader.trouble == ""  # the user has mended it
