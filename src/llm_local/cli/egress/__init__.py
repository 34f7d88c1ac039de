"""The proof that nothing leaves this machine: the real doors, run where every attempt is seen and denied."""
