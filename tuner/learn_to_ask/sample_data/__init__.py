"""Sample logs in RealMedConv's schema, and the vocabulary and generator they are made with."""
