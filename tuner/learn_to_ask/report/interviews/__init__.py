"""The report of whole interviews: from interview files to tables, plots and a page that lets one read them."""
