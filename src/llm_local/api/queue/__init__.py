"""The queue dialect: hand a request in, watch its place, read its events when it suits, come back for the rest."""
