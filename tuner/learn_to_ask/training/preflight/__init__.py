"""Everything that a training run needs, checked before it costs anything: one file for each subject."""
