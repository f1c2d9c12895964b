"""Finding the configuration and checking it before anything is built."""
