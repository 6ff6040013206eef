"""Decides and never does: no files, sockets, environment, clock, randomness or logging."""
