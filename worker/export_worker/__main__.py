"""`python -m export_worker` is the command `export-worker`."""

from export_worker.cli import main

if __name__ == "__main__":
    main()
