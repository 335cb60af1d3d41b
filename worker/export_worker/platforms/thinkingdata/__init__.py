"""The driver of ThinkingData."""
