"""From raw logs to a training set (scripts 1 and 2), and from a trained model to its grades (script 3)."""
