"""What `fettle doctor` looks at."""
