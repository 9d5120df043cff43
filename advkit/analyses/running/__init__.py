"""How an analysis is called: its options, its inputs, its record, its files."""
