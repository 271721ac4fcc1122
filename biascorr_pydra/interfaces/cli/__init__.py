"""The command line `biascorr`."""
