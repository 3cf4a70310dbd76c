"""Evidence: experiments, load, limits, and the statistics and files that carry their figures.

Nothing is imported here, so that a command line which only loads a saved result does not pay for
the experiments, and none of these modules needs numpy or pandas to be imported.
"""
