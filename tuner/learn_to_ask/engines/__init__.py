"""Engines: everything that can give n answers to each of many conversations."""
