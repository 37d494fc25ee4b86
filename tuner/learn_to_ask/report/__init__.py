"""The last step: from evaluation files to tables with error bars, plots and an example browser."""
