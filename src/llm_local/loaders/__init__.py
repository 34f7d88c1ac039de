"""From files to a model in memory: read, judged, placed. Loading is local: nothing here asks the network."""
