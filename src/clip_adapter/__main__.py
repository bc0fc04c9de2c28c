"""``python -m clip_adapter``: the same as the command ``clip-adapter``."""

from clip_adapter.cli.main import main

if __name__ == "__main__":
    main()
