"""Other people's formats: each module turns the rows of one family of files into our records."""
