"""Files that stages exchange: whole or absent, digested, saying where they come from."""
