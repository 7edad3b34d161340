"""The block writer: batches in, whole blocks out, bounded memory, and no failure that hangs or is lost."""

import threading
import time

import numpy as np
import pytest
import torch

from pipeline.extract.streaming import BlockWriter, HostCopy
from pipeline.store.blocks import blocks_of

DEADLINE_S = 20  # far more than any of this takes, far less than for ever


def feed(writer, samples, block_samples, batch_size):
    """Hand over `values` = sample number and `twice`, in batches that do not cross a block's end."""
    for block in blocks_of(samples, block_samples):
        for start in range(block.start, block.stop, batch_size):
            rows = torch.arange(start, min(start + batch_size, block.stop))
            places = (rows - block.start).tolist()
            writer.add(block, places, {"values": rows[:, None].float()}, None, {"twice": 2 * rows.numpy()})


def within_deadline(work):
    """Run `work` in a thread; fail when it hangs; return what it raised."""
    raised = []

    def guarded():
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (what it raised is the result)
            raised.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "the writer hangs"
    return raised[0] if raised else None


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(("samples", "block_samples", "batch_size"), [(10, 4, 3), (8, 4, 4), (5, 8, 2), (7, 1, 1), (0, 4, 2)])
def test_blocks_come_out_whole_and_once(samples, block_samples, batch_size, threads):
    written = {}
    with BlockWriter(lambda block, arrays: written.setdefault(block, []).append(arrays), threads) as writer:
        feed(writer, samples, block_samples, batch_size)
    assert sorted(written, key=lambda block: block.index) == blocks_of(samples, block_samples)
    for block, calls in written.items():
        (arrays,) = calls
        expected = np.arange(block.start, block.stop)
        np.testing.assert_array_equal(arrays["values"], expected[:, None].astype(np.float32))
        np.testing.assert_array_equal(arrays["twice"], 2 * expected)


def test_rows_come_in_any_order():
    """As carried samples and computed ones do."""
    written = {}
    (block,) = blocks_of(5, 5)
    with BlockWriter(lambda block, arrays: written.update(arrays)) as writer:
        writer.add(block, [4, 0], {}, None, {"values": np.array([40, 0])})
        writer.add(block, [1, 3, 2], {"values": torch.tensor([10, 30, 20])}, None, {})
    np.testing.assert_array_equal(written["values"], [0, 10, 20, 30, 40])


def test_leaving_waits_for_the_last_write():
    written = []

    def slow(block, arrays):
        time.sleep(0.1)
        written.append(block)

    with BlockWriter(slow, threads=2) as writer:
        feed(writer, 8, 4, 4)
    assert len(written) == 2


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("blocks", [1, 30])  # the failure shows at the end; and while the queue is full
def test_a_failing_write_reaches_the_caller_and_nothing_hangs(threads, blocks):
    def full(block, arrays):
        raise OSError("no space left on device")

    def work():
        with BlockWriter(full, threads) as writer:
            feed(writer, 4 * blocks, 4, 2)

    error = within_deadline(work)
    assert isinstance(error, OSError)
    assert "no space left" in str(error)


def test_a_batch_that_does_not_fit_reaches_the_caller():
    def work():
        with BlockWriter(lambda block, arrays: None) as writer:
            (block,) = blocks_of(4, 4)
            writer.add(block, [0, 1], {"values": torch.zeros(2, 3)}, None, {})
            writer.add(block, [2, 3], {"values": torch.zeros(2, 5)}, None, {})

    assert "broadcast" in str(within_deadline(work))


def test_when_the_body_raises_no_part_of_a_block_is_written():
    written = []

    def work():
        with BlockWriter(lambda block, arrays: written.append(block.index)) as writer:
            first, second = blocks_of(8, 4)
            writer.add(first, range(4), {"values": torch.zeros(4, 1)}, None, {})
            writer.add(second, range(3), {"values": torch.zeros(3, 1)}, None, {})
            raise KeyboardInterrupt

    assert isinstance(within_deadline(work), KeyboardInterrupt)
    assert written == [0]


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_is_bounded(threads):
    """With writers that stand still, `add` soon waits: so many blocks are in memory and no more."""
    go, added = threading.Event(), []

    def stuck(block, arrays):
        assert go.wait(DEADLINE_S)

    def work():
        with BlockWriter(stuck, threads) as writer:
            for block in blocks_of(50, 1):
                writer.add(block, [0], {"values": torch.zeros(1, 1)}, None, {})
                added.append(block)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        settled = -1
        while settled != len(added):  # until nothing more is taken
            settled = len(added)
            time.sleep(0.3)
    finally:
        go.set()
    # threads + 1 whole blocks are held by the writers, one by the collector, and the queue has room for 4 batches
    assert threads <= settled <= (threads + 1) + 1 + 4
    thread.join(DEADLINE_S)
    assert len(added) == 50


def test_on_a_cpu_tensors_are_handed_over_as_they_are():
    tensors = {"a": torch.arange(3)}
    host, ready = HostCopy(torch.device("cpu")).start(tensors)
    assert ready is None
    assert host["a"] is tensors["a"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_copy_from_the_device_is_what_was_there_when_it_was_asked_for():
    device = torch.device("cuda")
    copier = HostCopy(device)
    value = torch.arange(1 << 20, device=device, dtype=torch.float32)
    expected = value.cpu()
    host, ready = copier.start({"a": value})
    del value
    torch.full((1 << 20,), -1.0, device=device)  # would take the freed memory, were it not recorded on the copy's stream
    ready.synchronize()
    assert host["a"].is_pinned()
    torch.testing.assert_close(host["a"], expected, rtol=0, atol=0)
