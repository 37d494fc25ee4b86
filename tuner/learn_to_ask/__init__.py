"""Learn2Ask: train a proactive medical assistant from offline dialogue logs (arXiv 2510.25441)."""
