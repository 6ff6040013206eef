"""The rest of the outside world: BigBlueButton servers, callbacks, files."""
