"""What every room stands on: errors, the machine, files, command lines."""
