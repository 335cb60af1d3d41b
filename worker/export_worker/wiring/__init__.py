"""The composition root: the only package that builds adapters from the configuration."""
