"""What an exported folder holds, how it is run, and how it is checked against the run it came from."""
