"""The command keeps numerical libraries to one thread, unless somebody says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TELL = """
import monitor.__main__, threadpoolctl, numpy
print(max(one["num_threads"] for one in threadpoolctl.threadpool_info()))
"""


@pytest.mark.parametrize(("said", "threads"), [(None, 1), ("2", 2)])
def test_blas_has_the_threads_that_it_should(said: str | None, threads: int) -> None:
    if said is not None and (os.cpu_count() or 1) < int(said):
        pytest.skip("one processor only")
    left = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    given = {} if said is None else {"OPENBLAS_NUM_THREADS": said}
    ran = subprocess.run(
        [sys.executable, "-c", TELL],
        env=left | given,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(ran.stdout) == threads
