"""``python -m monitor`` is the console script ``poisoning-monitor``."""

from monitor.cli.app import main

if __name__ == "__main__":
    main()
