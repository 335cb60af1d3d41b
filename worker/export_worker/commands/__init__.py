"""The commands of the worker side, one module each. `cli` imports a module when its command is called."""
