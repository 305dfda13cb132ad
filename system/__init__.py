"""Errors, files, command lines, types of the settings, and the machine (device, threads, seeds)."""
