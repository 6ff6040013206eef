"""Playbooks: what is done to the cluster in an order, with waits; parsing, running, modules."""
