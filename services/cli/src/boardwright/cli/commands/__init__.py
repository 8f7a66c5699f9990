"""The commands, one module a family, each with `register(app)`; heavy imports wait until a command runs."""
