"""YAML inventories: read, rendered, checked into the specs of core, and written back."""
