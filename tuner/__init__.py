"""Tuning recipes for AgentScope agents; one sub-package per recipe."""
