"""What API and dashboard share: reading requests, writing answers, the guard around both."""
