"""Many runs of one command: trials that are recorded, resumed, searched for, and reported on."""
