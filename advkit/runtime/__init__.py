"""How code runs, no formula: random streams, module modes, memory, precision, signals."""
