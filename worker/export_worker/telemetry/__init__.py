"""Instruments, logs, metrics, traces and health pages."""
