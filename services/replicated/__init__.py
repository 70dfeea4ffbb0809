"""What every group replicates around its own machine: the envelope, kept answers, limits, withdrawals."""
