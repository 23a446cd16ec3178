"""What the engine holds in memory only, and keeps for no one: waiters, changes, channels, alarm."""
