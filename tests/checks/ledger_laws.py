"""What every ledger obeys. A test module subclasses with a fixture ``ledgers``, a factory."""

from __future__ import annotations

import threading
import time

MANY = 20


class LedgerLaws:
    def test_rows_come_back_in_order_and_once(self, ledgers):
        ledger = ledgers()
        assert ledger.catch_up() == []
        ledger.append([(b"a", b"1"), (b"b", None), (b"bytes", b"\xff\x00\n")])
        ledger.append([(b"a", b"2")])
        rows = list(ledger.catch_up())
        assert rows == [(b"a", b"1"), (b"b", None), (b"bytes", b"\xff\x00\n"), (b"a", b"2")]
        assert list(ledger.catch_up()) == []
        assert list(ledger.read(0.1)) == []

    def test_others_see_it_and_so_does_one_who_comes_later(self, ledgers):
        first, second = ledgers(), ledgers()
        second.catch_up()
        first.append([(b"a", b"1")])
        assert list(second.catch_up()) == [(b"a", b"1")]
        second.append([(b"b", b"2")])
        assert list(first.catch_up()) == [(b"a", b"1"), (b"b", b"2")]
        first.close()
        assert list(ledgers().catch_up()) == [(b"a", b"1"), (b"b", b"2")]

    def test_read_waits_for_the_first_row(self, ledgers):
        reader, writer = ledgers(), ledgers()
        reader.catch_up()
        writer.append([(b"first", b"")])
        assert list(reader.read(5.0)) == [(b"first", b"")]
        late = threading.Timer(0.3, lambda: writer.append([(b"late", b"row")]))
        late.start()
        deadline = time.monotonic() + 20
        while not (rows := list(reader.read(1.0))) and time.monotonic() < deadline:
            pass
        late.join()
        assert rows == [(b"late", b"row")]

    def test_several_append_at_once_in_one_order(self, ledgers):
        writers = [ledgers() for _ in range(3)]

        def write(name, ledger):
            for i in range(MANY):
                ledger.append([(f"{name}/{i}/{k}".encode(), b"v") for k in "xy"])

        threads = [threading.Thread(target=write, args=pair) for pair in enumerate(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = [list(ledger.catch_up()) for ledger in (*writers, ledgers())]
        assert all(rows == seen[0] for rows in seen)
        keys = [key.decode().split("/") for key, _ in seen[0]]
        assert [k[:2] for k in keys[::2]] == [k[:2] for k in keys[1::2]]  # appends stay together
        for name in "012":
            mine = [int(i) for n, i, k in keys if n == name and k == "x"]
            assert mine == list(range(MANY))
