"""The switch: configuration, workers, command line."""
