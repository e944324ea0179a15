"""`python -m exporter` is the console script `ghl-exporter`."""

from exporter.cli import main

if __name__ == "__main__":
    main()
