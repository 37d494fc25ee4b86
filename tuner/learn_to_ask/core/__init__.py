"""The method as pure functions on plain data."""
