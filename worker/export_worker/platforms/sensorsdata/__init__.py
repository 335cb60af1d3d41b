"""The driver of Sensors Data."""
