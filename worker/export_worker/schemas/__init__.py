"""The documents that describe the configuration and the interfaces, made from the models and their docstrings."""
