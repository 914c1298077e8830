"""Entry of `python -m rbee_sd`.

Being a `__main__` inside a package keeps `multiprocessing`'s spawn from importing the front's main module
again in the engine process.
"""

from rbee_sd.cli import main

if __name__ == "__main__":
    main()
