"""``python -m monitor`` is the console script ``poisoning-monitor``."""

import os

# Matrices are small here: further threads of BLAS wait for each other and use up processors. And
# how many share a sum changes its last bits, which a recovery elsewhere has to find again.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from monitor.cli.app import main  # noqa: E402 - numpy reads them when it is loaded

if __name__ == "__main__":
    main()
