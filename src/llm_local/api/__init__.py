"""What HTTP needs around the service: bodies, errors, keys, streams; and one folder for each dialect."""
