"""Whether a coordinator grows: each kind of event ten thousand times, or minutes of load."""
