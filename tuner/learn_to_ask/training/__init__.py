"""Everything that main.py needs around tune()."""
