"""One process of a bare broker: ``python -m perfkit.bench.bare ROLE``."""

from perfkit.bench.bare.processes import main

if __name__ == "__main__":
    main()
