"""Use cases, one each: facts, then core decides, then act."""
