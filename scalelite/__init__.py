"""Scalelite, declared: BigBlueButton clusters from YAML inventories."""

__version__ = "0.1.0"
