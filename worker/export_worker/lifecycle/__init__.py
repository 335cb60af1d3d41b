"""The state machine of an export. Pure: no I/O, no clock, no randomness."""
