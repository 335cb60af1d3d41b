"""The driver that runs recipes."""
