"""What a run is expected to have done: the ``expect`` section, judged from the records alone."""
