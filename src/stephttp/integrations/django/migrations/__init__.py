"""The migrations of the table `stephttp_steps`."""
