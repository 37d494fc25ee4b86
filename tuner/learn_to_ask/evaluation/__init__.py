"""From a test set to graded rollouts and figures."""
