"""One file per wire, and the registry that knows them all."""
